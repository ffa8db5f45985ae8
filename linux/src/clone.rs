//! Making a process that is born where it belongs, clone3(2).
//!
//! # What the kernel offers
//! clone3 makes a process directly inside new namespaces and (Linux 5.7) inside a cgroup, and hands
//! out a descriptor for it. Nothing has to be moved afterwards, and no number can be confused.
//!
//! # What goes wrong without it
//! A process that is moved into its cgroup by a write to `cgroup.procs` waits for an RCU grace
//! period (5 to 20 ms for an isolated start), and until then it runs without its limits.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::namespace::Namespaces;
use crate::trace::{Outcome, observe, quoted};
use crate::{Error, Result};

/// `CLONE_INTO_CGROUP` of linux/sched.h. libc declares it as a c_int, where it overflows to 0, and
/// the kernel then silently ignores the cgroup.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLONE_PIDFD: u64 = 0x1000;
const CLONE_PARENT: u64 = 0x8000;

/// The layout of `struct clone_args`, version 2 (88 bytes, Linux 5.7).
#[repr(C, align(8))]
#[derive(Debug, Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// A new process, seen from its parent.
#[derive(Debug)]
pub struct Child {
    /// Its number, in the caller's PID namespace.
    pub pid: Pid,
    /// The descriptor that names it for ever, see [`crate::pidfd`].
    pub pidfd: OwnedFd,
}

impl Outcome for Child {
    fn outcome(&self) -> String {
        self.pid.to_string()
    }
}

/// What the new process is born into.
#[derive(Debug, Default, Clone, Copy)]
pub struct Birth<'a> {
    /// New namespaces.
    pub namespaces: Namespaces,
    /// A cgroup v2 directory.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Whether it becomes a child of the caller's parent instead of the caller's.
    pub sibling: bool,
}

/// Makes a copy of this process, and runs `child` in the copy.
///
/// The caller must be single-threaded: a copy of a process with threads holds their locks for ever.
/// That is checked. `child` never returns; what it returns is the copy's exit status.
pub fn spawn(birth: Birth<'_>, child: impl FnOnce() -> i32) -> Result<Child> {
    debug_assert_eq!(thread_count(), 1, "a process with threads must not be cloned");
    let mut pidfd: RawFd = -1;
    let mut arguments = CloneArgs {
        flags: CLONE_PIDFD | birth.namespaces.bits(),
        pidfd: (&raw mut pidfd) as u64,
        ..CloneArgs::default()
    };
    if birth.sibling {
        // With CLONE_PARENT the exit signal is the parent's own, and naming one is EINVAL.
        arguments.flags |= CLONE_PARENT;
    } else {
        arguments.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = birth.cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `arguments` is a zeroed-where-unused struct of the size that is passed; its one
    // pointer is to a local that outlives the call. Without CLONE_VM the child has its own copy of
    // the stack, so returning twice is sound; that no other thread exists is the caller's duty.
    #[expect(unsafe_code, reason = "no crate wraps clone3(2)")]
    let value =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArgs>()) };
    if value == 0 {
        exit_now(child());
    }
    let result = match value {
        -1 => Err(Errno::last()),
        pid => {
            // SAFETY: the kernel has just put a new descriptor there, and nobody else knows it.
            #[expect(unsafe_code, reason = "taking ownership of the pidfd of clone3")]
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            i32::try_from(pid)
                .map(|pid| Child { pid: Pid::from_raw(pid), pidfd })
                .map_err(|_| Errno::EOVERFLOW)
        }
    };
    observe("clone3", || shown(birth), result)
}

fn shown(birth: Birth<'_>) -> String {
    let mut flags = vec!["CLONE_PIDFD".to_owned()];
    flags.extend(birth.namespaces.iter().map(|kind| kind.flag_name().to_owned()));
    if birth.sibling {
        flags.push("CLONE_PARENT".into());
    }
    match birth.cgroup {
        Some(fd) => {
            format!("{{flags={}|CLONE_INTO_CGROUP, cgroup={}}}", flags.join("|"), fd.as_raw_fd())
        }
        None => format!("{{flags={}}}", flags.join("|")),
    }
}

fn thread_count() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// Ends this process at once, without running the atexit functions that belong to its parent.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit takes a number and does not return.
    #[expect(unsafe_code, reason = "std::process::exit runs atexit in a forked child")]
    unsafe {
        libc::_exit(status)
    }
}

/// The strings of an execve(2), laid out before anything can fail.
#[derive(Debug, Clone)]
pub struct Strings {
    owned: Vec<CString>,
}

impl Strings {
    /// Takes strings; `None` when one holds a NUL byte.
    pub fn new<I: IntoIterator<Item = S>, S: Into<Vec<u8>>>(strings: I) -> Option<Self> {
        let owned = strings.into_iter().map(CString::new).collect::<std::result::Result<_, _>>();
        owned.ok().map(|owned| Self { owned })
    }

    /// The strings.
    pub fn iter(&self) -> impl Iterator<Item = &CStr> {
        self.owned.iter().map(CString::as_c_str)
    }

    fn pointers(&self) -> Vec<*const libc::c_char> {
        let ends = std::iter::once(std::ptr::null());
        self.owned.iter().map(|string| string.as_ptr()).chain(ends).collect()
    }
}

/// Becomes another program, execve(2). Returns only when that fails.
pub fn execute(program: &Path, arguments: &Strings, environment: &Strings) -> Error {
    let Ok(path) = CString::new(program.as_os_str().as_encoded_bytes()) else {
        return Error::new("execve", quoted(program), Errno::EINVAL);
    };
    let (argv, envp) = (arguments.pointers(), environment.pointers());
    // SAFETY: `path` and both arrays are NUL-terminated and outlive the call.
    #[expect(unsafe_code, reason = "execve with prepared arrays")]
    unsafe {
        libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr())
    };
    Error::new("execve", quoted(program), Errno::last())
}

/// Becomes the program behind `file`, execveat(2) with `AT_EMPTY_PATH`. Returns only on failure.
pub fn execute_fd(file: BorrowedFd<'_>, arguments: &Strings, environment: &Strings) -> Error {
    let (argv, envp) = (arguments.pointers(), environment.pointers());
    // SAFETY: the path is a literal, both arrays are NUL-terminated and outlive the call.
    #[expect(unsafe_code, reason = "no crate wraps execveat(2) with AT_EMPTY_PATH")]
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Error::new("execveat", format!("{}, \"\", AT_EMPTY_PATH", file.as_raw_fd()), Errno::last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nul_bytes_are_refused() {
        assert!(Strings::new(["a\0b"]).is_none());
        let strings = Strings::new(["a", "b"]).unwrap();
        assert_eq!(strings.iter().collect::<Vec<_>>(), [c"a", c"b"]);
    }

    #[test]
    fn flags_are_shown_by_name() {
        let birth = Birth {
            namespaces: Namespaces::from_iter([crate::namespace::Kind::Pid]),
            ..Birth::default()
        };
        assert_eq!(shown(birth), "{flags=CLONE_PIDFD|CLONE_NEWPID}");
    }
}
