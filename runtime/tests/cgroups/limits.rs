//! Every limit as the kernel shows it afterwards, and as a process feels it.

use std::path::Path;
use std::time::Duration;

use libtest_mimic::Trial;
use minirun::cgroup::Controller::{Cpu, Cpuset, Devices, Hugetlb, Io, Memory, NetCls, Pids};

use super::group::{Group, resources, test, test_of_root, wait};

pub(crate) fn all() -> Vec<Trial> {
    vec![
        test("memory_is_what_was_asked", memory),
        test("too_much_memory_is_death_and_is_reported", out_of_memory),
        test("cpu_is_what_was_asked", cpu),
        test("cpus_are_those_that_were_asked_for", cpu_set),
        test("processes_are_limited", processes),
        test("io_is_what_was_asked", io),
        test("huge_pages_are_what_was_asked", huge_pages),
        test_of_root("devices_are_denied_and_allowed", devices),
        test("what_cannot_be_set_is_an_error_with_a_remedy", refused),
        test("a_missing_controller_is_named", missing),
        test("usage_is_told_as_the_kernel_counts_it", stats),
        test("an_update_goes_up_and_down_and_leaves_the_rest", update),
        test("an_update_below_what_is_in_use_can_be_refused", checked_update),
    ]
}

/// The bytes that a swap limit of version 2 or 1 stands for, where the kernel counts swap.
fn swap(group: &Group) -> Option<String> {
    let file = if group.is_v1(Memory) { "memory.memsw.limit_in_bytes" } else { "memory.swap.max" };
    let text = std::fs::read_to_string(group.dir(Memory).join(file)).ok()?;
    Some(text.trim().to_owned())
}

fn memory() {
    let json = r#"{"memory":{"limit":536870912,"reservation":268435456}}"#;
    let group = Group::with("memory", json);
    assert_eq!(group.shows(Memory, "memory.max", "memory.limit_in_bytes"), "536870912");
    assert_eq!(group.shows(Memory, "memory.low", "memory.soft_limit_in_bytes"), "268435456");
    assert_eq!(group.oom().limit_bytes, Some(536_870_912));
    if swap(&group).is_some() {
        group.apply(&resources(r#"{"memory":{"limit":536870912,"swap":805306368}}"#)).unwrap();
        let expected = if group.is_v1(Memory) { "805306368" } else { "268435456" };
        assert_eq!(swap(&group).as_deref(), Some(expected));
    }
    group.apply(&resources(r#"{"memory":{"limit":-1}}"#)).unwrap();
    assert_eq!(group.oom().limit_bytes, None);
}

fn out_of_memory() {
    let json = r#"{"memory":{"limit":16777216,"swap":16777216}}"#;
    let json = if swap(&Group::new("probe")).is_some() {
        json
    } else {
        r#"{"memory":{"limit":16777216}}"#
    };
    let group = Group::with("oom", json);
    assert_eq!(group.oom().kills, 0);
    let mut watch = group.watch_oom().unwrap();
    assert!(!watch.wait(Some(Duration::ZERO)).unwrap());
    let child = group.run(|| {
        let block = vec![1_u8; 64 << 20];
        i32::from(std::hint::black_box(&block)[77])
    });
    assert!(watch.wait(Some(Duration::from_secs(60))).unwrap());
    assert_eq!(wait(&child).status(), 137);
    assert_eq!(watch.take(), Some(1));
    let report = group.oom();
    assert_eq!((report.kills, report.limit_bytes), (1, Some(16 << 20)));
    assert!(report.peak_bytes.is_none_or(|peak| peak > 15 << 20), "{report:?}");
}

fn cpu() {
    let json = r#"{"cpu":{"shares":2048,"quota":150000,"period":100000}}"#;
    let group = Group::with("cpu", json);
    if group.is_v1(Cpu) {
        assert_eq!(group.shows(Cpu, "", "cpu.shares"), "2048");
        assert_eq!(group.shows(Cpu, "", "cpu.cfs_quota_us"), "150000");
        assert_eq!(group.shows(Cpu, "", "cpu.cfs_period_us"), "100000");
    } else {
        assert_eq!(group.shows(Cpu, "cpu.weight", ""), "174");
        assert_eq!(group.shows(Cpu, "cpu.max", ""), "150000 100000");
    }
    let burst = if group.is_v1(Cpu) { "cpu.cfs_burst_us" } else { "cpu.max.burst" };
    if group.dir(Cpu).join(burst).exists() {
        group.update(&resources(r#"{"cpu":{"burst":50000}}"#)).unwrap();
        assert_eq!(group.shows(Cpu, burst, burst), "50000");
        // The new quota is below the present burst: the order has to be the other one.
        group.update(&resources(r#"{"cpu":{"quota":20000,"burst":10000}}"#)).unwrap();
        assert_eq!(group.shows(Cpu, burst, burst), "10000");
    }
}

fn cpu_set() {
    let group = Group::new("cpuset");
    let wanted = resources(r#"{"cpu":{"cpus":"0","mems":"0"}}"#);
    if !group.place.missing(&group.host, &wanted).unwrap().is_empty() {
        let error = group.apply(&wanted).unwrap_err().to_string();
        assert!(error.contains("`cpuset` is missing") && error.contains("Delegate="), "{error}");
        return;
    }
    group.apply(&wanted).unwrap();
    assert_eq!(group.shows(Cpuset, "cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(group.shows(Cpuset, "cpuset.mems", "cpuset.mems"), "0");
    let status = group.shell_status("grep -q 'Cpus_allowed_list:.0$' /proc/self/status");
    assert_eq!(status, 0);
}

fn processes() {
    let group = Group::with("pids", r#"{"pids":{"limit":3}}"#);
    assert_eq!(group.shows(Pids, "pids.max", "pids.max"), "3");
    let status = group.shell_status("sleep 9 & sleep 9 & sleep 9 & sleep 9 & exit 0");
    assert_ne!(status, 0, "the fourth process was made");
    group.kill_all().unwrap();
    group.update(&resources(r#"{"pids":{"limit":-1}}"#)).unwrap();
    assert_eq!(group.shows(Pids, "pids.max", "pids.max"), "max");
}

/// A disk of this host, as `major:minor`.
fn disk() -> Option<(u64, u64)> {
    let mut names: Vec<_> = std::fs::read_dir("/sys/block").ok()?.flatten().collect();
    names.sort_by_key(std::fs::DirEntry::file_name);
    let disk = names.iter().find(|name| !name.file_name().to_string_lossy().starts_with("ram"))?;
    let text = std::fs::read_to_string(disk.path().join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn io() {
    let group = Group::new("io");
    let Some((major, minor)) = disk().filter(|_| group.offers(Io)) else {
        let error = group.apply(&resources(
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":250,"minor":0,"rate":1}]}}"#,
        ));
        assert!(error.is_err());
        return;
    };
    let device = format!(r#""major":{major},"minor":{minor}"#);
    let json = format!(
        r#"{{"blockIO":{{"throttleReadBpsDevice":[{{{device},"rate":1048576}}],
            "throttleWriteIOPSDevice":[{{{device},"rate":50}}]}}}}"#
    );
    group.apply(&resources(&json)).unwrap();
    if group.is_v1(Io) {
        let shown = group.shows(Io, "", "blkio.throttle.read_bps_device");
        assert_eq!(shown, format!("{major}:{minor} 1048576"));
        let shown = group.shows(Io, "", "blkio.throttle.write_iops_device");
        assert_eq!(shown, format!("{major}:{minor} 50"));
    } else {
        let shown = group.shows(Io, "io.max", "");
        assert_eq!(shown, format!("{major}:{minor} rbps=1048576 wbps=max riops=max wiops=50"));
    }
}

fn huge_pages() {
    let group = Group::new("huge");
    // In the tree of version 2 of a hybrid host, enabling it would change a group of the host.
    let is_usable = group.is_v1(Hugetlb) || group.record().trees.len() == 1;
    if !is_usable || !group.offers(Hugetlb) {
        assert!(
            group
                .apply(&resources(r#"{"hugepageLimits":[{"pageSize":"3MB","limit":0}]}"#))
                .is_err()
        );
        return;
    }
    let json = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#;
    group.apply(&resources(json)).unwrap();
    assert_eq!(group.shows(Hugetlb, "hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes"), "4194304");
}

/// 1:11 is the log of the kernel, which no container may read by default.
fn devices() {
    let read_log = "exec 3< /dev/kmsg";
    let free = Group::with("devices-all", r#"{"devices":[{"allow":true,"access":"rwm"}]}"#);
    assert_eq!(free.shell_status(read_log), 0);
    let denied = Group::with("devices-none", r#"{"devices":[{"allow":false,"access":"rwm"}]}"#);
    assert_ne!(denied.shell_status(read_log), 0);
    assert_eq!(denied.shell_status("exec 3<> /dev/null 4< /dev/urandom"), 0);
    let json = r#"{"devices":[{"allow":false,"access":"rwm"},
        {"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}"#;
    let one = Group::with("devices-one", json);
    assert_eq!(one.shell_status(read_log), 0);
    assert_ne!(one.shell_status("exec 3> /dev/kmsg"), 0);
    // An update leaves the devices alone.
    one.update(&resources(r#"{"devices":[{"allow":true,"access":"rwm"}]}"#)).unwrap();
    assert_ne!(one.shell_status("exec 3> /dev/kmsg"), 0);
    if one.is_v1(Devices) {
        assert!(one.shows(Devices, "", "devices.list").contains("c 1:11 r"));
    }
}

fn refused() {
    let group = Group::new("refused");
    let error = group.apply(&resources(r#"{"cpu":{"cpus":"4000"}}"#)).unwrap_err().to_string();
    for word in ["linux.resources.cpu.cpus", "cpuset.cpus", "4000", "): E", "0-3,7"] {
        assert!(error.contains(word), "{word}: {error}");
    }
}

fn missing() {
    let group = Group::new("missing");
    let json = r#"{"network":{"classID":7}}"#;
    let wanted = resources(json);
    let listed = group.place.missing(&group.host, &wanted).unwrap();
    if group.is_v1(NetCls) {
        assert!(listed.is_empty());
        group.apply(&wanted).unwrap();
        return;
    }
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].controller, NetCls);
    let error = group.apply(&wanted).unwrap_err().to_string();
    assert!(error.contains("net_cls") && error.contains("nftables"), "{error}");
}

fn stats() {
    let group = Group::with("stats", r#"{"memory":{"limit":67108864},"pids":{"limit":9}}"#);
    let child = group.shell("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done");
    assert_eq!(wait(&child).status(), 0);
    let stats = group.stats();
    let usage = &stats.cpu.usage;
    assert!(usage.total > 1_000_000 && usage.user > 0, "{usage:?}");
    assert_eq!(stats.memory.usage.limit, 67_108_864);
    assert!(stats.memory.usage.usage < 67_108_864);
    assert!(stats.memory.raw.contains_key("pgfault"));
    assert_eq!((stats.pids.current, stats.pids.limit), (0, 9));
    assert!(!stats.cpuset.cpus.is_empty());
    let pressure = group.record().trees["unified"].join("cpu.pressure");
    assert_eq!(stats.cpu.psi.is_some(), pressure.exists());
}

fn update() {
    let group = Group::with(
        "update",
        r#"{"memory":{"limit":67108864},"cpu":{"quota":50000,"period":100000},
            "pids":{"limit":40}}"#,
    );
    let has_swap = swap(&group).is_some();
    let limits: [i64; 3] = [134_217_728, 33_554_432, 268_435_456];
    for limit in limits {
        let swap = if has_swap { format!(r#","swap":{}"#, limit * 2) } else { String::new() };
        let json = format!(r#"{{"memory":{{"limit":{limit}{swap}}}}}"#);
        group.update(&resources(&json)).unwrap();
        let shown = group.shows(Memory, "memory.max", "memory.limit_in_bytes");
        assert_eq!(shown, limit.to_string());
    }
    let quota = || {
        if group.is_v1(Cpu) {
            let (quota, period) = ("cpu.cfs_quota_us", "cpu.cfs_period_us");
            format!("{} {}", group.shows(Cpu, "", quota), group.shows(Cpu, "", period))
        } else {
            group.shows(Cpu, "cpu.max", "")
        }
    };
    group.update(&resources(r#"{"cpu":{"period":50000}}"#)).unwrap();
    assert_eq!(quota(), "50000 50000");
    group.update(&resources(r#"{"cpu":{"quota":25000}}"#)).unwrap();
    assert_eq!(quota(), "25000 50000");
    assert_eq!(group.shows(Pids, "pids.max", "pids.max"), "40");
}

fn checked_update() {
    let group = Group::with("checked", r#"{"memory":{"limit":67108864}}"#);
    let ready = Path::new("/tmp").join(format!("minirun-test-{}", std::process::id()));
    let child = group.run(|| {
        let block = vec![1_u8; 20 << 20];
        std::fs::write(&ready, "").unwrap();
        std::thread::sleep(Duration::from_secs(10_000));
        i32::from(std::hint::black_box(&block)[77])
    });
    while !ready.exists() {
        std::thread::yield_now();
    }
    std::fs::remove_file(&ready).unwrap();
    let json = r#"{"memory":{"limit":8388608,"checkBeforeUpdate":true}}"#;
    let error = group.update(&resources(json)).unwrap_err().to_string();
    assert!(error.contains("in use"), "{error}");
    assert_eq!(group.oom().limit_bytes, Some(67_108_864));
    group.kill_all().unwrap();
    wait(&child);
}
