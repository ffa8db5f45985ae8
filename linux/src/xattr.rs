//! Extended attributes, by file descriptor.
//!
//! Attributes carry what the mode bits cannot: file capabilities (`security.capability`) and the
//! marks of overlayfs (`trusted.overlay.opaque`). See xattr(7).

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use crate::Result;
use crate::trace::{answer, observe};

/// Sets an attribute of an open file or directory, fsetxattr(2).
///
/// `EPERM` without the privilege that the name's family asks for, `EOPNOTSUPP` where the file
/// system has no attributes.
pub fn set(fd: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<()> {
    let (number, data) = (fd.as_raw_fd(), value.as_ptr().cast());
    // SAFETY: `name` ends with a NUL and `value` has `value.len()` readable bytes; both are
    // borrowed until the call returns, and the kernel copies them.
    #[expect(unsafe_code, reason = "nix has no extended attributes")]
    let result = unsafe { libc::fsetxattr(number, name.as_ptr(), data, value.len(), 0) };
    observe("fsetxattr", || format!("{number}, {name:?}"), answer(result.into()).map(drop))
}

/// The value of an attribute of an open file, or `None` when it has none of that name,
/// fgetxattr(2). The descriptor must not be an `O_PATH` one.
pub fn get(fd: BorrowedFd<'_>, name: &CStr) -> Result<Option<Vec<u8>>> {
    let number = fd.as_raw_fd();
    let value = sized(|buffer| {
        let (data, length) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: `name` ends with a NUL and `buffer` has `length` writable bytes; with a length
        // of 0 the kernel only answers the size.
        #[expect(unsafe_code, reason = "nix has no extended attributes")]
        let result = unsafe { libc::fgetxattr(number, name.as_ptr(), data, length) };
        result
    });
    let value = match value {
        Ok(value) => Ok(Some(value)),
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    };
    seen("fgetxattr", || format!("{number}, {name:?}"), value)
}

/// The names of all attributes of an open file, sorted, flistxattr(2). Where the file system has
/// no attributes there are none.
pub fn list(fd: BorrowedFd<'_>) -> Result<Vec<CString>> {
    let number = fd.as_raw_fd();
    let names = sized(|buffer| {
        let (data, length) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: `buffer` has `length` writable bytes; with a length of 0 the kernel only
        // answers the size.
        #[expect(unsafe_code, reason = "nix has no extended attributes")]
        let result = unsafe { libc::flistxattr(number, data, length) };
        result
    });
    let names = match names {
        Err(Errno::EOPNOTSUPP) => Ok(Vec::new()),
        other => other,
    };
    let names = seen("flistxattr", || number.to_string(), names)?;
    let parts = names.split(|&byte| byte == 0).filter(|part| !part.is_empty());
    let mut names: Vec<_> = parts.filter_map(|part| CString::new(part).ok()).collect();
    names.sort();
    Ok(names)
}

/// Reports a call whose result is not a number.
fn seen<T>(
    call: &'static str,
    arguments: impl FnOnce() -> String,
    result: nix::Result<T>,
) -> Result<T> {
    let outcome = result.as_ref().map(drop).map_err(|errno| *errno);
    let observed = observe(call, arguments, outcome);
    match (result, observed) {
        (Ok(value), _) => Ok(value),
        (Err(_), Err(error)) => Err(error),
        (Err(errno), Ok(())) => Err(crate::Error::new(call, "", errno)),
    }
}

/// Asks for the size, then for the bytes; once more when they have grown in between.
fn sized(mut read: impl FnMut(&mut [u8]) -> isize) -> nix::Result<Vec<u8>> {
    loop {
        let size = usize::try_from(read(&mut [])).map_err(|_| Errno::last())?;
        let mut buffer = vec![0; size];
        match usize::try_from(read(&mut buffer)).map_err(|_| Errno::last()) {
            Ok(size) => {
                buffer.truncate(size);
                return Ok(buffer);
            }
            Err(Errno::ERANGE) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::fd::AsFd;

    #[test]
    fn what_is_set_is_found_again() {
        let path = std::env::temp_dir().join(format!("linux-xattr-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        set(file.as_fd(), c"user.test", b"a\0b").unwrap();
        assert_eq!(get(file.as_fd(), c"user.test").unwrap().as_deref(), Some(&b"a\0b"[..]));
        assert_eq!(get(file.as_fd(), c"user.other").unwrap(), None);
        assert!(list(file.as_fd()).unwrap().contains(&c"user.test".to_owned()));

        fs::remove_file(path).unwrap();
    }
}
