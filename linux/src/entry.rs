//! The entries of a directory: the names that files have.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag};

use crate::trace::{observe, quoted};
use crate::{Error, Result, path};

/// Gives the file `from` in `from_dir` one more name, linkat(2). A link is not followed: it gets
/// the second name itself.
pub fn link_at(
    from_dir: BorrowedFd<'_>,
    from: &Path,
    to_dir: BorrowedFd<'_>,
    to: &Path,
) -> Result<()> {
    let result = nix::unistd::linkat(from_dir, from, to_dir, to, AtFlags::empty());
    let (old, new) = (from_dir.as_raw_fd(), to_dir.as_raw_fd());
    observe("linkat", || format!("{old}, {}, {new}, {}", quoted(from), quoted(to)), result)
}

/// Makes a device node as it is asked for, mknodat(2). The device 0:0 is overlayfs's whiteout,
/// which anybody may make.
pub fn make_device_at(
    dir: BorrowedFd<'_>,
    name: &Path,
    kind: SFlag,
    (major, minor): (u32, u32),
) -> Result<()> {
    let device = libc::makedev(major, minor);
    let result = nix::sys::stat::mknodat(dir, name, kind, Mode::empty(), device);
    observe(
        "mknodat",
        || format!("{}, {}, {kind:?}, {major}:{minor}", dir.as_raw_fd(), quoted(name)),
        result,
    )
}

/// The names in an open directory, sorted, without `.` and `..`, getdents64(2).
///
/// The descriptor is opened anew, so an `O_PATH` one serves as well.
pub fn names(dir: BorrowedFd<'_>) -> Result<Vec<OsString>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let again = path::open_at(dir, Path::new("."), flags)?;
    let number = again.as_fd().as_raw_fd();
    let failed = |errno| Error::new("getdents64", number.to_string(), errno);
    let mut names = Vec::new();
    for entry in Dir::from_fd(again).map_err(failed)?.iter() {
        let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_link_to_a_link_is_a_second_name_of_the_link() {
        let dir = std::env::temp_dir().join(format!("linux-entry-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.join("b")).unwrap();
        let fd = path::open(&dir, OFlag::O_PATH | OFlag::O_DIRECTORY).unwrap();
        link_at(fd.as_fd(), Path::new("b"), fd.as_fd(), Path::new("a")).unwrap();
        assert!(fs::symlink_metadata(dir.join("a")).unwrap().is_symlink());
        assert_eq!(names(fd.as_fd()).unwrap(), ["a", "b"]);
        fs::remove_dir_all(dir).unwrap();
    }
}
