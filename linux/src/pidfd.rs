//! Processes by descriptor, pidfd_open(2): a number can be reused, a descriptor cannot.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::trace::{Outcome, answer, observe};
use crate::{Error, Result, fd};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned this status.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl Exit {
    /// The status as shells and container engines give it: 128 + the signal's number.
    pub fn status(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// Reads the status word of wait(2).
    pub fn from_wait_status(word: i32) -> Self {
        if libc::WIFSIGNALED(word) {
            Self::Signal(libc::WTERMSIG(word))
        } else {
            Self::Code(libc::WEXITSTATUS(word))
        }
    }
}

impl Outcome for Exit {
    fn outcome(&self) -> String {
        format!("{self:?}")
    }
}

/// Opens a descriptor for the process `pid`; `ESRCH` when there is none, pidfd_open(2).
pub fn open(pid: Pid) -> Result<OwnedFd> {
    // SAFETY: pidfd_open takes two numbers.
    #[expect(unsafe_code, reason = "nix has no pidfd_open(2)")]
    let value = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let result = answer(value).map(|number| {
        // SAFETY: the call has just returned a new descriptor that nobody else knows.
        #[expect(unsafe_code, reason = "taking ownership of a new descriptor")]
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        fd
    });
    observe("pidfd_open", || pid.to_string(), result)
}

/// What tells one process from every other of this boot: the inode of its pidfd where the kernel
/// gives each process its own (pidfs, Linux 6.9), else 0.
pub fn identity(pidfd: impl AsFd) -> Result<u64> {
    /// `PID_FS_MAGIC` of linux/magic.h.
    const PID_FS_MAGIC: i64 = 0x5049_4446;
    let pidfd = pidfd.as_fd();
    if fd::file_system(pidfd)? != PID_FS_MAGIC {
        return Ok(0);
    }
    fd::stat(pidfd).map(|stat| stat.st_ino)
}

/// Whether it is the process that had this [`identity`], which was not 0: on such a kernel.
pub fn is(pidfd: impl AsFd, identity: u64) -> bool {
    fd::stat(pidfd).is_ok_and(|stat| stat.st_ino == identity)
}

/// Sends a signal, pidfd_send_signal(2). `ESRCH` when the process has ended.
pub fn signal(pidfd: impl AsFd, number: i32) -> Result<()> {
    let pidfd = pidfd.as_fd();
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo makes the kernel fill it in as kill(2) does.
    #[expect(unsafe_code, reason = "nix has no pidfd_send_signal(2)")]
    let value =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, none, 0) };
    observe(
        "pidfd_send_signal",
        || format!("{}, {}", pidfd.as_raw_fd(), signal_name(number)),
        answer(value).map(drop),
    )
}

fn signal_name(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| number.to_string(), |s| s.as_str().to_owned())
}

/// Waits for the end of a child and reaps it, waitid(2) with `P_PIDFD`.
pub fn wait(pidfd: impl AsFd) -> Result<Exit> {
    reap(pidfd.as_fd(), libc::WEXITED).map(|exit| exit.unwrap_or(Exit::Code(0)))
}

/// Reaps a child if it has ended.
pub fn try_wait(pidfd: impl AsFd) -> Result<Option<Exit>> {
    reap(pidfd.as_fd(), libc::WEXITED | libc::WNOHANG)
}

/// nix's waitid cannot tell a death by a real-time signal, and loses the status it has reaped.
fn reap(pidfd: BorrowedFd<'_>, flags: libc::c_int) -> Result<Option<Exit>> {
    // SAFETY: all-zero bytes are a valid siginfo_t.
    #[expect(unsafe_code, reason = "siginfo_t has no safe constructor")]
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let id = pidfd.as_raw_fd().cast_unsigned();
    let result = loop {
        // SAFETY: `info` is a live siginfo_t that the call fills in.
        #[expect(unsafe_code, reason = "nix's waitid loses real-time signals")]
        let value = unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, flags) };
        match answer(value.into()) {
            Err(Errno::EINTR) => {}
            other => break other,
        }
    };
    let exit = result.map(|_| {
        // SAFETY: waitid succeeded, so the fields of SIGCHLD are the valid ones (or all zero).
        #[expect(unsafe_code, reason = "the fields of siginfo_t are a union")]
        let (pid, status) = unsafe { child_fields(&info) };
        match (pid, info.si_code) {
            (0, _) => None,
            (_, libc::CLD_EXITED) => Some(Exit::Code(status)),
            _ => Some(Exit::Signal(status)),
        }
    });
    observe("waitid", || format!("P_PIDFD, {}", pidfd.as_raw_fd()), exit)
}

/// # Safety
/// `info` must be zeroed or filled in by waitid(2).
#[expect(unsafe_code, reason = "the fields of siginfo_t are a union")]
unsafe fn child_fields(info: &libc::siginfo_t) -> (libc::pid_t, libc::c_int) {
    // SAFETY: by this function's contract the SIGCHLD fields are valid.
    let pid = unsafe { info.si_pid() };
    // SAFETY: by this function's contract, as for the number.
    let status = unsafe { info.si_status() };
    (pid, status)
}

/// A copy of the descriptor `number` of another process, pidfd_getfd(2).
///
/// Needs the right to trace it. `EBADF`: it has no such descriptor.
pub fn take_descriptor(pidfd: impl AsFd, number: i32) -> Result<OwnedFd> {
    let target = pidfd.as_fd().as_raw_fd();
    // SAFETY: pidfd_getfd takes three numbers.
    #[expect(unsafe_code, reason = "nix has no pidfd_getfd(2)")]
    let value = unsafe { libc::syscall(libc::SYS_pidfd_getfd, target, number, 0_u32) };
    let result = answer(value).map(|fd| {
        // SAFETY: the call returns a new descriptor that nobody else knows.
        #[expect(unsafe_code, reason = "taking ownership of a new descriptor")]
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        fd
    });
    observe("pidfd_getfd", || format!("{target}, {number}, 0"), result)
}

/// Whether the process has ended (whoever reaps it).
pub fn has_ended(pidfd: impl AsFd) -> Result<bool> {
    let fds = &mut [nix::poll::PollFd::new(pidfd.as_fd(), nix::poll::PollFlags::POLLIN)];
    nix::poll::poll(fds, nix::poll::PollTimeout::ZERO)
        .map(|ready| ready > 0)
        .map_err(|errno| Error::new("poll", pidfd.as_fd().as_raw_fd().to_string(), errno))
}

/// The layout of `struct pidfd_info` up to its exit code (first version, 64 bytes).
#[repr(C)]
#[derive(Debug, Default)]
struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ruid: u32,
    rgid: u32,
    euid: u32,
    egid: u32,
    suid: u32,
    sgid: u32,
    fsuid: u32,
    fsgid: u32,
    exit_code: i32,
}

/// The exit status of a process that is not our child, `PIDFD_GET_INFO` with `PIDFD_INFO_EXIT`
/// (Linux 6.15).
///
/// `None` where the kernel does not have it, or the process has not been reaped yet. The descriptor
/// must have been opened before the process was reaped.
pub fn exit_of_any(pidfd: impl AsFd) -> Option<Exit> {
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    const PIDFD_GET_INFO: libc::c_ulong = 0xc040_ff0b;
    const { assert!(size_of::<PidfdInfo>() == 64) };
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the size of `info` is encoded in the request, and it outlives the call.
    #[expect(unsafe_code, reason = "no crate wraps PIDFD_GET_INFO")]
    let value = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    (value == 0 && info.mask & PIDFD_INFO_EXIT != 0).then(|| Exit::from_wait_status(info.exit_code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_words_are_read_as_wait_does() {
        assert_eq!(Exit::from_wait_status(37 << 8), Exit::Code(37));
        assert_eq!(Exit::from_wait_status(9), Exit::Signal(9));
        assert_eq!(Exit::Signal(9).status(), 137);
    }

    #[test]
    fn a_process_that_is_gone_is_not_confused_with_another() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pidfd = open(Pid::from_raw(i32::try_from(child.id()).unwrap())).unwrap();
        child.wait().unwrap();
        assert!(has_ended(&pidfd).unwrap());
        assert_eq!(signal(&pidfd, libc::SIGTERM).unwrap_err().errno, Errno::ESRCH);
    }
}
