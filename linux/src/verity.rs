//! fs-verity: a file that cannot change any more, and that the kernel checks whenever it is read.
//!
//! # What the kernel offers
//! `FS_IOC_ENABLE_VERITY` builds a tree of digests over a file and makes its content read-only for
//! ever. From then on each page is checked against the tree when it comes from the disk; one that
//! is not what it was is an error (`EIO`), not data. `FS_IOC_MEASURE_VERITY` gives the root of the
//! tree in no time, whatever the size. ext4 and f2fs with the feature `verity`, and btrfs, have it.
//!
//! See Documentation/filesystems/fsverity.rst.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use crate::trace::{answer, observe};
use crate::{Error, Result};

const FS_IOC_ENABLE_VERITY: libc::c_ulong = 0x4080_6685;
const FS_IOC_MEASURE_VERITY: libc::c_ulong = 0xc004_6686;
const FS_VERITY_HASH_ALG_SHA256: u32 = 1;
/// The size of the blocks that are digested. Before Linux 6.3 it had to be that of a page.
const BLOCK_BYTES: u32 = 4096;
const DIGEST_BYTES: usize = 32;

/// The layout of `struct fsverity_enable_arg` (128 bytes).
#[repr(C)]
#[derive(Debug, Default)]
struct EnableArg {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt_ptr: u64,
    sig_size: u32,
    reserved1: u32,
    sig_ptr: u64,
    reserved2: [u64; 11],
}

/// The layout of `struct fsverity_digest`, with room for a sha256.
#[repr(C)]
#[derive(Debug, Default)]
struct Measured {
    algorithm: u16,
    size: u16,
    digest: [u8; DIGEST_BYTES],
}

/// Makes the content of a file unchangeable. The descriptor is one for reading, and nobody may have
/// the file open for writing. A file that is so already stays as it is.
///
/// `EOPNOTSUPP` and `ENOTTY` where the file system, or the kernel, cannot do it.
pub fn enable(file: BorrowedFd<'_>) -> Result<()> {
    let argument = EnableArg {
        version: 1,
        hash_algorithm: FS_VERITY_HASH_ALG_SHA256,
        block_size: BLOCK_BYTES,
        ..EnableArg::default()
    };
    let number = file.as_raw_fd();
    // SAFETY: `argument` is a live struct of the layout and size that this request reads.
    #[expect(unsafe_code, reason = "nix has no fs-verity")]
    let value = unsafe { libc::ioctl(number, FS_IOC_ENABLE_VERITY, &raw const argument) };
    let result = match answer(value.into()) {
        Err(Errno::EEXIST) => Ok(()),
        result => result.map(drop),
    };
    observe("ioctl", || format!("{number}, FS_IOC_ENABLE_VERITY"), result)
}

/// The sha256 root of a file's tree; `None` when it has none.
pub fn measure(file: BorrowedFd<'_>) -> Result<Option<[u8; DIGEST_BYTES]>> {
    let mut measured = Measured { size: DIGEST_BYTES as u16, ..Measured::default() };
    let number = file.as_raw_fd();
    // SAFETY: `measured` is a live struct with room for the digest of the size that it says.
    #[expect(unsafe_code, reason = "nix has no fs-verity")]
    let value = unsafe { libc::ioctl(number, FS_IOC_MEASURE_VERITY, &raw mut measured) };
    let shown = || format!("{number}, FS_IOC_MEASURE_VERITY");
    match answer(value.into()) {
        Err(Errno::ENODATA | Errno::EOPNOTSUPP | Errno::ENOTTY) => Ok(None),
        Err(errno) => Err(Error::new("ioctl", shown(), errno)),
        Ok(_) => {
            observe("ioctl", shown, Ok(()))?;
            let is_ours = u32::from(measured.algorithm) == FS_VERITY_HASH_ALG_SHA256
                && usize::from(measured.size) == DIGEST_BYTES;
            Ok(is_ours.then_some(measured.digest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn the_layouts_are_those_of_the_kernel() {
        assert_eq!(size_of::<EnableArg>(), 128);
        assert_eq!(size_of::<Measured>(), 4 + DIGEST_BYTES);
    }

    #[test]
    fn a_file_that_cannot_have_it_has_none() {
        let file = std::fs::File::open("/proc/self/status").unwrap();
        assert_eq!(measure(file.as_fd()).unwrap(), None);
        assert!(enable(file.as_fd()).is_err());
    }
}
