//! What a file is besides its content: owner, mode, times. By descriptor, or by the name of an entry
//! in an open directory, and then without following a link.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, Mode, UtimensatFlags};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid};

use crate::trace::{observe, quoted};
use crate::{Error, Result};

/// Gives an open file to a user and a group, fchown(2). The kernel takes the set-user-ID bits away
/// at this, so the mode comes after it.
pub fn set_owner(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    let result = nix::unistd::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    observe("fchown", || format!("{}, {uid}, {gid}", fd.as_raw_fd()), result)
}

/// Gives the entry `name` of `dir` to a user and a group, fchownat(2).
pub fn set_owner_at(dir: BorrowedFd<'_>, name: &Path, uid: u32, gid: u32) -> Result<()> {
    let (user, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    let result = nix::unistd::fchownat(dir, name, user, group, AtFlags::AT_SYMLINK_NOFOLLOW);
    observe("fchownat", || format!("{}, {}, {uid}, {gid}", dir.as_raw_fd(), quoted(name)), result)
}

/// Sets the permission bits of an open file, fchmod(2).
pub fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
    let result = nix::sys::stat::fchmod(fd, Mode::from_bits_truncate(mode));
    observe("fchmod", || format!("{}, {mode:#o}", fd.as_raw_fd()), result)
}

/// Sets when an open file was last changed and read, to the nanosecond, futimens(3).
pub fn set_times(fd: BorrowedFd<'_>, (seconds, nanoseconds): (i64, u32)) -> Result<()> {
    let time = TimeSpec::new(seconds, nanoseconds.into());
    let result = nix::sys::stat::futimens(fd, &time, &time);
    observe("utimensat", || format!("{}, {seconds}.{nanoseconds:09}", fd.as_raw_fd()), result)
}

/// Sets when the entry `name` of `dir` was last changed and read, utimensat(2).
pub fn set_times_at(
    dir: BorrowedFd<'_>,
    name: &Path,
    (seconds, nanoseconds): (i64, u32),
) -> Result<()> {
    let time = TimeSpec::new(seconds, nanoseconds.into());
    let flags = UtimensatFlags::NoFollowSymlink;
    let result = nix::sys::stat::utimensat(dir, name, &time, &time, flags);
    observe("utimensat", || format!("{}, {}", dir.as_raw_fd(), quoted(name)), result)
}

/// What the entry `name` of `dir` is, without following a link, fstatat(2).
pub fn stat_at(dir: BorrowedFd<'_>, name: &Path) -> Result<FileStat> {
    let result = nix::sys::stat::fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW);
    let arguments = || format!("{}, {}", dir.as_raw_fd(), quoted(name));
    match result {
        Ok(stat) => {
            observe("newfstatat", arguments, Ok(()))?;
            Ok(stat)
        }
        Err(errno) => {
            let error = Error::new("newfstatat", arguments(), errno);
            Err(observe::<()>("newfstatat", arguments, Err(errno)).err().unwrap_or(error))
        }
    }
}
