//! File descriptors: the only handles that minirun trusts.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
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
    // contract of `close_all_but`, and `Spent` has taken them out of their values.
    #[expect(unsafe_code, reason = "no crate wraps close_range(2)")]
    let value = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    observe("close_range", || format!("{first}, {last}, 0"), answer(value).map(drop))
}

/// Descriptors that are done with, closed several at once.
///
/// Building a container's file system opens some sixty, one after the other, each for three or four
/// calls; closing them one by one would be a sixth of all calls.
#[derive(Debug, Default)]
pub struct Spent(Vec<OwnedFd>);

impl Spent {
    /// How many wait at most.
    const MOST: usize = 64;

    /// Takes a descriptor, which is closed with the next ones, or with this value.
    pub fn put(&mut self, fd: OwnedFd) {
        self.0.push(fd);
        if self.0.len() >= Self::MOST {
            self.close();
        }
    }

    /// Closes what waits. New descriptors get the lowest free numbers, so that these are
    /// neighbours, and one call is enough for them.
    fn close(&mut self) {
        let mut numbers: Vec<_> = self.0.drain(..).map(IntoRawFd::into_raw_fd).collect();
        numbers.sort_unstable();
        for run in numbers.chunk_by(|one, next| one + 1 == *next) {
            if let [first, ..] = run
                && let [.., last] = run
            {
                // It fails for no range of numbers. If it did: they close themselves on execve.
                drop(close_range(first.cast_unsigned(), last.cast_unsigned()));
            }
        }
    }
}

/// Closes descriptors that are done with, with few calls.
pub fn close_together(fds: impl IntoIterator<Item = OwnedFd>) {
    let mut spent = Spent::default();
    fds.into_iter().for_each(|fd| spent.put(fd));
}

impl Drop for Spent {
    fn drop(&mut self) {
        self.close();
    }
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

/// Reads the file `name` below `dir` that the kernel writes in one piece, as most of cgroupfs:
/// what comes short of the buffer is all of it, and no second read has to find the end.
///
/// Not for lists (`cgroup.procs`), which come in pieces of any length.
pub fn read_record_at(dir: BorrowedFd<'_>, name: &Path) -> Result<String> {
    let file = path::open_at(dir, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC)?;
    read_until(file.as_fd(), name, |count, buffer| count < buffer)
}

/// The same of a file of procfs or sysfs.
pub fn read_kernel_record(name: &Path) -> Result<String> {
    let file = path::open(name, OFlag::O_RDONLY | OFlag::O_CLOEXEC)?;
    read_until(file.as_fd(), name, |count, buffer| count < buffer)
}

/// Reads a whole file of the host, of the size that it says it has.
pub fn read_host_file(name: &Path) -> Result<Vec<u8>> {
    let file = path::open(name, OFlag::O_RDONLY | OFlag::O_CLOEXEC)?;
    // One byte more than there are: the read that does not fill it has found the end.
    let size = usize::try_from(stat(&file)?.st_size).unwrap_or(0);
    let mut bytes = vec![0; size + 1];
    let mut length = 0;
    loop {
        let rest = bytes.get_mut(length..).unwrap_or_default();
        let (room, count) = (rest.len(), read_named(file.as_fd(), name, rest)?);
        length += count;
        if count == 0 || (count < room && length == size) {
            bytes.truncate(length);
            return Ok(bytes);
        }
        if count == room {
            // It has grown, or is one that does not know its size.
            bytes.resize(bytes.len() * 2 + 4096, 0);
        }
    }
}

fn read_named(file: BorrowedFd<'_>, name: &Path, buffer: &mut [u8]) -> Result<usize> {
    read(file, buffer).map_err(|mut error| {
        error.arguments = format!("\"{}\"", name.display());
        error
    })
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
    read_until(file, name, |count, _| count == 0)
}

/// `is_last` says by its length, and that of the buffer, whether a read was the last.
fn read_until(
    file: BorrowedFd<'_>,
    name: &Path,
    is_last: impl Fn(usize, usize) -> bool,
) -> Result<String> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    let result = loop {
        match nix::unistd::read(file, &mut buffer) {
            Ok(count) => {
                bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
                if is_last(count, buffer.len()) {
                    break Ok(());
                }
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_is_closed_and_nothing_else() {
        let file = std::env::temp_dir().join(format!("linux-spent-{}", std::process::id()));
        std::fs::write(&file, "").unwrap();
        let open = || path::open(&file, OFlag::O_RDONLY).unwrap();
        let kept = open();
        let mut spent = Spent::default();
        let numbers: Vec<RawFd> = (0..Spent::MOST + 3)
            .map(|_| {
                let fd = open();
                let number = fd.as_raw_fd();
                spent.put(fd);
                number
            })
            .collect();
        assert!(spent.0.len() < Spent::MOST, "they are closed on the way");
        drop(spent);
        stat(&kept).unwrap();
        for number in numbers {
            // Another test of this process may have got the number meanwhile, for another file.
            let link = std::fs::read_link(format!("/proc/self/fd/{number}"));
            assert!(!link.is_ok_and(|link| link == file), "{number}");
        }
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn files_are_read_to_their_end() {
        let file = std::env::temp_dir().join(format!("linux-fd-{}", std::process::id()));
        for length in [0, 1, 4095, 4096, 70_000] {
            let bytes: Vec<u8> = (0..length).map(|n: u32| n.to_le_bytes()[0]).collect();
            std::fs::write(&file, &bytes).unwrap();
            assert_eq!(read_host_file(&file).unwrap(), bytes, "{length}");
        }
        std::fs::remove_file(&file).unwrap();
        // Files of procfs say that they are empty.
        let status = read_host_file(Path::new("/proc/self/status")).unwrap();
        assert!(status.ends_with(b"\n") && status.starts_with(b"Name:"));
        let record = read_kernel_record(Path::new("/proc/self/status")).unwrap();
        assert!(record.lines().any(|line| line.starts_with("SigIgn:")));
    }
}
