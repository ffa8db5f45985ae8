//! File descriptors: the only handles that minirun trusts.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag};
use nix::sys::stat::FileStat;

use crate::trace::{answer, observe};
use crate::{Result, path};

/// Closes every descriptor from `first` on when the process executes a program, close_range(2).
///
/// The last defence against leaked descriptors (CVE-2024-21626): whatever some library opened
/// without `O_CLOEXEC` is not there any more when the container's program starts.
pub fn close_on_exec_from(first: RawFd) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: close_range with CLOEXEC takes three numbers and closes nothing now.
    #[expect(unsafe_code, reason = "no crate wraps close_range(2)")]
    let value =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    observe("close_range", || format!("{first}, ~0, CLOSE_RANGE_CLOEXEC"), answer(value).map(drop))
}

/// Closes every descriptor from 3 on that is not in `keep`, at once.
///
/// For a cloned process, which has copies of all that its creator had open: locks, logs, the other
/// end of its own line. Values that own one of the closed descriptors must never be dropped in this
/// process, so it must end with [`crate::clone::exit_now`] or execve(2).
pub fn close_all_but(keep: &[RawFd]) -> Result<()> {
    let mut keep: Vec<libc::c_uint> = keep.iter().map(|fd| fd.cast_unsigned()).collect();
    keep.sort_unstable();
    let mut first: libc::c_uint = 3;
    for last in keep.into_iter().map(Some).chain([None]) {
        let end = match last {
            Some(kept) if kept < first => continue,
            Some(kept) => kept,
            None => libc::c_uint::MAX,
        };
        if end > first {
            close_range(first, if last.is_some() { end - 1 } else { end })?;
        }
        first = end.saturating_add(1);
    }
    Ok(())
}

fn close_range(first: libc::c_uint, last: libc::c_uint) -> Result<()> {
    // SAFETY: close_range takes three numbers; that no live value owns the descriptors is the
    // contract of the public function.
    #[expect(unsafe_code, reason = "no crate wraps close_range(2)")]
    let value = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    observe("close_range", || format!("{first}, {last}, 0"), answer(value).map(drop))
}

/// Duplicates `fd` onto the number `target` without close-on-exec, dup2(2).
///
/// For standard streams and for descriptors that a caller asked to keep: the one place where a
/// number matters.
pub fn place_at(fd: BorrowedFd<'_>, target: RawFd) -> Result<()> {
    if fd.as_raw_fd() == target {
        return keep_on_exec(fd);
    }
    // SAFETY: dup2 takes two numbers. The caller gives up whatever `target` was, by contract.
    #[expect(unsafe_code, reason = "dup2 onto a chosen number has no safe form")]
    let value = unsafe { libc::dup2(fd.as_raw_fd(), target) };
    let result = answer(value.into()).map(drop);
    observe("dup2", || format!("{}, {target}", fd.as_raw_fd()), result)
}

/// Lets `fd` survive execve(2).
pub fn keep_on_exec(fd: BorrowedFd<'_>) -> Result<()> {
    let result = nix::fcntl::fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map(drop);
    observe("fcntl", || format!("{}, F_SETFD, 0", fd.as_raw_fd()), result)
}

/// Closes `fd` on execve(2).
pub fn close_on_exec(fd: BorrowedFd<'_>) -> Result<()> {
    let result = nix::fcntl::fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map(drop);
    observe("fcntl", || format!("{}, F_SETFD, FD_CLOEXEC", fd.as_raw_fd()), result)
}

/// Takes over descriptor `number`, which this process inherited (a socket that systemd passed, a
/// descriptor of `--preserve-fds`). `EBADF` when it is not open.
///
/// Call it once per number: the returned value closes it.
pub fn inherited(number: RawFd) -> Result<OwnedFd> {
    // SAFETY: F_GETFD takes a number and fails with EBADF when it is not open.
    #[expect(unsafe_code, reason = "a bare number has no safe form")]
    let value = unsafe { libc::fcntl(number, libc::F_GETFD) };
    observe("fcntl", || format!("{number}, F_GETFD"), answer(value.into()).map(drop))?;
    // SAFETY: the descriptor is open (checked above) and no other value of ours owns it, since it
    // came with the process.
    #[expect(unsafe_code, reason = "taking ownership of an inherited descriptor")]
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    Ok(fd)
}

/// What the descriptor refers to, fstat(2).
pub fn stat(fd: impl AsFd) -> Result<FileStat> {
    let fd = fd.as_fd();
    let result = nix::sys::stat::fstat(fd);
    let seen = result.as_ref().map(drop).map_err(|errno| *errno);
    observe("fstat", || fd.as_raw_fd().to_string(), seen)?;
    result.map_err(|errno| crate::Error::new("fstat", fd.as_raw_fd().to_string(), errno))
}

/// The magic number of the file system that holds `fd`, fstatfs(2).
pub fn file_system(fd: impl AsFd) -> Result<i64> {
    let fd = fd.as_fd();
    nix::sys::statfs::fstatfs(fd)
        .map(|info| info.filesystem_type().0)
        .map_err(|errno| crate::Error::new("fstatfs", fd.as_raw_fd().to_string(), errno))
}

/// Writes `bytes` in one write(2), as the files of procfs, sysfs and cgroupfs want it.
pub fn write_at_once(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<()> {
    let result = match nix::unistd::write(fd, bytes) {
        Ok(count) if count == bytes.len() => Ok(()),
        Ok(_) => Err(Errno::EIO),
        Err(errno) => Err(errno),
    };
    observe("write", || format!("{}, {:?}", fd.as_raw_fd(), lossy(bytes)), result)
}

/// Opens the file `name` below `dir` and writes `bytes` in one write(2).
pub fn write_file_at(dir: BorrowedFd<'_>, name: &Path, bytes: &[u8]) -> Result<()> {
    let file = path::open_at(dir, name, OFlag::O_WRONLY | OFlag::O_CLOEXEC)?;
    write_at_once(file.as_fd(), bytes).map_err(|mut error| {
        error.arguments = format!("\"{}\", {:?}", name.display(), lossy(bytes));
        error
    })
}

/// Reads the whole file `name` below `dir`.
pub fn read_file_at(dir: BorrowedFd<'_>, name: &Path) -> Result<String> {
    let file = path::open_at(dir, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC)?;
    read_to_end(file.as_fd(), name)
}

/// Reads the whole file `name` of procfs or sysfs.
pub fn read_kernel_file(name: &Path) -> Result<String> {
    let file = path::open(name, OFlag::O_RDONLY | OFlag::O_CLOEXEC)?;
    read_to_end(file.as_fd(), name)
}

/// The kernel writes such files while they are read and does not know their size: asking for it,
/// and reading in pieces that grow from nothing, as the standard library does, is ten calls
/// instead of two.
fn read_to_end(file: BorrowedFd<'_>, name: &Path) -> Result<String> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    let result = loop {
        match nix::unistd::read(file, &mut buffer) {
            Ok(0) => break Ok(()),
            Ok(count) => bytes.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(Errno::EINTR) => {}
            Err(errno) => break Err(errno),
        }
    };
    let text = String::from_utf8(bytes).map_err(|_| Errno::EILSEQ);
    let shown = || format!("\"{}\"", name.display());
    observe("read", shown, result.and_then(|()| text.as_ref().map(drop).map_err(|errno| *errno)))?;
    Ok(text.unwrap_or_default())
}

/// Reads what is there, read(2); 0 at the end.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    let result = loop {
        match nix::unistd::read(fd, buffer) {
            Err(Errno::EINTR) => {}
            other => break other,
        }
    };
    observe("read", || fd.as_raw_fd().to_string(), result)
}

/// Writes as much of `bytes` as goes, write(2).
pub fn write_some(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
    let result = nix::unistd::write(fd, bytes);
    observe("write", || format!("{}, … {} bytes", fd.as_raw_fd(), bytes.len()), result)
}

/// Makes reads and writes fail with `EAGAIN` instead of waiting, `O_NONBLOCK`.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<()> {
    let result = nix::fcntl::fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop);
    observe("fcntl", || format!("{}, F_SETFL, O_NONBLOCK", fd.as_raw_fd()), result)
}

/// Reads from `offset` of a file into `buffer`, pread(2), and gives how many bytes that were.
pub fn read_at(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: i64) -> Result<usize> {
    let result = nix::sys::uio::pread(fd, buffer, offset);
    observe("pread64", || format!("{}, {offset}", fd.as_raw_fd()), result)
}

/// Writes all of `bytes`, in as many write(2) calls as it takes.
pub fn write_all(fd: &OwnedFd, bytes: &[u8]) -> Result<()> {
    let duplicate =
        fd.try_clone().map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)));
    let result = duplicate.and_then(|fd| {
        File::from(fd)
            .write_all(bytes)
            .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))
    });
    observe("write", || format!("{}, … {} bytes", fd.as_raw_fd(), bytes.len()), result)
}

fn lossy(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
