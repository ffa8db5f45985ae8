//! Whether the kernel killed for memory, and how much there was.

use std::os::fd::AsFd;
use std::path::Path;

use linux::fd;

use super::group::Cgroup;
use super::host::{Controller, Version};
use super::processes::event;

/// What the memory controller says about a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OomReport {
    /// How many of its processes the kernel has killed because the group was at its limit.
    pub kills: u64,
    /// The limit, in bytes; `None` when there is none.
    pub limit_bytes: Option<u64>,
    /// The most that the group has used, in bytes; `None` where the kernel does not keep it (version
    /// 2 before Linux 5.19).
    pub peak_bytes: Option<u64>,
}

/// Version 1 shows "no limit" as the largest number of whole pages.
const V1_UNLIMITED: u64 = 0x7fff_ffff_ffff_0000;

impl Cgroup {
    /// Whether the group ran out of memory. All zero and `None` without a memory controller.
    pub fn oom(&self) -> OomReport {
        let member = self.member_of(Controller::Memory);
        let read = |file: &str| fd::read_file_at(member.dir.as_fd(), Path::new(file)).ok();
        let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
        let (kills, limit_bytes, peak_bytes) = match member.version {
            Version::V2 => (read("memory.events"), number("memory.max"), number("memory.peak")),
            Version::V1 => (
                read("memory.oom_control"),
                number("memory.limit_in_bytes").filter(|limit| *limit < V1_UNLIMITED),
                number("memory.max_usage_in_bytes"),
            ),
        };
        let kills = kills.as_deref().and_then(|text| event(text, "oom_kill")?.parse().ok());
        OomReport { kills: kills.unwrap_or(0), limit_bytes, peak_bytes }
    }
}
