//! When and where a process runs: scheduler, priorities, processors, memory nodes.

use linux::sched::{Attributes, IoClass, MEMORY_POLICIES, MEMORY_POLICY_FLAGS, POLICIES};
use oci_spec::runtime::{IOPriorityClass, Linux, LinuxSchedulerFlag, Scheduler};

use super::process::wrong;
use crate::error::{Error, Result};
use crate::spec::units::{self, NumberList};

/// From which memory nodes the container's memory comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// Its name in the configuration, for messages.
    pub name: String,
    /// Mode and flags, as set_mempolicy(2) takes them.
    pub mode: i32,
    /// The nodes.
    pub nodes: Option<NumberList>,
}

/// Everything about when and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scheduling {
    /// Scheduling policy.
    pub scheduler: Option<Attributes>,
    /// Class and level of disk access.
    pub io: Option<(IoClass, u8)>,
    /// Processors of a process of `exec` before it is in the container's cgroup.
    pub first_processors: Option<NumberList>,
    /// Its processors from then on.
    pub last_processors: Option<NumberList>,
    /// Memory nodes.
    pub memory: Option<MemoryPolicy>,
}

impl Scheduling {
    pub(super) fn decide(
        process: &oci_spec::runtime::Process,
        linux: Option<&Linux>,
    ) -> Result<Self> {
        let affinity = process.exec_cpu_affinity().clone().unwrap_or_default();
        let list = |which: &str, text: &Option<String>| -> Result<Option<NumberList>> {
            let Some(text) = text.as_ref().filter(|text| !text.is_empty()) else {
                return Ok(None);
            };
            let list = units::number_list(text);
            list.map(Some).map_err(|why| wrong(&format!("execCPUAffinity.{which}: {why}")))
        };
        Ok(Self {
            scheduler: process.scheduler().as_ref().map(scheduler).transpose()?,
            io: io(process)?,
            first_processors: list("initial", affinity.initial())?,
            last_processors: list("final", affinity.cpu_affinity_final())?,
            memory: linux.map(memory).transpose()?.flatten(),
        })
    }
}

/// The name of the flag in linux/sched.h, and its bit.
fn flag(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

fn scheduler(asked: &Scheduler) -> Result<Attributes> {
    let name = asked.policy().to_string();
    let policy = POLICIES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    let policy = policy.ok_or_else(|| wrong(&format!("scheduler.policy: unknown {name}")))?;
    let real_time = name == "SCHED_FIFO" || name == "SCHED_RR";
    let deadline = name == "SCHED_DEADLINE";
    let (nice, priority) = (asked.nice().unwrap_or(0), asked.priority().unwrap_or(0));
    if !(-20..=19).contains(&nice) {
        return Err(wrong(&format!("scheduler.nice {nice} is not between -20 and 19")));
    }
    let possible = if real_time { 1..=99 } else { 0..=0 };
    if !possible.contains(&priority) {
        let text = if real_time { "between 1 and 99" } else { "0" };
        return Err(wrong(&format!("scheduler.priority {priority}: {name} wants it to be {text}")));
    }
    let times = (asked.runtime(), asked.deadline(), asked.period());
    let times = (times.0.unwrap_or(0), times.1.unwrap_or(0), times.2.unwrap_or(0));
    if !deadline && times != (0, 0, 0) {
        return Err(wrong(&format!(
            "scheduler: runtime, deadline and period are for SCHED_DEADLINE, not for {name}"
        )));
    }
    let flags = asked.flags().iter().flatten().fold(0, |bits, one| bits | flag(*one));
    let mut attributes = Attributes::default();
    (attributes.policy, attributes.flags) = (policy, flags);
    (attributes.nice, attributes.priority) = (nice, priority.unsigned_abs());
    (attributes.runtime, attributes.deadline, attributes.period) = times;
    Ok(attributes)
}

fn io(process: &oci_spec::runtime::Process) -> Result<Option<(IoClass, u8)>> {
    let Some(asked) = process.io_priority() else { return Ok(None) };
    let class = match asked.class() {
        IOPriorityClass::IoprioClassRt => IoClass::RealTime,
        IOPriorityClass::IoprioClassBe => IoClass::BestEffort,
        IOPriorityClass::IoprioClassIdle => IoClass::Idle,
    };
    let level = u8::try_from(asked.priority()).ok().filter(|level| *level < 8);
    let level = level.ok_or_else(|| {
        wrong(&format!("ioPriority.priority {} is not between 0 and 7", asked.priority()))
    })?;
    Ok(Some((class, level)))
}

fn memory(linux: &Linux) -> Result<Option<MemoryPolicy>> {
    let Some(asked) = linux.memory_policy() else { return Ok(None) };
    let wrong = |what: String| Error::Config(format!("config.json: linux.memoryPolicy: {what}"));
    let name = asked.mode().to_string();
    let of = |table: &[(&str, i32)], name: &str| {
        table.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
    };
    let mut mode =
        of(&MEMORY_POLICIES, &name).ok_or_else(|| wrong(format!("unknown mode {name}")))?;
    for flag in asked.flags().iter().flatten() {
        let flag = flag.to_string();
        mode |=
            of(&MEMORY_POLICY_FLAGS, &flag).ok_or_else(|| wrong(format!("unknown flag {flag}")))?;
    }
    let nodes = match asked.nodes().as_deref().filter(|text| !text.is_empty()) {
        Some(text) => Some(units::number_list(text).map_err(|why| wrong(format!("nodes: {why}")))?),
        None => None,
    };
    let takes_none = name == "MPOL_DEFAULT" || name == "MPOL_LOCAL";
    if takes_none && nodes.is_some() {
        return Err(wrong(format!("{name} takes no nodes")));
    }
    if !takes_none && nodes.is_none() && name != "MPOL_PREFERRED" {
        return Err(wrong(format!("{name} needs nodes")));
    }
    Ok(Some(MemoryPolicy { name, mode, nodes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(process: &str, linux: &str) -> Result<Scheduling> {
        let text = format!("{{\"cwd\": \"/\", \"user\": {{\"uid\": 0, \"gid\": 0}}{process}}}");
        let process = crate::spec::parse_process(text.as_bytes()).unwrap();
        let linux: Linux = crate::json::read(linux.as_bytes()).unwrap();
        Scheduling::decide(&process, Some(&linux))
    }

    #[test]
    fn nothing_is_asked_of_the_kernel_that_nobody_asked_for() {
        assert_eq!(decided("", "{}").unwrap(), Scheduling::default());
    }

    #[test]
    fn what_is_asked_becomes_numbers() {
        let all = decided(
            r#", "scheduler": {"policy": "SCHED_BATCH", "nice": 5,
                "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
               "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 3},
               "execCPUAffinity": {"initial": "0-1", "final": "1"}"#,
            r#"{"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0",
                "flags": ["MPOL_F_STATIC_NODES"]}}"#,
        )
        .unwrap();
        let scheduler = all.scheduler.unwrap();
        assert_eq!((scheduler.policy, scheduler.nice, scheduler.flags), (3, 5, 1));
        assert_eq!(all.io, Some((IoClass::Idle, 3)));
        assert_eq!(all.first_processors.unwrap().iter().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(all.last_processors.unwrap().iter().collect::<Vec<_>>(), [1]);
        assert_eq!(all.memory.unwrap().mode, 2 | 1 << 15);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (process, linux, words) in [
            (r#", "scheduler": {"policy": "SCHED_FIFO"}"#, "{}", "scheduler.priority 0"),
            (r#", "scheduler": {"policy": "SCHED_OTHER", "nice": 20}"#, "{}", "scheduler.nice"),
            (r#", "scheduler": {"policy": "SCHED_OTHER", "runtime": 1}"#, "{}", "SCHED_DEADLINE"),
            (r#", "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}"#, "{}", "ioPriority"),
            ("", r#"{"memoryPolicy": {"mode": "MPOL_BIND"}}"#, "needs nodes"),
            ("", r#"{"memoryPolicy": {"mode": "MPOL_LOCAL", "nodes": "0"}}"#, "takes no nodes"),
            ("", r#"{"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "x"}}"#, "nodes: "),
        ] {
            let error = decided(process, linux).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
