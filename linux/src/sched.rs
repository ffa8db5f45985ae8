//! When and where a process runs, and where its memory comes from: sched(7), ioprio_set(2),
//! sched_setaffinity(2), set_mempolicy(2).

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::trace::{answer, observe};
use crate::{Errno, Error, Result};

/// How the kernel schedules a process: `struct sched_attr` in its first version.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    size: u32,
    /// The policy's number, `SCHED_BATCH` for example.
    pub policy: u32,
    /// `SCHED_FLAG_…`.
    pub flags: u64,
    /// Nice value, for the policies without a priority.
    pub nice: i32,
    /// Priority of the real-time policies, 1 to 99.
    pub priority: u32,
    /// Nanoseconds of processor time in each period, for `SCHED_DEADLINE`.
    pub runtime: u64,
    /// Nanoseconds after which they must have been had.
    pub deadline: u64,
    /// Nanoseconds of a period.
    pub period: u64,
}

/// The policies, by their names in linux/sched.h.
pub const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

/// Sets how a process is scheduled, sched_setattr(2).
///
/// `EPERM`: a real-time policy or a nice value below the current one needs `CAP_SYS_NICE`.
pub fn set_scheduler(pid: Pid, attributes: Attributes) -> Result<()> {
    const SIZE: u32 = 48;
    const { assert!(size_of::<Attributes>() == SIZE as usize) };
    let attributes = Attributes { size: SIZE, ..attributes };
    // SAFETY: `attributes` says its own size and outlives the call, which only reads it.
    #[expect(unsafe_code, reason = "no crate wraps sched_setattr(2)")]
    let value = unsafe {
        libc::syscall(libc::SYS_sched_setattr, pid.as_raw(), &raw const attributes, 0_u32)
    };
    let shown = || {
        let name = POLICIES.iter().find(|(_, number)| *number == attributes.policy);
        let name = name.map_or("?", |(name, _)| name);
        let Attributes { nice, priority, .. } = attributes;
        format!("{pid}, {{{name}, nice={nice}, priority={priority}}}, 0")
    };
    observe("sched_setattr", shown, answer(value).map(drop))
}

/// A class of disk access, ioprio_set(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoClass {
    /// Before all others.
    RealTime = 1,
    /// The usual one.
    BestEffort = 2,
    /// Only when nobody else wants the disk.
    Idle = 3,
}

/// Sets a process's class of disk access, and its level in it: 0 is first, 7 last.
pub fn set_io_priority(pid: Pid, class: IoClass, level: u8) -> Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    let word = (class as i32) << 13 | i32::from(level);
    // SAFETY: ioprio_set takes three numbers.
    #[expect(unsafe_code, reason = "no crate wraps ioprio_set(2)")]
    let value =
        unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, pid.as_raw(), word) };
    let shown = || format!("IOPRIO_WHO_PROCESS, {pid}, {class:?} {level}");
    observe("ioprio_set", shown, answer(value).map(drop))
}

/// The processors that a process may run on.
#[derive(Debug, Clone, Copy)]
pub struct Processors(CpuSet);

impl Processors {
    /// A set of processors by their numbers; `EINVAL` for a number that is too large.
    pub fn new(numbers: impl Iterator<Item = u32>) -> Result<Self> {
        let mut set = CpuSet::new();
        for number in numbers {
            let index = usize::try_from(number).unwrap_or(usize::MAX);
            set.set(index).map_err(|e| Error::new("CPU_SET", number.to_string(), e))?;
        }
        Ok(Self(set))
    }

    /// Those of a process; 0 is the caller.
    pub fn of(pid: Pid) -> Result<Self> {
        let result = sched_getaffinity(pid).map(Self);
        result.map_err(|errno| Error::new("sched_getaffinity", pid.to_string(), errno))
    }

    /// Lets a process run on these only; 0 is the caller. `EINVAL`: its cpuset has none of them.
    pub fn apply(&self, pid: Pid) -> Result<()> {
        let shown = || {
            let numbers = (0..CpuSet::count()).filter(|n| self.0.is_set(*n).unwrap_or(false));
            let numbers: Vec<String> = numbers.map(|n| n.to_string()).collect();
            format!("{pid}, {{{}}}", numbers.join(","))
        };
        observe("sched_setaffinity", shown, sched_setaffinity(pid, &self.0))
    }
}

/// Policies of memory, by their names in linux/mempolicy.h.
pub const MEMORY_POLICIES: [(&str, i32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];

/// Flags of those, by their names.
pub const MEMORY_POLICY_FLAGS: [(&str, i32); 3] = [
    ("MPOL_F_STATIC_NODES", 1 << 15),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
];

/// The largest number of a memory node that fits the mask here; kernels are built for at most 1024.
const NODES: usize = 1024;

/// Sets from which nodes this thread, and what it executes, gets its memory, set_mempolicy(2).
///
/// `mode` is a policy with its flags. `EINVAL`: the kernel lacks the mode, or a node.
pub fn set_memory_policy(mode: i32, nodes: impl Iterator<Item = u32> + Clone) -> Result<()> {
    let mut mask = [0_u64; NODES / 64];
    let mut any = false;
    for node in nodes.clone() {
        let node = usize::try_from(node).unwrap_or(usize::MAX);
        let refused = || Error::new("set_mempolicy", format!("node {node}"), Errno::EINVAL);
        *mask.get_mut(node / 64).ok_or_else(refused)? |= 1 << (node % 64);
        any = true;
    }
    // The kernel takes one bit less than it is told.
    let (pointer, bits) = if any { (mask.as_ptr(), NODES + 1) } else { (std::ptr::null(), 0) };
    // SAFETY: the kernel reads at most NODES bits of `mask`, which outlives the call.
    #[expect(unsafe_code, reason = "no crate wraps set_mempolicy(2)")]
    let value = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) };
    let shown = || {
        let nodes: Vec<String> = nodes.map(|node| node.to_string()).collect();
        format!("{mode:#x}, {{{}}}", nodes.join(","))
    };
    observe("set_mempolicy", shown, answer(value).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_can_be_batch_and_idle() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let attributes = Attributes { policy: 3, nice: 5, ..Attributes::default() };
        set_scheduler(pid, attributes).unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, rest) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // Fields 19 and 41 of proc_pid_stat(5): nice and policy.
        assert_eq!((fields[16], fields[38]), ("5", "3"));
        set_io_priority(pid, IoClass::Idle, 0).unwrap();
        let bad = Attributes { policy: 99, ..Attributes::default() };
        assert_eq!(set_scheduler(pid, bad).unwrap_err().errno, Errno::EINVAL);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_node_that_cannot_be_is_refused() {
        let error = set_memory_policy(2, [100_000].into_iter()).unwrap_err();
        assert_eq!(error.errno, Errno::EINVAL);
    }
}
