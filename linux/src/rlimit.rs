//! Resource limits of one process, prlimit(2).

use nix::unistd::Pid;

use crate::Result;
use crate::trace::{answer, observe};

/// A resource, by its name in the OCI configuration (`RLIMIT_NOFILE`), and its number.
pub const RESOURCES: [(&str, u32); 16] = [
    ("RLIMIT_AS", libc::RLIMIT_AS),
    ("RLIMIT_CORE", libc::RLIMIT_CORE),
    ("RLIMIT_CPU", libc::RLIMIT_CPU),
    ("RLIMIT_DATA", libc::RLIMIT_DATA),
    ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE),
    ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS),
    ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
    ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE),
    ("RLIMIT_NICE", libc::RLIMIT_NICE),
    ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
    ("RLIMIT_NPROC", libc::RLIMIT_NPROC),
    ("RLIMIT_RSS", libc::RLIMIT_RSS),
    ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
    ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
    ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING),
    ("RLIMIT_STACK", libc::RLIMIT_STACK),
];

/// One limit: what is enforced, and how far the process itself may raise it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The number of the resource.
    pub resource: u32,
    /// The soft limit.
    pub soft: u64,
    /// The hard limit.
    pub hard: u64,
}

/// Sets a limit of another process. Raising a hard limit needs `CAP_SYS_RESOURCE` of the host, so
/// the parent does it.
pub fn set(pid: Pid, limit: Limit) -> Result<()> {
    let value = libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard };
    let none = std::ptr::null_mut();
    // SAFETY: `value` outlives the call and the old value is not asked for.
    #[expect(unsafe_code, reason = "nix has no prlimit(2) for another process")]
    let result = unsafe { libc::prlimit64(pid.as_raw(), limit.resource, &raw const value, none) };
    let shown = || {
        let name = RESOURCES.iter().find(|(_, number)| *number == limit.resource);
        let name = name.map_or("?", |(name, _)| name);
        format!("{pid}, {name}, {{soft={}, hard={}}}", limit.soft, limit.hard)
    };
    observe("prlimit", shown, answer(result.into()).map(drop))
}

/// Lets this process open as many files as its hard limit allows, setrlimit(2).
///
/// The usual soft limit of 1024 exists for programs that use select(2).
pub fn raise_open_files() -> Result<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let result = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    observe("setrlimit", || "RLIMIT_NOFILE, hard limit".into(), result)
}
