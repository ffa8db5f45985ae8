//! # What the kernel offers
//! A new tmpfs is empty, and hides what the image has in the directory that it is mounted on.
//!
//! # What we do
//! With the option `tmpcopyup` the image's files are copied into the tmpfs before it is attached:
//! from descriptor to descriptor, no link followed, with owner, mode, times and extended
//! attributes. A tmpfs for which nobody gives a mode has the mode of the directory below it.
//!
//! # What goes wrong without it
//! A read-only container with a tmpfs on `/var/cache` finds none of the files there that its
//! program was installed with.
//!
//! # By hand
//! ```sh
//! mkdir /tmp/lesson-up; echo kept >/tmp/lesson-up/file
//! unshare --mount sh -c 'mount -t tmpfs t /mnt && cp -a /tmp/lesson-up/. /mnt && mount --move /mnt /tmp/lesson-up && cat /tmp/lesson-up/file' | grep -x kept
//! rm -r /tmp/lesson-up
//! ```
//! See tmpfs(5), runtime-spec config.md, "Linux mount options".

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use linux::{Errno, OFlag, entry, fd, metadata, path, xattr};

use crate::error::Cause;

const KIND: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// The permission bits of an open directory.
pub(crate) fn mode_of(dir: BorrowedFd<'_>) -> Result<u32, Cause> {
    Ok(fd::stat(dir)?.st_mode & 0o7777)
}

/// Copies everything in the directory `from` into the directory `to`.
pub(crate) fn copy_up(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Cause> {
    let readable = path::open_at(from, Path::new("."), OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    let writable = path::open_at(to, Path::new("."), OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    copy_all(&readable, &writable, Path::new(""))?;
    let stat = fd::stat(&readable)?;
    metadata::set_owner(writable.as_fd(), stat.st_uid, stat.st_gid)?;
    Ok(())
}

fn copy_all(from: &OwnedFd, to: &OwnedFd, shown: &Path) -> Result<(), Cause> {
    for name in entry::names(from.as_fd())? {
        let name = PathBuf::from(name);
        copy_one(from.as_fd(), to.as_fd(), &name, &shown.join(&name))?;
    }
    Ok(())
}

fn copy_one(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &Path,
    shown: &Path,
) -> Result<(), Cause> {
    let stat = metadata::stat_at(from, name)?;
    let (user, group) = (stat.st_uid, stat.st_gid);
    let times = (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0));
    let (source, copy) = match stat.st_mode & KIND {
        LINK => {
            path::symlink_at(&path::read_link_at(from, name)?, to, name)?;
            metadata::set_owner_at(to, name, user, group)?;
            return Ok(metadata::set_times_at(to, name, times)?);
        }
        DIRECTORY => {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
            let source = path::open_at(from, name, flags)?;
            path::make_dir_at(to, name, 0o700)?;
            let copy = path::open_at(to, name, flags)?;
            copy_all(&source, &copy, shown)?;
            (source, copy)
        }
        FILE => {
            let source = path::open_at(from, name, OFlag::O_RDONLY | OFlag::O_NOFOLLOW)?;
            let copy = path::create_at(to, name, 0o600)?;
            copy_content(source.as_fd(), &copy)?;
            (source, copy)
        }
        _ => {
            return Err(Cause::new(format!("{} is no file, directory or link", shown.display()))
                .remedy("tmpcopyup copies nothing else: remove it from the image"));
        }
    };
    metadata::set_owner(copy.as_fd(), user, group)?;
    metadata::set_mode(copy.as_fd(), stat.st_mode & 0o7777)?;
    for name in xattr::list(source.as_fd())? {
        if let Some(value) = xattr::get(source.as_fd(), &name)? {
            match xattr::set(copy.as_fd(), &name, &value) {
                // A tmpfs before Linux 6.6 holds no attributes of users.
                Err(error) if error.errno == Errno::EOPNOTSUPP => {}
                set => set?,
            }
        }
    }
    Ok(metadata::set_times(copy.as_fd(), times)?)
}

fn copy_content(from: BorrowedFd<'_>, to: &OwnedFd) -> Result<(), Cause> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match fd::read(from, &mut buffer)? {
            0 => return Ok(()),
            length => fd::write_all(to, buffer.get(..length).unwrap_or_default())?,
        }
    }
}
