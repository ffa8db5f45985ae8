//! Memory and swap in use.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::host::Version;
use super::read::Files;
use super::{Pressure, is_zero};

/// Memory and swap in use.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Page cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    /// Memory.
    pub usage: MemoryEntry,
    /// Memory and swap together, as version 1 counts it.
    pub swap: MemoryEntry,
    /// Memory of the kernel itself (version 1 only; part of `usage`).
    pub kernel: MemoryEntry,
    /// Buffers of TCP (version 1 only).
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryEntry,
    /// Everything in `memory.stat`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    /// How long it was waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
    /// How often which limit did something: everything in `memory.events` (version 2 only).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub event_count: BTreeMap<String, u64>,
}

/// One kind of memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MemoryEntry {
    /// How much there may be.
    pub limit: u64,
    /// How much there is.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// The most that there ever was.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was met.
    pub failcnt: u64,
}

pub(super) fn usage(files: Files<'_>, unified: Files<'_>) -> Memory {
    let mut memory = match files.version() {
        Version::V2 => of_v2(files),
        Version::V1 => of_v1(files),
    };
    memory.psi = unified.pressure("memory.pressure");
    memory
}

fn of_v2(files: Files<'_>) -> Memory {
    let raw = files.keyed("memory.stat");
    let event_count = files.keyed("memory.events");
    let entry = |name: &str, failcnt: u64| MemoryEntry {
        limit: files.number(&format!("{name}.max")),
        usage: files.number(&format!("{name}.current")),
        max: files.number(&format!("{name}.peak")),
        failcnt,
    };
    let usage = entry("memory", event_count.get("max").copied().unwrap_or(0));
    let swap_alone =
        entry("memory.swap", files.keyed("memory.swap.events").get("fail").copied().unwrap_or(0));
    Memory {
        cache: raw.get("file").copied().unwrap_or(0),
        usage,
        swap: together(usage, swap_alone),
        raw,
        event_count,
        ..Memory::default()
    }
}

/// Memory and swap together. There is no peak of the sum: the two peaks need not coincide.
fn together(memory: MemoryEntry, swap: MemoryEntry) -> MemoryEntry {
    MemoryEntry {
        limit: swap.limit.saturating_add(memory.limit),
        usage: swap.usage + memory.usage,
        max: 0,
        failcnt: swap.failcnt,
    }
}

fn of_v1(files: Files<'_>) -> Memory {
    let raw = files.keyed("memory.stat");
    let entry = |name: &str| MemoryEntry {
        limit: files.number(&format!("{name}.limit_in_bytes")),
        usage: files.number(&format!("{name}.usage_in_bytes")),
        max: files.number(&format!("{name}.max_usage_in_bytes")),
        failcnt: files.number(&format!("{name}.failcnt")),
    };
    Memory {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: entry("memory"),
        swap: entry("memory.memsw"),
        kernel: entry("memory.kmem"),
        kernel_tcp: entry("memory.kmem.tcp"),
        raw,
        ..Memory::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_stays_no_limit_in_the_sum() {
        let entry = |limit, usage| MemoryEntry { limit, usage, ..MemoryEntry::default() };
        assert_eq!(together(entry(10, 1), entry(5, 2)), entry(15, 3));
        assert_eq!(together(entry(10, 1), entry(u64::MAX, 2)), entry(u64::MAX, 3));
        assert_eq!(together(entry(u64::MAX, 1), entry(0, 0)), entry(u64::MAX, 1));
    }
}
