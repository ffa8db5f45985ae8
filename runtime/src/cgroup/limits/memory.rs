//! Memory: how much a container may use, and what happens at the limit.
//!
//! At its limit the kernel first takes back what it can (page cache, and swap if allowed), and then
//! kills a process of the group. Version 1 limits memory, and memory plus swap; version 2 limits
//! memory, and swap alone. config.json speaks the language of version 1.
//!
//! See: Documentation/admin-guide/cgroup-v2.rst "Memory", cgroup-v1/memory.rst.

use oci_spec::runtime::LinuxMemory;

use super::super::Error;
use super::super::host::{Controller, Version};
use super::{Current, Setting, only_v1, or_max};

/// The smallest limit, in bytes, under which a container can start at all.
///
/// The kernel charges the container for its own set-up too: its mounts, page tables and kernel
/// stacks. Below this limit it is killed before its program runs, by a kernel that can only say
/// "out of memory". Measured: a C program that makes the same namespaces and mounts and executes a
/// static program peaks at 450 to 510 KiB and needs 256 to 384 KiB (Linux 6.1, 6.12, 6.18); the
/// rest is for a program that does something.
pub const MINIMUM_BYTES: i64 = 1 << 20;

pub(super) fn settings(
    memory: &LinuxMemory,
    version: Version,
    current: Current<'_>,
) -> Result<Vec<Setting>, Error> {
    check(memory)?;
    match version {
        Version::V2 => unified(memory, current),
        Version::V1 => Ok(legacy(memory)),
    }
}

/// What is wrong whatever the version is.
fn check(memory: &LinuxMemory) -> Result<(), Error> {
    let named =
        [("limit", memory.limit()), ("swap", memory.swap()), ("reservation", memory.reservation())];
    if let Some((name, Some(value))) =
        named.into_iter().find(|(_, value)| value.is_some_and(|value| value < -1))
    {
        let why = format!("{value} is no amount of memory; -1 means as much as there is");
        return Err(Error::invalid(format!("linux.resources.memory.{name}"), why));
    }
    let (limit, swap) = (given(memory.limit()), given(memory.swap()));
    if let Some(limit) = limit.filter(|limit| (1..MINIMUM_BYTES).contains(limit)) {
        let why = format!(
            "{limit} bytes are too few for a container to start: the kernel charges it for its \
             own mounts, page tables and stacks too; give it at least {MINIMUM_BYTES} (1 MiB)"
        );
        return Err(Error::invalid("linux.resources.memory.limit", why));
    }
    if let (Some(limit @ 1..), Some(swap @ 1..)) = (limit, swap)
        && swap < limit
    {
        let why = format!(
            "{swap} is less than the memory limit of {limit}, but it is the limit of memory and \
             swap together; give the limit itself to allow no swap"
        );
        return Err(Error::invalid("linux.resources.memory.swap", why));
    }
    if given(memory.kernel()).is_some_and(|limit| limit > 0) {
        let why = "Linux has no separate limit for kernel memory since 5.16; it is part of \
                   memory.limit";
        return Err(Error::invalid("linux.resources.memory.kernel", why));
    }
    if memory.swappiness().is_some_and(|value| value > 100) {
        let why = "the kernel takes 0 (avoid swapping) to 100";
        return Err(Error::invalid("linux.resources.memory.swappiness", why));
    }
    if memory.use_hierarchy() == Some(false) {
        let why = "Linux counts memory hierarchically, always, since 5.11";
        return Err(Error::invalid("linux.resources.memory.useHierarchy", why));
    }
    Ok(())
}

/// Zero is what callers send for "not set".
fn given(value: Option<i64>) -> Option<i64> {
    value.filter(|value| *value != 0)
}

fn unified(memory: &LinuxMemory, current: Current<'_>) -> Result<Vec<Setting>, Error> {
    let here = (Controller::Memory, Version::V2);
    if memory.swappiness().is_some() {
        return Err(only_v1("memory.swappiness", "limit swap with memory.swap instead"));
    }
    if memory.disable_oom_killer() == Some(true) {
        let instead = "set a soft limit with unified[\"memory.high\"]: it slows down, not kills";
        return Err(only_v1("memory.disableOOMKiller", instead));
    }
    if given(memory.kernel_tcp()).is_some_and(|limit| limit > 0) {
        return Err(only_v1("memory.kernelTCP", "it is part of memory.limit there"));
    }
    let mut all = Vec::new();
    if let Some(swap) = swap_alone(memory, current)? {
        // A kernel without swap has no such file, and no container swaps there.
        let setting = Setting::new(here, "memory.swap", "memory.swap.max", swap);
        all.push(setting.fine_when_absent(true));
    }
    if let Some(limit) = given(memory.limit()) {
        all.push(Setting::new(here, "memory.limit", "memory.max", or_max(limit, Version::V2)));
    }
    if let Some(low) = given(memory.reservation()) {
        let value = or_max(low, Version::V2);
        all.push(Setting::new(here, "memory.reservation", "memory.low", value));
    }
    Ok(all)
}

/// The limit of swap alone, out of the limit of memory and swap together.
fn swap_alone(memory: &LinuxMemory, current: Current<'_>) -> Result<Option<String>, Error> {
    let limit = given(memory.limit());
    let total = match (given(memory.swap()), limit) {
        // No limit of memory, and none of swap given: version 1 means none of either.
        (None, Some(..0)) => return Ok(Some("max".to_owned())),
        (None, _) => return Ok(None),
        (Some(..0), _) => return Ok(Some("max".to_owned())),
        (Some(total), _) => total,
    };
    // An update may change the swap alone; then the limit is the one that the group has.
    let limit = limit.or_else(|| current("memory.max")?.trim().parse().ok());
    match limit {
        Some(limit @ 1..) if total >= limit => Ok(Some((total - limit).to_string())),
        Some(limit @ 1..) => {
            let why = format!("{total} is less than the present memory limit of {limit}");
            Err(Error::invalid("linux.resources.memory.swap", why))
        }
        _ => {
            let why = "it is the limit of memory and swap together, so it needs memory.limit";
            Err(Error::invalid("linux.resources.memory.swap", why))
        }
    }
}

fn legacy(memory: &LinuxMemory) -> Vec<Setting> {
    let here = (Controller::Memory, Version::V1);
    let limit = given(memory.limit());
    let swap = given(memory.swap()).or(limit.filter(|limit| *limit < 0));
    let explicit = given(memory.swap()).is_some_and(|swap| swap > 0);
    let mut all = Vec::new();
    let mut put = |asked: &str, file: &'static str, value: Option<String>| {
        if let Some(value) = value {
            all.push(Setting::new(here, asked, file, value));
        }
    };
    let number = |value| or_max(value, Version::V1);
    put("memory.limit", "memory.limit_in_bytes", limit.map(number));
    put("memory.swap", "memory.memsw.limit_in_bytes", swap.map(number));
    let reservation = given(memory.reservation()).map(number);
    put("memory.reservation", "memory.soft_limit_in_bytes", reservation);
    let tcp = given(memory.kernel_tcp()).map(number);
    put("memory.kernelTCP", "memory.kmem.tcp.limit_in_bytes", tcp);
    put("memory.swappiness", "memory.swappiness", memory.swappiness().map(|v| v.to_string()));
    let patient = memory.disable_oom_killer().filter(|disable| *disable).map(|_| "1".to_owned());
    put("memory.disableOOMKiller", "memory.oom_control", patient);
    for setting in &mut all {
        // Without swap accounting nothing limits swap, which is all that "no limit" asks.
        setting.absent_is_fine = setting.file == "memory.memsw.limit_in_bytes" && !explicit;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::testing::{writes, writes_with};
    use super::*;

    #[test]
    fn swap_is_the_rest_in_version_2_and_the_sum_in_version_1() {
        let json = r#"{"memory":{"limit":536870912,"swap":1073741824,"reservation":1048576}}"#;
        assert_eq!(
            writes(json, Version::V2).unwrap(),
            ["memory.swap.max=536870912", "memory.max=536870912", "memory.low=1048576"]
        );
        assert_eq!(
            writes(json, Version::V1).unwrap(),
            [
                "memory.limit_in_bytes=536870912",
                "memory.memsw.limit_in_bytes=1073741824",
                "memory.soft_limit_in_bytes=1048576"
            ]
        );
    }

    #[test]
    fn as_much_swap_as_memory_is_no_swap_at_all() {
        let json = r#"{"memory":{"limit":8388608,"swap":8388608}}"#;
        assert_eq!(writes(json, Version::V2).unwrap(), ["memory.swap.max=0", "memory.max=8388608"]);
    }

    #[test]
    fn no_limit_of_memory_is_no_limit_of_swap() {
        let json = r#"{"memory":{"limit":-1}}"#;
        assert_eq!(writes(json, Version::V2).unwrap(), ["memory.swap.max=max", "memory.max=max"]);
        assert_eq!(
            writes(json, Version::V1).unwrap(),
            ["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1"]
        );
    }

    #[test]
    fn swap_alone_counts_from_the_present_limit() {
        let json = r#"{"memory":{"swap":10000000}}"#;
        let present = |file: &str| (file == "memory.max").then(|| "8388608\n".to_owned());
        assert_eq!(writes_with(json, Version::V2, &present).unwrap(), ["memory.swap.max=1611392"]);
        assert!(writes_with(json, Version::V2, &|_| Some("max\n".into())).is_err());
        assert!(writes_with(json, Version::V2, &|_| Some("99999999\n".into())).is_err());
    }

    #[test]
    fn what_cannot_work_is_refused_with_a_reason() {
        for (json, word) in [
            (r#"{"memory":{"limit":4096}}"#, "1048576"),
            (r#"{"memory":{"limit":8388608,"swap":8388607}}"#, "together"),
            (r#"{"memory":{"kernel":8388608}}"#, "5.16"),
            (r#"{"memory":{"swappiness":101}}"#, "100"),
            (r#"{"memory":{"useHierarchy":false}}"#, "5.11"),
        ] {
            for version in [Version::V1, Version::V2] {
                let error = writes(json, version).unwrap_err().to_string();
                assert!(error.contains(word), "{json}: {error}");
            }
        }
        for json in [
            r#"{"memory":{"swappiness":10}}"#,
            r#"{"memory":{"disableOOMKiller":true}}"#,
            r#"{"memory":{"kernelTCP":8388608}}"#,
        ] {
            assert_eq!(writes(json, Version::V1).unwrap().len(), 1, "{json}");
            assert!(writes(json, Version::V2).unwrap_err().to_string().contains("v2"), "{json}");
        }
    }
}
