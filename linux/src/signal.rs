//! Signals as events instead of interruptions, signalfd(2).

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::trace::{answer, observe};
use crate::{Error, Result};

/// A descriptor that yields the signals sent to this process, which are blocked meanwhile.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks every signal that can be blocked and opens the descriptor.
    ///
    /// Call it before a child is made: a child that ends at once then leaves its SIGCHLD in the
    /// queue, where the loop will find it.
    pub fn capture() -> Result<Self> {
        let mut set = SigSet::all();
        // A fault of our own must still kill us.
        for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP] {
            if let Ok(signal) = nix::sys::signal::Signal::try_from(fault) {
                set.remove(signal);
            }
        }
        let blocked = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None);
        observe("rt_sigprocmask", || "SIG_BLOCK, all".into(), blocked)?;
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map(Self)
            .map_err(|errno| Error::new("signalfd4", "all", errno))
    }

    /// The number of the next signal in the queue, or `None`.
    pub fn next(&self) -> Result<Option<i32>> {
        match self.0.read_signal() {
            Ok(info) => Ok(info.and_then(|info| i32::try_from(info.ssi_signo).ok())),
            Err(errno) => Err(Error::new("read", "signalfd", errno)),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Signals, the lowest bit for number 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set(u64);

/// The signals that this process ignores, and hands down to every program that it becomes,
/// proc_pid_status(5). All of them where procfs cannot say.
pub fn ignored() -> Set {
    let text = crate::fd::read_kernel_record(Path::new("/proc/self/status")).unwrap_or_default();
    let mask = text.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    Set(mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(u64::MAX))
}

/// Gives every signal its default meaning and blocks none: what a program expects at its start.
///
/// Rust ignores SIGPIPE and ignored signals survive execve(2), so that without this `yes | head`
/// would never end in a container.
pub fn reset_all() -> Result<()> {
    reset(Set(u64::MAX))
}

/// The same, where it is known which are [`ignored`]: those with a handler get their default
/// meaning by execve(2) itself.
pub fn reset(ignored: Set) -> Result<()> {
    /// One past the last signal number, `_NSIG`.
    const SIGNALS_END: i32 = 65;
    /// The kernel's `struct sigaction` (not libc's): `SIG_DFL`, no flags, an empty mask.
    const DEFAULT: [u64; 4] = [0; 4];
    /// The size of its mask, in bytes.
    const MASK_SIZE: usize = 8;
    let (default, no_old) = (DEFAULT.as_ptr(), std::ptr::null::<u64>());
    for number in (1..SIGNALS_END).filter(|number| ignored.0 >> (number - 1) & 1 == 1) {
        // Not through libc, which keeps 32 and 33 for its threads: they would stay ignored.
        // SAFETY: the kernel reads one structure, of no more than these 32 bytes, and writes
        // nothing; the numbers that cannot be set answer with EINVAL.
        #[expect(unsafe_code, reason = "a system call that no crate has")]
        let _ =
            unsafe { libc::syscall(libc::SYS_rt_sigaction, number, default, no_old, MASK_SIZE) };
    }
    let none = SigSet::empty();
    let result = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&none), None);
    observe("rt_sigprocmask", || "SIG_SETMASK, []".into(), result)
}

/// Takes a signal of this process out of its own blocked set and sends it to itself, so that it
/// dies as it was asked to.
pub fn raise(number: i32) -> Result<()> {
    // SAFETY: raise takes a number.
    #[expect(unsafe_code, reason = "nix cannot name the real-time signals")]
    let value = unsafe { libc::raise(number) };
    observe("kill", || number.to_string(), answer(value.into()).map(drop))
}

/// The number of a signal by name (`SIGTERM`, `TERM`, `RTMIN+3`) or number.
pub fn number(name: &str) -> Option<i32> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Ok(number) = bare.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let real_time = |offset: &str, base: i32, sign: i32| {
        let offset = if offset.is_empty() { Some(0) } else { offset.get(1..)?.parse().ok() };
        offset.map(|offset: i32| base + sign * offset).filter(|n| (34..=64).contains(n))
    };
    if let Some(offset) = bare.strip_prefix("RTMIN") {
        return real_time(offset, 34, 1);
    }
    if let Some(offset) = bare.strip_prefix("RTMAX") {
        return real_time(offset, 64, -1);
    }
    let signal = match bare {
        "CLD" => "SIGCHLD".to_owned(),
        "POLL" => "SIGIO".to_owned(),
        "IOT" => "SIGABRT".to_owned(),
        other => format!("SIG{other}"),
    };
    signal.parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_real_time_signals() {
        for (name, expected) in [
            ("TERM", Some(15)),
            ("SIGTERM", Some(15)),
            ("sigkill", Some(9)),
            ("15", Some(15)),
            ("0", None),
            ("65", None),
            ("RTMIN", Some(34)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("RTMIN+99", None),
            ("NOPE", None),
            ("", None),
        ] {
            assert_eq!(number(name), expected, "{name:?}");
        }
    }
}
