//! A program that a container cannot overwrite.
//!
//! # What goes wrong without it
//! A process of the container can open `/proc/PID/exe` of the runtime that enters it, wait until
//! the runtime's program is no longer busy, and write to it: the next start of a container runs the
//! attacker's program as root on the host (CVE-2019-5736).
//!
//! # What we do
//! Before anything of a container is touched, the program executes itself again from a read-only,
//! detached copy of its own mount: then every path to it is read-only (`EROFS`), whoever asks. An
//! unprivileged user, who may not copy a mount, runs from a sealed copy in memory.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statfs::TMPFS_MAGIC;
use nix::sys::statvfs::FsFlags;

use crate::clone::{Strings, execute_fd};
use crate::mount::{Attributes, clone_tree, set_attributes};
use crate::trace::observe;
use crate::{Error, Result, path};

/// How the program was made safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    /// It runs from a read-only mount.
    ReadOnlyMount,
    /// It runs from a sealed memory file.
    SealedMemory,
    /// It does not: whoever is in the container could overwrite it.
    None,
}

/// The file that this process runs.
const MYSELF: &str = "/proc/self/exe";

/// How the running program is protected now.
pub fn current() -> Result<Seal> {
    let found = nix::sys::statfs::statfs(MYSELF)
        .map_err(|errno| Error::new("statfs", format!("{MYSELF:?}"), errno))?;
    if found.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(Seal::ReadOnlyMount);
    }
    if found.filesystem_type() != TMPFS_MAGIC {
        // Only a file in memory can be sealed.
        return Ok(Seal::None);
    }
    let me = path::open(Path::new(MYSELF), OFlag::O_RDONLY)?;
    let wanted = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    let seals = nix::fcntl::fcntl(&me, FcntlArg::F_GET_SEALS).unwrap_or(0);
    if SealFlag::from_bits_truncate(seals).contains(wanted) {
        return Ok(Seal::SealedMemory);
    }
    Ok(Seal::None)
}

/// Executes this program again from a protected copy. Returns only when it already runs from one,
/// or when that failed.
pub fn ensure(arguments: &Strings, environment: &Strings) -> Result<Seal> {
    match current()? {
        Seal::None => {}
        sealed => return Ok(sealed),
    }
    let copy = match read_only_copy() {
        Ok(copy) => copy,
        Err(_) => memory_copy()?,
    };
    Err(execute_fd(copy.as_fd(), arguments, environment))
}

fn read_only_copy() -> Result<OwnedFd> {
    let tree = clone_tree(Path::new(MYSELF), false)?;
    set_attributes(tree.as_fd(), Attributes::set(Attributes::READ_ONLY), false)?;
    Ok(tree)
}

fn memory_copy() -> Result<OwnedFd> {
    let mut source = File::from(path::open(Path::new(MYSELF), OFlag::O_RDONLY)?);
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let made = memfd_create("minirun", flags);
    let mut copy = File::from(observe("memfd_create", || "\"minirun\"".into(), made)?);
    std::io::copy(&mut source, &mut copy).map_err(|error| {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
        Error::new("write", "sealed copy of this program", errno)
    })?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SEAL;
    let result = nix::fcntl::fcntl(&copy, FcntlArg::F_ADD_SEALS(seals)).map(drop);
    observe("fcntl", || "F_ADD_SEALS, SEAL|SHRINK|GROW|WRITE".into(), result)?;
    Ok(copy.into())
}
