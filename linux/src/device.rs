//! Device nodes, mknod(2).

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag};

use crate::trace::{observe, quoted};
use crate::{Error, Result, fd, path};

/// The kinds of special files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

impl Kind {
    fn flag(self) -> SFlag {
        match self {
            Self::Character => SFlag::S_IFCHR,
            Self::Block => SFlag::S_IFBLK,
            Self::Fifo => SFlag::S_IFIFO,
        }
    }
}

/// A device's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Number {
    /// Which driver.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
}

/// The driver's part of a device number.
pub fn major(number: u64) -> u64 {
    nix::sys::stat::major(number)
}

/// The device's part of a device number.
pub fn minor(number: u64) -> u64 {
    nix::sys::stat::minor(number)
}

/// Makes the node `name` below `dir`, mknodat(2).
pub fn make_at(
    dir: BorrowedFd<'_>,
    name: &Path,
    kind: Kind,
    mode: u32,
    number: Number,
) -> Result<()> {
    let device = nix::sys::stat::makedev(number.major.into(), number.minor.into());
    let permissions = Mode::from_bits_truncate(mode);
    let result = nix::sys::stat::mknodat(dir, name, kind.flag(), permissions, device);
    let shown = || {
        let (dir, name, Number { major, minor }) = (dir.as_raw_fd(), quoted(name), number);
        format!("{dir}, {name}, {kind:?}|{mode:#o}, {major}:{minor}")
    };
    observe("mknodat", shown, result)
}

/// The kind and numbers of what is behind `file`; `None` when it is no device.
pub fn identify(file: BorrowedFd<'_>) -> Result<Option<(Kind, Number)>> {
    let stat = fd::stat(file)?;
    let kind = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFCHR => Kind::Character,
        SFlag::S_IFBLK => Kind::Block,
        _ => return Ok(None),
    };
    let number = |part: u64| u32::try_from(part).unwrap_or(u32::MAX);
    let major = number(nix::sys::stat::major(stat.st_rdev));
    let minor = number(nix::sys::stat::minor(stat.st_rdev));
    Ok(Some((kind, Number { major, minor })))
}

/// Opens a device node of the host by path, and refuses it unless it is the one with that number.
///
/// A mask or a bound device is only as good as its source (CVE-2025-31133: an image that could
/// replace `/dev/null` chose what the runtime bound over its masked paths).
pub fn open_verified(file: &Path, kind: Kind, number: Number) -> Result<OwnedFd> {
    let node = path::open(file, OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
    use std::os::fd::AsFd;
    if identify(node.as_fd())? == Some((kind, number)) {
        return Ok(node);
    }
    let wanted = format!("{} /* wants {kind:?} {}:{} */", quoted(file), number.major, number.minor);
    Err(Error::new("fstat", wanted, Errno::ENODEV))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_real_null_device_passes() {
        let null = Number { major: 1, minor: 3 };
        open_verified(Path::new("/dev/null"), Kind::Character, null).unwrap();
        let zero = open_verified(Path::new("/dev/zero"), Kind::Character, null);
        assert_eq!(zero.unwrap_err().errno, Errno::ENODEV);
        let link = open_verified(Path::new("/proc/self/exe"), Kind::Character, null);
        assert_eq!(link.unwrap_err().errno, Errno::ENODEV);
    }
}
