//! # What the kernel offers
//! Each process has a scheduling policy, a nice value or a priority, a class of disk access, a set
//! of processors, and a policy for the memory nodes of a large machine. Children inherit all of it.
//! Core scheduling keeps strangers from running on the second thread of the same processor core,
//! where they could measure what it does.
//!
//! # What we do
//! The parent sets what needs its privileges (policy, disk class, processors) on the process from
//! outside; memory policy and core scheduling are the process's own to set, just before it becomes
//! the program. `execCPUAffinity` is for `exec`: first the processors on which the process may run
//! before it is in the container's cgroup, then those inside.
//!
//! # What goes wrong without it
//! A process that is to be disturbed by nobody waits behind a batch job; and a latency-critical
//! host processor runs foreign code for the time of an `exec`.
//!
//! # By hand
//! ```sh
//! chrt --batch 0 sh -c 'chrt -p $$' | grep SCHED_BATCH
//! ionice -c 3 sh -c 'ionice -p $$' | grep idle
//! taskset -c 0 sh -c 'taskset -pc $$' | grep ': 0$'
//! ```
//! See sched(7), ioprio_set(2), sched_setaffinity(2), set_mempolicy(2), the kernel's
//! core-scheduling documentation.

use linux::sched::{self, Processors};
use linux::{Errno, Pid, prctl};

use crate::error::Cause;
use crate::plan::{CORE_ANNOTATION, MemoryPolicy, Scheduling};
use crate::spec::units::NumberList;

/// Whether anything is to be set from outside.
pub(crate) fn is_asked(wanted: &Scheduling) -> bool {
    wanted.scheduler.is_some() || wanted.io.is_some()
}

/// Sets policy and disk class of process `pid`.
pub(crate) fn set(pid: Pid, wanted: &Scheduling) -> Result<(), Cause> {
    if let Some(attributes) = wanted.scheduler {
        sched::set_scheduler(pid, attributes).map_err(|error| match error.errno {
            Errno::EPERM => Cause::from(error).remedy(
                "process.scheduler needs CAP_SYS_NICE on the host (or a nice value that is not \
                 below ours), and a real-time policy also time for it in the cgroup above",
            ),
            Errno::EINVAL => Cause::from(error)
                .remedy("this kernel lacks the policy of process.scheduler, or one of its flags"),
            _ => error.into(),
        })?;
    }
    if let Some((class, level)) = wanted.io {
        sched::set_io_priority(pid, class, level).map_err(|error| {
            Cause::from(error).remedy("the real-time class of ioPriority needs CAP_SYS_NICE")
        })?;
    }
    Ok(())
}

/// Lets process `pid` run on `list` only.
pub(crate) fn keep_on(pid: Pid, list: &NumberList) -> Result<(), Cause> {
    Processors::new(list.iter()).and_then(|set| set.apply(pid)).map_err(|error| {
        Cause::from(error).remedy(format!(
            "execCPUAffinity {list}: the container's cpuset, or this machine, has none of them"
        ))
    })
}

/// Sets from which nodes this process gets memory.
pub(crate) fn set_memory_policy(policy: &MemoryPolicy) -> Result<(), Cause> {
    let nodes = policy.nodes.clone().unwrap_or_default();
    let numbers: Vec<u32> = nodes.iter().collect();
    sched::set_memory_policy(policy.mode, numbers.into_iter()).map_err(|error| {
        Cause::from(error).remedy(format!(
            "linux.memoryPolicy: this kernel lacks {}, or this machine a node of its list (see \
             /sys/devices/system/node/online)",
            policy.name
        ))
    })
}

/// Keeps strangers off the processor core that this process runs on.
pub(crate) fn share_core_with_nobody() -> Result<(), Cause> {
    match prctl::schedule_cores_alone() {
        // One thread per core: there is nobody to keep off.
        Err(error) if error.errno == Errno::ENODEV => Ok(()),
        Err(error) => Err(Cause::from(error).remedy(format!(
            "{CORE_ANNOTATION} needs a kernel with CONFIG_SCHED_CORE, Linux 5.14"
        ))),
        Ok(()) => Ok(()),
    }
}
