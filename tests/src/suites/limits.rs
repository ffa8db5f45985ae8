//! Limits, as the kernel sees them, in whichever version of cgroups this host has.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use serde_json::json;

use crate::needs::Need;
use crate::world::World;
use crate::{Test, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("memory", memory),
        test("memory_units", memory_units),
        test("memory_swap", memory_swap).needs(Need::CgroupV2),
        test("memory_reservation", memory_reservation),
        test("flags_override_config", flags_override_config),
        test("cpu", cpu),
        test("cpuset", cpuset),
        test("pids_are_enforced", pids_are_enforced),
        test("io_throttles", io_throttles),
        test("io_weight", io_weight).needs(Need::CgroupV2),
        test("unified_needs_version_2", unified_needs_version_2).needs(Need::CgroupV1),
        test("unified", unified).needs(Need::CgroupV2),
        test("devices_are_refused", devices_are_refused),
        test("the_container_sees_its_own_group", the_container_sees_its_own_group),
        test("default_group", default_group),
        test("relative_cgroups_path", relative_cgroups_path),
        test("a_group_in_use_is_refused", a_group_in_use_is_refused),
        test("killed_for_600_mib_of_512", killed_for_600_mib_of_512).needs(Need::Memory(800)),
        test("oom_of_a_child", oom_of_a_child),
        test("oom_of_the_container", oom_of_the_container),
        test("limit_too_small_to_start", limit_too_small_to_start),
        test("disabled", disabled),
    ]
}

fn memory(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    world.run(&["run", "-d", "--memory", "512m", bundle.path()]).ok();
    let limit = world.cgroup_file("c", "memory", "memory.max", "memory.limit_in_bytes");
    assert_eq!(limit, "536870912");
    // The process is in that group, in every tree.
    let pid = world.state("c")["pid"].to_string();
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    for line in groups.lines() {
        assert!(line.ends_with(&format!(":{}/c", world.cgroup)), "{line}");
    }
    world.run(&["delete", "-f", "c"]).ok();
}

fn memory_units(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    for (text, bytes) in [
        ("1g", "1073741824"),
        ("268435456", "268435456"),
        ("65536k", "67108864"),
        ("64M", "67108864"),
    ] {
        world.run(&["run", "-d", "-m", text, bundle.path()]).ok();
        let limit = world.cgroup_file("c", "memory", "memory.max", "memory.limit_in_bytes");
        assert_eq!(limit, bytes, "{text}");
        world.run(&["delete", "-f", "c"]).ok();
    }
}

fn memory_swap(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    for (flags, swap) in [
        (&["--memory=64m"][..], "0"),
        (&["--memory=64m", "--memory-swap=96m"], "33554432"),
        (&["--memory=64m", "--memory-swap=-1"], "max"),
    ] {
        world.run(&[&["run", "-d"], flags, &[bundle.path()]].concat()).ok();
        assert_eq!(world.cgroup_file("c", "memory", "memory.swap.max", ""), swap, "{flags:?}");
        world.run(&["delete", "-f", "c"]).ok();
    }
}

fn memory_reservation(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    world.run(&["run", "-d", "-m", "64m", "--memory-reservation=32m", bundle.path()]).ok();
    let low = world.cgroup_file("c", "memory", "memory.low", "memory.soft_limit_in_bytes");
    assert_eq!(low, "33554432");
    world.run(&["delete", "-f", "c"]).ok();
}

fn flags_override_config(world: &World) {
    let resources = json!({
        "memory": {"limit": 64 << 20}, "pids": {"limit": 10},
        "devices": [{"allow": false, "access": "rwm"}],
    });
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]).set("/linux/resources", resources);
    let limits = || {
        let memory = world.cgroup_file("c", "memory", "memory.max", "memory.limit_in_bytes");
        (memory, world.cgroup_file("c", "pids", "pids.max", "pids.max"))
    };
    world.run(&["run", "-d", bundle.path()]).ok();
    assert_eq!(limits(), ("67108864".into(), "10".into()));
    world.run(&["delete", "-f", "c"]).ok();
    world.run(&["run", "-d", "--memory=96m", bundle.path()]).ok();
    assert_eq!(limits(), ("100663296".into(), "10".into()));
    world.run(&["delete", "-f", "c"]).ok();
}

fn cpu(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    world.run(&["run", "-d", "--cpus", "1.5", "--cpu-weight", "50", bundle.path()]).ok();
    if Need::CgroupV2.is_met() {
        assert_eq!(world.cgroup_file("c", "cpu", "cpu.max", ""), "150000 100000");
        assert_eq!(world.cgroup_file("c", "cpu", "cpu.weight", ""), "50");
    } else {
        assert_eq!(world.cgroup_file("c", "cpu", "", "cpu.cfs_quota_us"), "150000");
        assert_eq!(world.cgroup_file("c", "cpu", "", "cpu.cfs_period_us"), "100000");
        assert_eq!(world.cgroup_file("c", "cpu", "", "cpu.shares"), "512");
    }
    world.run(&["delete", "-f", "c"]).ok();
}

fn cpuset(world: &World) {
    let bundle = world.bundle("c").shell("grep Cpus_allowed_list /proc/self/status");
    world.run(&["run", "--cpuset", "0", bundle.path()]).ok().prints("Cpus_allowed_list:\t0\n");
}

fn pids_are_enforced(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "fork", "40"]);
    let ran = world.run(&["run", "--pids", "20", bundle.path()]).exits(0);
    // The forking process is one of them.
    assert!(ran.output.contains("19 copies"), "{}", ran.output);
    let ran = world.run(&["run", "--pids", "-1", bundle.path()]).exits(0);
    assert_eq!(ran.output, "40 copies\n");
}

/// A disk of this host, by node and number.
pub(super) fn disk() -> Option<(String, String)> {
    let entries = std::fs::read_dir("/sys/block").ok()?.flatten();
    let mut disks = entries.filter_map(|entry| {
        let node = format!("/dev/{}", entry.file_name().to_string_lossy());
        let metadata = std::fs::metadata(&node).ok()?;
        if !metadata.file_type().is_block_device() || metadata.rdev() == 0 {
            return None;
        }
        let number = std::fs::read_to_string(entry.path().join("dev")).ok()?;
        Some((node, number.trim().to_owned()))
    });
    disks.find(|(node, _)| !node.contains("loop") && !node.contains("ram"))
}

fn io_throttles(world: &World) {
    let (node, number) = disk().expect("a disk");
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    let (bytes, operations) = (format!("{node}:1m"), format!("{node}:50"));
    let flags = ["run", "-d", "--io-read-bps", &bytes, "--io-write-iops", &operations];
    world.run(&[&flags[..], &[bundle.path()]].concat()).ok();
    if Need::CgroupV2.is_met() {
        let max = world.cgroup_file("c", "io", "io.max", "");
        assert_eq!(max, format!("{number} rbps=1048576 wbps=max riops=max wiops=50"));
    } else {
        let read = world.cgroup_file("c", "blkio", "", "blkio.throttle.read_bps_device");
        assert_eq!(read, format!("{number} 1048576"));
        let write = world.cgroup_file("c", "blkio", "", "blkio.throttle.write_iops_device");
        assert_eq!(write, format!("{number} 50"));
    }
    world.run(&["delete", "-f", "c"]).ok();
}

/// A scheduler that weighs (BFQ) may be missing: then this is an error and not silence.
fn io_weight(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    let ran = world.run(&["run", "-d", "--io-weight", "200", bundle.path()]);
    if ran.status == 0 {
        let dir = format!("/sys/fs/cgroup{}/c", world.cgroup);
        let weights: Vec<_> = ["io.weight", "io.bfq.weight"]
            .iter()
            .filter_map(|file| std::fs::read_to_string(format!("{dir}/{file}")).ok())
            .collect();
        assert!(weights.iter().any(|text| !text.trim().ends_with("100")), "{weights:?}");
        world.run(&["delete", "-f", "c"]).ok();
    } else {
        ran.fails("linux.resources.blockIO.weight");
    }
}

fn unified_needs_version_2(world: &World) {
    let bundle = world
        .bundle("c")
        .args(&["true"])
        .set("/linux/resources/unified", json!({"memory.high": "33554432"}));
    let ran = world.run(&["run", bundle.path()]).fails("memory.high");
    assert!(ran.errors.contains("version 1 has it"), "{}", ran.errors);
}

fn unified(world: &World) {
    let values = json!({"memory.high": "33554432", "pids.max": "33"});
    let bundle =
        world.bundle("c").args(&["/bin/probe", "wait"]).set("/linux/resources/unified", values);
    world.run(&["run", "-d", bundle.path()]).ok();
    assert_eq!(world.cgroup_file("c", "memory", "memory.high", ""), "33554432");
    assert_eq!(world.cgroup_file("c", "pids", "pids.max", ""), "33");
    world.run(&["delete", "-f", "c"]).ok();
    let bundle = world.bundle("bad").set("/linux/resources/unified", json!({"no.such": "1"}));
    world.run(&["run", bundle.path()]).fails("no.such");
}

fn devices_are_refused(world: &World) {
    // Even with every capability: a disk cannot be opened, and what every container has can.
    let (_, number) = disk().expect("a disk");
    let (major, minor) = number.split_once(':').expect("major:minor");
    let script = format!(
        "mknod /nodes/disk b {major} {minor} && head -c1 /nodes/disk; echo $?
         mknod /nodes/kmsg c 1 11 && head -c1 /nodes/kmsg; echo $?
         mknod /nodes/null c 1 3 && echo x >/nodes/null; echo $?; head -c1 /dev/zero | wc -c"
    );
    let caps = json!(["CAP_MKNOD", "CAP_SYS_ADMIN", "CAP_SYSLOG", "CAP_DAC_OVERRIDE"]);
    let sets = json!({"bounding": caps, "effective": caps, "permitted": caps});
    // On a file system that allows device nodes: it is the group that says no.
    let bundle = world.bundle("c").shell(&script).mount("/nodes", "tmpfs", "t", &["size=64k"]);
    let bundle = bundle.set("/process/capabilities", sets);
    let ran = world.run(&["run", bundle.path()]).exits(0);
    assert_eq!(ran.output, "1\n1\n0\n1\n", "{}", ran.errors);
    assert_eq!(ran.errors.matches("not permitted").count(), 2, "{}", ran.errors);
}

fn the_container_sees_its_own_group(world: &World) {
    let file = match Need::CgroupV2.is_met() {
        true => "/sys/fs/cgroup/memory.max",
        false => "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    };
    let script = format!("cat {file}; echo 1 >{file} || echo refused; cat /proc/self/cgroup");
    let bundle = world.bundle("c").shell(&script);
    let ran = world.run(&["run", "--memory", "64m", bundle.path()]).exits(0);
    let mut lines = ran.output.lines();
    assert_eq!((lines.next(), lines.next()), (Some("67108864"), Some("refused")), "{ran:?}");
    for line in lines {
        assert!(line.ends_with(":/"), "{line}");
    }
    // Without a cgroup namespace, too.
    let bundle = world.bundle("shared").shell(&script).without_namespace("cgroup");
    let ran = world.run(&["run", "--memory", "64m", bundle.path()]).exits(0);
    assert!(ran.output.starts_with("67108864\nrefused\n"), "{ran:?}");
}

fn default_group(world: &World) {
    let id = format!("test-{}", std::process::id());
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]).unset("/linux/cgroupsPath");
    world.run(&["run", "-d", "-b", bundle.path(), &id]).ok();
    let pid = world.state(&id)["pid"].to_string();
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    for line in groups.lines() {
        assert!(line.ends_with(&format!(":/minirun/{id}")), "{line}");
    }
    world.run(&["delete", "-f", &id]).ok();
    for tree in ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"] {
        assert!(!std::path::Path::new(tree).join("minirun").join(&id).exists(), "{tree}");
    }
}

fn relative_cgroups_path(world: &World) {
    let id = format!("relative-{}", std::process::id());
    let bundle =
        world.bundle("c").args(&["/bin/probe", "wait"]).set("/linux/cgroupsPath", json!(id));
    world.run(&["run", "-d", "-b", bundle.path(), "c"]).ok();
    let pid = world.state("c")["pid"].to_string();
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    assert!(groups.lines().all(|line| line.ends_with(&format!(":/minirun/{id}"))), "{groups}");
    world.run(&["delete", "-f", "c"]).ok();
}

fn a_group_in_use_is_refused(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    world.run(&["run", "-d", bundle.path()]).ok();
    world.run(&["create", "-b", bundle.path(), "other"]).fails("is in use");
    assert_eq!(world.status("c"), "running", "the other's failure has ended it");
    // And what is left of a creator that was killed, neither.
    world.run(&["delete", "--force", "other"]).ok();
    assert_eq!(world.status("c"), "running");
    world.run(&["delete", "-f", "c"]).ok();
}

fn killed_for_600_mib_of_512(world: &World) {
    let bundle = world.bundle("web").args(&["/bin/probe", "alloc", "600"]);
    let ran = world.run(&["run", "--memory", "512m", bundle.path()]).exits(137);
    assert_eq!(ran.output, "", "it never got that much");
    let expected =
        "minirun: container web was killed: it exceeded its memory limit of 512 MiB (peak 5";
    assert!(ran.errors.starts_with(expected), "{}", ran.errors);
    // And what fits, fits.
    let ran = world.run(&["run", "--memory", "512m", bundle.path(), "/bin/probe", "alloc", "400"]);
    assert_eq!(ran.ok().output, "holding 400 MiB\n");
}

fn oom_of_the_container(world: &World) {
    let bundle = world.bundle("greedy").args(&["/bin/probe", "alloc", "64"]);
    let ran = world.run(&["run", "--keep", "--memory", "32m", bundle.path()]).exits(137);
    assert!(
        ran.errors.contains("container greedy was killed: it exceeded its memory limit of 32 MiB"),
        "{}",
        ran.errors
    );
    let state = world.state("greedy");
    assert_eq!((&state["oomKilled"], &state["status"]), (&json!(true), &json!("stopped")));
    world.run(&["delete", "greedy"]).ok();
    // One that ends on its own is not said to have been killed.
    let fine = world.bundle("fine").args(&["true"]);
    world.run(&["run", "--keep", "--memory", "32m", fine.path()]).ok();
    assert!(world.state("fine").get("oomKilled").is_none());
    world.run(&["delete", "fine"]).ok();
}

fn oom_of_a_child(world: &World) {
    let bundle = world.bundle("c").shell("/bin/probe alloc 64; echo status $?; exit 3");
    let ran = world.run(&["run", "--memory", "32m", bundle.path()]).exits(3);
    assert!(ran.output.contains("status 137"), "{ran:?}");
    assert!(
        ran.errors.contains("a process of container c was killed: it exceeded its memory limit"),
        "{}",
        ran.errors
    );
}

fn limit_too_small_to_start(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/busybox", "true"]);
    let ran = world.run(&["run", "--memory", "4k", bundle.path()]).fails("too few");
    assert!(ran.errors.contains("at least 1048576"), "{}", ran.errors);
    // The smallest that is accepted either works, or is said to be too small; it never hangs.
    let ran = world.run(&["run", "--memory", "1m", bundle.path()]);
    if ran.status != 0 {
        assert!(ran.errors.contains("memory limit"), "{ran:?}");
    }
}

fn disabled(world: &World) {
    let bundle = world
        .bundle("c")
        .shell("echo runs")
        .set("/mounts", json!([{"destination": "/proc", "type": "proc", "source": "proc"}]));
    let call = |more: &[&str]| {
        world.run(&[&["--cgroup-manager", "disabled", "run"], more, &[bundle.path()]].concat())
    };
    call(&[]).ok().prints("runs\n");
    call(&["--memory", "64m"]).fails("--cgroup-manager disabled");
    // What Podman asks for with `--cgroups=disabled`: the tree is mounted all the same.
    let shown = world.bundle("d").shell("test -n \"$(ls /sys/fs/cgroup)\" && echo shown");
    let ran = world.run(&["--cgroup-manager", "disabled", "run", shown.path()]);
    ran.ok().prints("shown\n");
    for tree in ["", "/memory", "/unified"] {
        let group = format!("/sys/fs/cgroup{tree}{}/c", world.cgroup);
        assert!(!std::path::Path::new(&group).exists(), "{group}");
    }
}
