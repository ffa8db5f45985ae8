//! What a container uses, in the form of `runc events --stats`, which tools parse.
//!
//! The names are runc's, and so is the rule that a number which is zero may be missing. What the
//! kernel does not count (no controller, an older version) is zero: usage is told as far as it is
//! known. Times are nanoseconds, sizes bytes; "no limit" is the largest number.

mod cpu;
mod io;
mod memory;
mod read;

use std::collections::BTreeMap;

use serde::Serialize;

use super::group::Cgroup;
use super::host::{Controller, Version};
use read::Files;

pub use cpu::{Cpu, CpuUsage, Cpuset, Throttling};
pub use io::{Blkio, BlkioEntry};
pub use memory::{Memory, MemoryEntry};

/// What a container uses: the part of `data` in an event of type `stats` that cgroups know.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    /// CPU time.
    pub cpu: Cpu,
    /// The CPUs and memory nodes that may be used.
    pub cpuset: Cpuset,
    /// Memory and swap.
    pub memory: Memory,
    /// Processes and threads.
    pub pids: Pids,
    /// Block devices.
    pub blkio: Blkio,
    /// Huge pages, by size (`2MB`).
    pub hugetlb: BTreeMap<String, Hugetlb>,
}

/// Processes and threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pids {
    /// How many there are.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// How many there may be; 0 when there is no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Huge pages of one size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Hugetlb {
    /// Bytes in use.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// The most bytes that were ever in use (version 1 only).
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was met.
    pub failcnt: u64,
}

/// How long processes had to wait for a resource, see Documentation/accounting/psi.rst.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// Some of them waited.
    pub some: PressureLine,
    /// All of them waited, so that nothing was done.
    pub full: PressureLine,
}

/// One line of a pressure file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct PressureLine {
    /// Percent of the last 10 seconds.
    pub avg10: f64,
    /// Percent of the last minute.
    pub avg60: f64,
    /// Percent of the last 5 minutes.
    pub avg300: f64,
    /// Microseconds, since the group was made.
    pub total: u64,
}

pub(super) fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Cgroup {
    /// What the group uses now. Every number is read at its own moment.
    pub fn stats(&self) -> Stats {
        let files = |controller| Files(self.member_of(controller));
        // The tree of version 2 counts pressure even where all limits are in version 1.
        let unified = Files(self.unified());
        Stats {
            cpu: cpu::usage(files(Controller::Cpu), files(Controller::Cpuacct), unified),
            cpuset: cpu::set(files(Controller::Cpuset)),
            memory: memory::usage(files(Controller::Memory), unified),
            pids: pids(files(Controller::Pids)),
            blkio: io::usage(files(Controller::Io), unified),
            hugetlb: huge_pages(files(Controller::Hugetlb)),
        }
    }
}

fn pids(files: Files<'_>) -> Pids {
    let limit = files.number("pids.max");
    Pids { current: files.number("pids.current"), limit: if limit == u64::MAX { 0 } else { limit } }
}

fn huge_pages(files: Files<'_>) -> BTreeMap<String, Hugetlb> {
    let mut all = BTreeMap::new();
    let Ok(sizes) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return all };
    for size in sizes.flatten() {
        let Some(size) = size.file_name().to_str().and_then(page_size) else { continue };
        let file = |name: &str| format!("hugetlb.{size}.{name}");
        let pages = match files.version() {
            Version::V2 => Hugetlb {
                usage: files.number(&file("current")),
                max: 0,
                failcnt: files.keyed(&file("events")).get("max").copied().unwrap_or(0),
            },
            Version::V1 => Hugetlb {
                usage: files.number(&file("usage_in_bytes")),
                max: files.number(&file("max_usage_in_bytes")),
                failcnt: files.number(&file("failcnt")),
            },
        };
        if files.has(&file("current")) || files.has(&file("usage_in_bytes")) {
            all.insert(size, pages);
        }
    }
    all
}

/// `hugepages-2048kB` of sysfs as cgroup files spell it: `2MB`.
fn page_size(name: &str) -> Option<String> {
    let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kib {
        0..1024 => format!("{kib}KB"),
        1024..1_048_576 => format!("{}MB", kib >> 10),
        _ => format!("{}GB", kib >> 20),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_are_spelled_as_in_the_files() {
        let spelled = ["hugepages-64kB", "hugepages-2048kB", "hugepages-1048576kB", "x"];
        let spelled = spelled.map(|name| page_size(name).unwrap_or_default());
        assert_eq!(spelled, ["64KB", "2MB", "1GB", ""]);
    }

    #[test]
    fn the_names_are_those_that_tools_parse() {
        let mut stats = Stats::default();
        stats.cpu.usage.total = 5;
        stats.cpu.psi = Some(Pressure::default());
        stats.memory.usage.limit = u64::MAX;
        stats.memory.kernel_tcp.failcnt = 1;
        stats.blkio.io_service_bytes_recursive =
            vec![BlkioEntry { major: 8, minor: 0, op: "Read".into(), value: 3 }];
        stats.hugetlb.insert("2MB".into(), Hugetlb::default());
        let json = serde_json::to_value(&stats).unwrap();
        assert_eq!(json["cpu"]["usage"]["total"], 5);
        assert_eq!(json["cpu"]["usage"]["kernel"], 0);
        assert_eq!(json["cpu"]["psi"]["some"]["avg10"], 0.0);
        assert_eq!(json["memory"]["usage"]["limit"], u64::MAX);
        assert_eq!(json["memory"]["kernelTCP"]["failcnt"], 1);
        assert_eq!(json["hugetlb"]["2MB"]["failcnt"], 0);
        let entry = serde_json::json!({"major": 8, "op": "Read", "value": 3});
        assert_eq!(json["blkio"]["ioServiceBytesRecursive"], serde_json::json!([entry]));
        assert!(json["pids"].get("limit").is_none());
    }
}
