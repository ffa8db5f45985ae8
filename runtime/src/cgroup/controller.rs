//! The controllers, by both of their names.

/// What limits or counts one kind of resource. The names are those of version 2 where both have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the kernel's documentation explains each controller")]
pub enum Controller {
    Cpu,
    Cpuacct,
    Cpuset,
    Memory,
    Io,
    Pids,
    Devices,
    Freezer,
    Hugetlb,
    Rdma,
    Misc,
    NetCls,
    NetPrio,
    PerfEvent,
}

impl Controller {
    pub(super) const ALL: [Self; 14] = [
        Self::Cpu,
        Self::Cpuacct,
        Self::Cpuset,
        Self::Memory,
        Self::Io,
        Self::Pids,
        Self::Devices,
        Self::Freezer,
        Self::Hugetlb,
        Self::Rdma,
        Self::Misc,
        Self::NetCls,
        Self::NetPrio,
        Self::PerfEvent,
    ];

    /// The controllers of version 2, which have to be enabled level by level.
    pub const V2: [Self; 8] = [
        Self::Cpuset,
        Self::Cpu,
        Self::Io,
        Self::Memory,
        Self::Hugetlb,
        Self::Pids,
        Self::Rdma,
        Self::Misc,
    ];

    /// Its name in version 1 (`blkio` is the one that was renamed).
    pub fn v1_name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Io => "blkio",
            Self::Pids => "pids",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::Hugetlb => "hugetlb",
            Self::Rdma => "rdma",
            Self::Misc => "misc",
            Self::NetCls => "net_cls",
            Self::NetPrio => "net_prio",
            Self::PerfEvent => "perf_event",
        }
    }

    /// Its name in version 2.
    pub fn v2_name(self) -> &'static str {
        match self {
            Self::Io => "io",
            other => other.v1_name(),
        }
    }
}

impl std::fmt::Display for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.v2_name())
    }
}
