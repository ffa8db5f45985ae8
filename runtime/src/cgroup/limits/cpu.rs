//! CPU: how much of it, how important, and which ones.
//!
//! A quota is a hard ceiling: so many microseconds of CPU in each period. Shares (version 2 calls
//! them weight) matter only when there is not enough for all. A cpuset says which CPUs and memory
//! nodes may be used.
//!
//! See: Documentation/admin-guide/cgroup-v2.rst "CPU", scheduler/sched-bwc.rst, cpusets.rst.

use oci_spec::runtime::LinuxCpu;

use super::super::Error;
use super::super::host::{Controller, Version};
use super::{Current, Setting, only_v1};

pub(super) fn settings(
    cpu: &LinuxCpu,
    (version, set_version): (Version, Version),
    current: Current<'_>,
) -> Result<Vec<Setting>, Error> {
    check(cpu)?;
    let mut all = match version {
        Version::V2 => unified(cpu, current)?,
        Version::V1 => legacy(cpu),
    };
    for (list, property, file) in
        [(cpu.cpus(), "cpu.cpus", "cpuset.cpus"), (cpu.mems(), "cpu.mems", "cpuset.mems")]
    {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            all.push(Setting::new((Controller::Cpuset, set_version), property, file, list));
        }
    }
    Ok(all)
}

fn check(cpu: &LinuxCpu) -> Result<(), Error> {
    if let Some(idle) = cpu.idle().filter(|idle| !(0..=1).contains(idle)) {
        let why = format!("{idle} is neither 0 nor 1 (run only when a CPU has nothing else to do)");
        return Err(Error::invalid("linux.resources.cpu.idle", why));
    }
    if let Some(period) = cpu.period().filter(|p| *p != 0 && !(1_000..=1_000_000).contains(p)) {
        let why = format!("{period} µs is outside of what the kernel takes: 1000 to 1000000");
        return Err(Error::invalid("linux.resources.cpu.period", why));
    }
    if let Some(quota) = cpu.quota().filter(|quota| (1..1_000).contains(quota)) {
        let why = format!("{quota} µs is less than the kernel's minimum of 1000 in each period");
        return Err(Error::invalid("linux.resources.cpu.quota", why));
    }
    Ok(())
}

/// Zero is what callers send for "not set".
fn given<T: Default + PartialEq>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

fn unified(cpu: &LinuxCpu, current: Current<'_>) -> Result<Vec<Setting>, Error> {
    let here = (Controller::Cpu, Version::V2);
    if given(cpu.realtime_runtime()).is_some() || given(cpu.realtime_period()).is_some() {
        let instead = "give the process a real-time policy with process.scheduler instead";
        return Err(only_v1("cpu.realtimeRuntime", instead));
    }
    let mut all = Vec::new();
    if let Some(idle) = cpu.idle() {
        all.push(Setting::new(here, "cpu.idle", "cpu.idle", idle));
    }
    // The kernel refuses a weight for an idle group, which has none.
    if let Some(shares) = given(cpu.shares()).filter(|_| cpu.idle() != Some(1)) {
        all.push(Setting::new(here, "cpu.shares", "cpu.weight", weight(shares)));
    }
    let (quota, period) = (given(cpu.quota()), given(cpu.period()));
    let quota = quota.map(|quota| super::or_max(quota, Version::V2));
    let (asked, value) = match (quota, period) {
        (Some(quota), Some(period)) => ("cpu.quota", Some(format!("{quota} {period}"))),
        // The kernel keeps the period that the group has.
        (Some(quota), None) => ("cpu.quota", Some(quota)),
        (None, Some(period)) => {
            let present = current("cpu.max");
            let quota = present.as_deref().and_then(|text| text.split_whitespace().next());
            ("cpu.period", Some(format!("{} {period}", quota.unwrap_or("max"))))
        }
        (None, None) => ("", None),
    };
    all.extend(value.map(|value| Setting::new(here, asked, "cpu.max", value)));
    if let Some(burst) = cpu.burst() {
        all.push(Setting::new(here, "cpu.burst", "cpu.max.burst", burst));
    }
    Ok(all)
}

fn legacy(cpu: &LinuxCpu) -> Vec<Setting> {
    let here = (Controller::Cpu, Version::V1);
    let mut all = Vec::new();
    let mut put = |asked: &str, file: &'static str, value: Option<String>| {
        all.extend(value.map(|value| Setting::new(here, asked, file, value)));
    };
    put("cpu.idle", "cpu.idle", cpu.idle().map(|v| v.to_string()));
    let shares = given(cpu.shares()).filter(|_| cpu.idle() != Some(1));
    put("cpu.shares", "cpu.shares", shares.map(|v| v.to_string()));
    put("cpu.period", "cpu.cfs_period_us", given(cpu.period()).map(|v| v.to_string()));
    let quota = given(cpu.quota()).map(|quota| super::or_max(quota, Version::V1));
    put("cpu.quota", "cpu.cfs_quota_us", quota);
    put("cpu.burst", "cpu.cfs_burst_us", cpu.burst().map(|v| v.to_string()));
    let period = given(cpu.realtime_period()).map(|v| v.to_string());
    put("cpu.realtimePeriod", "cpu.rt_period_us", period);
    let runtime = given(cpu.realtime_runtime()).map(|v| v.to_string());
    put("cpu.realtimeRuntime", "cpu.rt_runtime_us", runtime);
    all
}

/// The weight of version 2 (1 to 10000, default 100) for shares of version 1 (2 to 262144, default
/// 1024).
///
/// A parabola through the three points that have to match (least, default, most), on logarithms.
/// All runtimes agreed on it in 2025 (runc 1.3.2, crun 1.23), because the straight line of before
/// made 39 out of the default of 1024: opencontainers/runc#4785, kubernetes/kubernetes#131216.
fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "shares are below 2^18 and the result lies between 1 and 10000"
        )]
        shares => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            10_f64.powf(exponent).ceil() as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{writes, writes_with};
    use super::*;

    #[test]
    fn least_default_and_most_shares_are_least_default_and_most_weight() {
        assert_eq!([2, 1024, 262_144].map(weight), [1, 100, 10_000]);
        assert_eq!([1, 262_145, u64::MAX].map(weight), [1, 10_000, 10_000]);
        assert!((2..262_144).step_by(97).all(|shares| weight(shares) <= weight(shares + 97)));
    }

    #[test]
    fn a_quota_is_one_file_or_two() {
        let json = r#"{"cpu":{"quota":150000,"period":100000,"burst":5000}}"#;
        assert_eq!(
            writes(json, Version::V2).unwrap(),
            ["cpu.max=150000 100000", "cpu.max.burst=5000"]
        );
        assert_eq!(
            writes(json, Version::V1).unwrap(),
            ["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=150000", "cpu.cfs_burst_us=5000"]
        );
    }

    #[test]
    fn one_of_quota_and_period_keeps_the_other() {
        let present = |file: &str| (file == "cpu.max").then(|| "30000 100000\n".to_owned());
        let period = r#"{"cpu":{"period":50000}}"#;
        assert_eq!(writes_with(period, Version::V2, &present).unwrap(), ["cpu.max=30000 50000"]);
        assert_eq!(writes(period, Version::V2).unwrap(), ["cpu.max=max 50000"]);
        let quota = r#"{"cpu":{"quota":-1}}"#;
        assert_eq!(writes_with(quota, Version::V2, &present).unwrap(), ["cpu.max=max"]);
        assert_eq!(writes(quota, Version::V1).unwrap(), ["cpu.cfs_quota_us=-1"]);
    }

    #[test]
    fn an_idle_group_has_no_weight() {
        let json = r#"{"cpu":{"shares":2048,"idle":1}}"#;
        assert_eq!(writes(json, Version::V2).unwrap(), ["cpu.idle=1"]);
        let json = r#"{"cpu":{"shares":1024,"idle":0}}"#;
        assert_eq!(writes(json, Version::V2).unwrap(), ["cpu.idle=0", "cpu.weight=100"]);
    }

    #[test]
    fn sets_may_be_in_the_other_tree() {
        let json = r#"{"cpu":{"cpus":"0-1","mems":"0"}}"#;
        for version in [Version::V1, Version::V2] {
            assert_eq!(writes(json, version).unwrap(), ["cpuset.cpus=0-1", "cpuset.mems=0"]);
        }
    }

    #[test]
    fn values_that_no_kernel_takes_are_refused() {
        for json in [
            r#"{"cpu":{"period":999}}"#,
            r#"{"cpu":{"period":1000001}}"#,
            r#"{"cpu":{"quota":999}}"#,
            r#"{"cpu":{"idle":2}}"#,
        ] {
            assert!(writes(json, Version::V2).is_err(), "{json}");
            assert!(writes(json, Version::V1).is_err(), "{json}");
        }
        assert!(writes(r#"{"cpu":{"realtimeRuntime":95000}}"#, Version::V2).is_err());
        assert_eq!(
            writes(r#"{"cpu":{"realtimeRuntime":95000}}"#, Version::V1).unwrap(),
            ["cpu.rt_runtime_us=95000"]
        );
    }
}
