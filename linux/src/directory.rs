//! Directories: what is in them, who may write to them, whose they are.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, Gid, Uid};

use crate::trace::{observe, quoted};
use crate::{Error, Result};

/// The names of the directories in `dir`, sorted, getdents64(2).
///
/// For the file systems of the kernel (cgroup, procfs, sysfs), which say the type of each entry.
pub fn directories(dir: BorrowedFd<'_>) -> Result<Vec<OsString>> {
    let failed = |errno: Errno| Error::new("getdents64", dir.as_raw_fd().to_string(), errno);
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut entries = Dir::openat(dir, ".", flags, Mode::empty()).map_err(failed)?;
    let mut names = Vec::new();
    for entry in entries.iter() {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if entry.file_type() == Some(Type::Directory) && name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    names.sort();
    observe("getdents64", || dir.as_raw_fd().to_string(), Ok(names.len()))?;
    Ok(names)
}

/// Whether this process may write to `name` below `dir` with its effective ids, faccessat2(2).
pub fn may_write(dir: BorrowedFd<'_>, name: &Path) -> bool {
    let result = nix::unistd::faccessat(dir, name, AccessFlags::W_OK, AtFlags::AT_EACCESS);
    let shown = || format!("{}, {}, W_OK, AT_EACCESS", dir.as_raw_fd(), quoted(name));
    observe("faccessat2", shown, result).is_ok()
}

/// Gives `name` below `dir` to another user and group, fchownat(2). Links are not followed.
pub fn give_to(dir: BorrowedFd<'_>, name: &Path, user: u32, group: u32) -> Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
    let result = nix::unistd::fchownat(dir, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW);
    let shown = || format!("{}, {}, {user}, {group}", dir.as_raw_fd(), quoted(name));
    observe("fchownat", shown, result)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn only_directories_are_named_in_order() {
        let proc = crate::path::open(Path::new("/proc/self"), OFlag::O_PATH).unwrap();
        let names = directories(proc.as_fd()).unwrap();
        assert!(names.is_sorted());
        assert!(names.iter().any(|name| name == "fd"));
        assert!(!names.iter().any(|name| name == "status" || name == "."));
    }

    #[test]
    fn a_file_that_is_not_there_may_not_be_written() {
        let root = crate::path::open(Path::new("/proc"), OFlag::O_PATH).unwrap();
        assert!(!may_write(root.as_fd(), Path::new("no-such-entry")));
        assert!(may_write(root.as_fd(), Path::new("self/comm")));
    }
}
