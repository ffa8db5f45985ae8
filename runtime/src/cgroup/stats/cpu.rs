//! CPU time, and which CPUs.

use serde::Serialize;

use super::super::host::Version;
use super::read::{self, Files};
use super::{Pressure, is_zero};

/// CPU time.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// How much was used.
    pub usage: CpuUsage,
    /// How often the quota stopped the group.
    pub throttling: Throttling,
    /// How long it was waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// CPU time used, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CpuUsage {
    /// All of it.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    /// On each CPU (version 1 only).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// On each CPU, in the kernel (version 1 only).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    /// On each CPU, in programs (version 1 only).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// In programs.
    pub user: u64,
}

/// How often, and for how many nanoseconds, the quota stopped the group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods in which it ran.
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    /// Those of them in which it was stopped.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    /// For how long, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
}

/// The CPUs and memory nodes that may be used; the rest is about version 1 only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "each is the file of version 1 of that name, see cpuset(7)")]
pub struct Cpuset {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    pub cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

pub(super) fn usage(cpu: Files<'_>, account: Files<'_>, unified: Files<'_>) -> Cpu {
    let counted = cpu.keyed("cpu.stat");
    let get = |key: &str| counted.get(key).copied().unwrap_or(0);
    let throttled_time = match cpu.version() {
        Version::V2 => get("throttled_usec").saturating_mul(1000),
        Version::V1 => get("throttled_time"),
    };
    Cpu {
        usage: match account.version() {
            Version::V2 => time(account),
            Version::V1 => time_of_each(account),
        },
        throttling: Throttling {
            periods: get("nr_periods"),
            throttled_periods: get("nr_throttled"),
            throttled_time,
        },
        psi: unified.pressure("cpu.pressure"),
    }
}

fn time(files: Files<'_>) -> CpuUsage {
    let counted = files.keyed("cpu.stat");
    let get = |key: &str| counted.get(key).copied().unwrap_or(0).saturating_mul(1000);
    CpuUsage {
        total: get("usage_usec"),
        kernel: get("system_usec"),
        user: get("user_usec"),
        ..CpuUsage::default()
    }
}

fn time_of_each(files: Files<'_>) -> CpuUsage {
    let each = |file: &str| -> Vec<u64> {
        let text = files.text(file).unwrap_or_default();
        text.split_whitespace().map(read::number).collect()
    };
    CpuUsage {
        total: files.number("cpuacct.usage"),
        percpu: each("cpuacct.usage_percpu"),
        percpu_kernel: each("cpuacct.usage_percpu_sys"),
        percpu_user: each("cpuacct.usage_percpu_user"),
        kernel: files.number("cpuacct.usage_sys"),
        user: files.number("cpuacct.usage_user"),
    }
}

pub(super) fn set(files: Files<'_>) -> Cpuset {
    let list = |file: &str| read::list(&files.text(file).unwrap_or_default());
    if files.version() == Version::V2 {
        return Cpuset {
            cpus: list("cpuset.cpus.effective"),
            mems: list("cpuset.mems.effective"),
            ..Cpuset::default()
        };
    }
    let number = |file: &str| files.number(file);
    let level = files.text("cpuset.sched_relax_domain_level").unwrap_or_default();
    Cpuset {
        cpus: list("cpuset.cpus"),
        cpu_exclusive: number("cpuset.cpu_exclusive"),
        mems: list("cpuset.mems"),
        mem_hardwall: number("cpuset.mem_hardwall"),
        mem_exclusive: number("cpuset.mem_exclusive"),
        memory_migrate: number("cpuset.memory_migrate"),
        memory_spread_page: number("cpuset.memory_spread_page"),
        memory_spread_slab: number("cpuset.memory_spread_slab"),
        memory_pressure: number("cpuset.memory_pressure"),
        sched_load_balance: number("cpuset.sched_load_balance"),
        sched_relax_domain_level: level.trim().parse().unwrap_or(0),
    }
}
