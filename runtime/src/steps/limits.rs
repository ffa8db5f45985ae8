//! # What the kernel offers
//! A cgroup counts and limits what its processes use together: memory, CPU time, processes, disk
//! bandwidth, devices. A resource limit (setrlimit(2)) is about one process: open files, stack.
//!
//! # What we do
//! The parent writes the group's while init builds the container: init is in its cgroup from birth,
//! so nothing it does is uncounted. Init's own come when it is built, which takes more open files
//! than its program may be allowed. What a host cannot limit is an error that says which controller is
//! missing and where, never silence.
//!
//! # What goes wrong without it
//! One leaking program takes the memory of the whole machine, and the kernel kills something else.
//! With a limit it kills the leaking one, and says so.
//!
//! # By hand
//! ```sh
//! sh -c 'ulimit -n 64; ulimit -n' | grep -x 64
//! prlimit --nofile=32:32 sh -c 'ulimit -n' | grep -x 32
//! ```
//! See cgroups(7), the kernel's cgroup-v2 documentation, prlimit(2).

use std::path::Path;

use linux::rlimit::{self, Limit};
use linux::{OFlag, Pid, fd, path};

use crate::error::Cause;

/// Sets resource limits of init.
pub(crate) fn set_rlimits(pid: Pid, limits: &[Limit]) -> Result<(), Cause> {
    limits.iter().try_for_each(|limit| {
        rlimit::set(pid, *limit).map_err(|error| {
            Cause::from(error)
                .remedy("a hard limit above our own needs CAP_SYS_RESOURCE: lower it in rlimits")
        })
    })
}

/// Sets how soon the kernel kills init when memory is short, proc_pid_oom_score_adj(5).
pub(crate) fn set_oom_score(pid: Pid, score: i32) -> Result<(), Cause> {
    let file = path::open(Path::new(&format!("/proc/{pid}/oom_score_adj")), OFlag::O_WRONLY)?;
    use std::os::fd::AsFd;
    fd::write_at_once(file.as_fd(), score.to_string().as_bytes()).map_err(|error| {
        Cause::from(error).remedy("a value below our own needs CAP_SYS_RESOURCE: raise oomScoreAdj")
    })
}
