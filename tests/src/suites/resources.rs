//! The rest of `linux.resources`: what is rarely asked for, what only one version of cgroups has, and
//! every flag of `update`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::limits::disk;
use crate::bundle::Bundle;
use crate::call::wait_until;
use crate::needs::Need;
use crate::programs;
use crate::world::World;
use crate::{Test, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("burst_and_period", burst_and_period),
        test("idle", idle),
        test("memory_nodes", memory_nodes),
        test("four_ceilings", four_ceilings),
        test("weight_of_one_disk", weight_of_one_disk),
        test("huge_pages", huge_pages).needs(Need::CgroupV2),
        test("device_rules", device_rules),
        test("only_in_version_1", only_in_version_1),
        test("what_this_host_lacks", what_this_host_lacks),
        test("no_processes_at_all", no_processes_at_all),
        test("flags_of_update", flags_of_update),
        test("update_below_what_is_in_use", update_below_what_is_in_use),
        test("pressure", pressure),
        test("version_2_mounted_nowhere", version_2_mounted_nowhere)
            .needs(Need::CgroupV1)
            .needs(Need::Root),
    ]
}

fn limited(world: &World, name: &str, resources: Value) -> Bundle {
    world.bundle(name).args(&["/bin/probe", "wait"]).set("/linux/resources", resources)
}

fn with_container(world: &World, resources: Value, look: impl FnOnce()) {
    let bundle = limited(world, "c", resources);
    world.run(&["run", "-d", bundle.path()]).ok();
    look();
    world.run(&["delete", "-f", "c"]).ok();
    std::fs::remove_dir_all(&bundle.dir).expect("remove it");
}

fn burst_and_period(world: &World) {
    let resources = json!({"cpu": {"quota": 50_000, "period": 100_000, "burst": 10_000}});
    with_container(world, resources, || {
        let burst = world.cgroup_file("c", "cpu", "cpu.max.burst", "cpu.cfs_burst_us");
        assert_eq!(burst, "10000");
    });
    // A period alone, and a burst that is more than the quota.
    with_container(world, json!({"cpu": {"period": 50_000}}), || {
        let shown = world.cgroup_file("c", "cpu", "cpu.max", "cpu.cfs_period_us");
        assert!(shown.ends_with("50000"), "{shown}");
    });
    let too_much = json!({"cpu": {"quota": 50_000, "burst": 60_000}});
    let bundle = limited(world, "bad", too_much);
    world.run(&["run", bundle.path()]).fails("burst").says("at most the quota");
}

fn idle(world: &World) {
    with_container(world, json!({"cpu": {"idle": 1, "shares": 2048}}), || {
        assert_eq!(world.cgroup_file("c", "cpu", "cpu.idle", "cpu.idle"), "1");
        world.run(&["update", "--cpu-idle", "0", "c"]).ok();
        assert_eq!(world.cgroup_file("c", "cpu", "cpu.idle", "cpu.idle"), "0");
    });
}

fn memory_nodes(world: &World) {
    with_container(world, json!({"cpu": {"cpus": "0", "mems": "0"}}), || {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            assert_eq!(world.cgroup_file("c", "cpuset", file, file), "0", "{file}");
        }
    });
    let bundle = limited(world, "bad", json!({"cpu": {"mems": "77"}}));
    world.run(&["run", bundle.path()]).fails("linux.resources.cpu.mems");
}

fn four_ceilings(world: &World) {
    let (_, number) = disk().expect("a disk");
    let (major, minor) = numbers(&number);
    let rate = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let resources = json!({"blockIO": {
        "throttleReadBpsDevice": rate(1 << 20), "throttleWriteBpsDevice": rate(2 << 20),
        "throttleReadIOPSDevice": rate(30), "throttleWriteIOPSDevice": rate(40),
    }});
    with_container(world, resources, || {
        if Need::CgroupV2.is_met() {
            let shown = world.cgroup_file("c", "io", "io.max", "");
            let expected = format!("{number} rbps=1048576 wbps=2097152 riops=30 wiops=40");
            assert_eq!(shown, expected);
            return;
        }
        for (file, value) in [
            ("read_bps", "1048576"),
            ("write_bps", "2097152"),
            ("read_iops", "30"),
            ("write_iops", "40"),
        ] {
            let file = format!("blkio.throttle.{file}_device");
            let shown = world.cgroup_file("c", "blkio", "", &file);
            assert_eq!(shown, format!("{number} {value}"), "{file}");
        }
    });
}

fn numbers(device: &str) -> (u64, u64) {
    let (major, minor) = device.split_once(':').expect("two numbers");
    (major.parse().expect("a number"), minor.parse().expect("a number"))
}

/// Where no scheduler knows weights, that is an error and not silence.
fn weight_of_one_disk(world: &World) {
    let (_, number) = disk().expect("a disk");
    let (major, minor) = numbers(&number);
    let devices = json!([{"major": major, "minor": minor, "weight": 300}]);
    let bundle = limited(world, "c", json!({"blockIO": {"weightDevice": devices}}));
    let ran = world.run(&["run", "-d", bundle.path()]);
    if ran.status != 0 {
        ran.fails("linux.resources.blockIO.weightDevice");
        return;
    }
    let files = ["io.bfq.weight", "io.weight", "blkio.bfq.weight_device", "blkio.weight_device"];
    let shown = ["", "/blkio"].iter().flat_map(|tree| {
        let group = format!("/sys/fs/cgroup{tree}{}/c", world.cgroup);
        files.iter().filter_map(move |file| std::fs::read_to_string(format!("{group}/{file}")).ok())
    });
    let shown: Vec<String> = shown.collect();
    assert!(shown.iter().any(|text| text.contains(&number)), "{shown:?}");
    world.run(&["delete", "-f", "c"]).ok();
}

/// Pages in use and pages reserved, where the kernel counts both.
fn huge_pages(world: &World) {
    let limit = json!([{"pageSize": "2MB", "limit": 4 << 20}]);
    with_container(world, json!({"hugepageLimits": limit}), || {
        for file in ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"] {
            assert_eq!(world.cgroup_file("c", "hugetlb", file, ""), "4194304", "{file}");
        }
    });
    for (size, words) in [("2MiB", "is not a page size"), ("3MB", "/sys/kernel/mm/hugepages")] {
        let limit = json!([{"pageSize": size, "limit": 0}]);
        let bundle = limited(world, size, json!({"hugepageLimits": limit}));
        world.run(&["run", bundle.path()]).fails("hugepageLimits").says(words);
    }
}

/// Reading is allowed and writing is not, for the user who may do everything else.
fn device_rules(world: &World) {
    let rules = json!([{"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}]);
    let node = json!([{"path": "/dev/mine", "type": "c", "major": 1, "minor": 11}]);
    let caps = json!(["CAP_SYSLOG", "CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_DAC_OVERRIDE"]);
    let script = "exec 3</dev/mine && echo read; exec 4>/dev/mine && echo written";
    let bundle = limited(world, "c", json!({"devices": rules}))
        .shell(script)
        .set("/linux/devices", node)
        .set(
            "/process/capabilities",
            json!({"bounding": caps, "effective": caps,
            "permitted": caps}),
        );
    let ran = world.run(&["run", bundle.path()]);
    assert_eq!(ran.output, "read\n", "{ran:?}");
    assert!(ran.errors.contains("not permitted"), "{ran:?}");
}

/// The file of a controller in its tree of version 1, where this host has one.
fn v1(controller: &str, file: &str) -> Option<PathBuf> {
    let tree = Path::new("/sys/fs/cgroup").join(controller);
    tree.join("cgroup.procs").exists().then(|| PathBuf::from(file))
}

/// Set where the tree exists; an error that names the property everywhere else.
fn only_in_version_1(world: &World) {
    for (resources, property, controller, file, value) in [
        (
            json!({"memory": {"swappiness": 17}}),
            "memory.swappiness",
            "memory",
            "memory.swappiness",
            "17",
        ),
        (
            json!({"memory": {"disableOOMKiller": true}}),
            "memory.disableOOMKiller",
            "memory",
            "memory.oom_control",
            "oom_kill_disable 1",
        ),
        (
            json!({"memory": {"kernelTCP": 8 << 20}}),
            "memory.kernelTCP",
            "memory",
            "memory.kmem.tcp.limit_in_bytes",
            "8388608",
        ),
        (
            json!({"network": {"classID": 1_048_577}}),
            "network.classID",
            "net_cls",
            "net_cls.classid",
            "1048577",
        ),
        (
            json!({"network": {"priorities": [{"name": "lo", "priority": 5}]}}),
            "network.priorities",
            "net_prio",
            "net_prio.ifpriomap",
            "lo 5",
        ),
    ] {
        let kept = resources.clone();
        match v1(controller, file) {
            Some(file) => with_container(world, resources, || {
                let file = file.to_str().expect("UTF-8");
                let shown = world.cgroup_file("c", controller, "", file);
                assert!(shown.lines().any(|line| line == value), "{property}: {shown}");
            }),
            None => {
                let bundle = limited(world, &property.replace('.', "-"), kept);
                world.run(&["run", bundle.path()]).fails(&format!("linux.resources.{property}"));
            }
        }
    }
}

/// Neither is there on machines without the hardware or the kernel option.
fn what_this_host_lacks(world: &World) {
    let rdma = json!({"rdma": {"no-such-device": {"hcaHandles": 3}}});
    let bundle = limited(world, "rdma", rdma);
    world.run(&["run", bundle.path()]).fails("linux.resources.rdma");
    let real_time = json!({"cpu": {"realtimeRuntime": 1000, "realtimePeriod": 100_000}});
    let bundle = limited(world, "rt", real_time);
    let ran = world.run(&["run", "-d", bundle.path()]);
    if ran.status == 0 {
        assert_eq!(world.cgroup_file("rt", "cpu", "", "cpu.rt_runtime_us"), "1000");
        world.run(&["delete", "-f", "rt"]).ok();
    } else {
        ran.fails("linux.resources.cpu.realtime");
    }
    for (name, memory, words) in [
        ("kernel", json!({"kernel": 8 << 20}), "memory.kernel"),
        ("flat", json!({"useHierarchy": false}), "memory.useHierarchy"),
    ] {
        let bundle = limited(world, name, json!({"memory": memory}));
        world.run(&["run", bundle.path()]).fails(words);
    }
}

/// Zero processes is a limit since runtime-spec 1.3: the first one is there, and no other.
fn no_processes_at_all(world: &World) {
    let bundle = limited(world, "c", json!({"pids": {"limit": 0}}));
    let bundle = bundle.args(&["/bin/probe", "fork", "2"]);
    let ran = world.run(&["run", bundle.path()]);
    // A kernel that counts the first one before it is in the group refuses to make it.
    if ran.status == 0 {
        assert!(ran.output.contains("0 copies"), "{ran:?}");
    }
    assert!(!ran.output.contains("2 copies"), "{ran:?}");
}

fn flags_of_update(world: &World) {
    let bundle = limited(world, "c", json!({"memory": {"limit": 64 << 20}}));
    world.run(&["run", "-d", bundle.path()]).ok();
    let update = |flags: &[&str]| {
        world.run(&[&["update"], flags, &["c"]].concat()).ok();
    };
    let unified = Need::CgroupV2.is_met();
    let cpu = |v2: &str, v1: &str| world.cgroup_file("c", "cpu", v2, v1);
    update(&["--cpu-period", "50000", "--cpu-quota", "20000"]);
    let quota = if unified { "20000 50000" } else { "20000" };
    assert_eq!(cpu("cpu.max", "cpu.cfs_quota_us"), quota);
    update(&["--cpu-burst", "5000"]);
    assert_eq!(cpu("cpu.max.burst", "cpu.cfs_burst_us"), "5000");
    update(&["--cpu-burst", "0"]);
    update(&["--cpu-quota", "-1"]);
    assert_eq!(cpu("cpu.max", "cpu.cfs_quota_us"), if unified { "max 50000" } else { "-1" });
    update(&["--cpu-share", "2048"]);
    assert_eq!(cpu("cpu.weight", "cpu.shares"), if unified { "174" } else { "2048" });
    update(&["--cpuset-cpus", "0", "--cpuset-mems", "0"]);
    assert_eq!(world.cgroup_file("c", "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    update(&["--memory-reservation", "32m"]);
    let low = world.cgroup_file("c", "memory", "memory.low", "memory.soft_limit_in_bytes");
    assert_eq!(low, "33554432");
    if unified {
        update(&["--memory", "48m", "--memory-swap", "64m"]);
        assert_eq!(world.cgroup_file("c", "memory", "memory.swap.max", ""), "16777216");
    }
    // What is not named stays, in one call and over several.
    assert_eq!(world.cgroup_file("c", "cpuset", "cpuset.mems", "cpuset.mems"), "0");
    let weight = world.run(&["update", "--blkio-weight", "300", "c"]);
    assert!(weight.status == 0 || weight.errors.contains("blockIO.weight"), "{weight:?}");
    for flag in ["--cpu-quota=10", "--cpu-idle=2", "--memory=-7", "--blkio-weight=5"] {
        let ran = world.run(&["update", flag, "c"]);
        assert_eq!(ran.status, 1, "{flag}: {ran:?}");
    }
    world.run(&["update", "--l3-cache-schema", "L3:0=f", "c"]).fails("no linux.intelRdt");
    world.run(&["delete", "-f", "c"]).ok();
}

fn update_below_what_is_in_use(world: &World) {
    let script = "dd if=/dev/zero of=/fill/x bs=1M count=20 2>/dev/null; touch /tmp/full; \
                  while :; do sleep 1; done";
    let bundle = limited(world, "c", json!({"memory": {"limit": 64 << 20}}))
        .mount("/fill", "tmpfs", "t", &["size=32m"])
        .shell(script);
    world.run(&["run", "-d", bundle.path()]).ok();
    assert!(wait_until(|| bundle.rootfs("tmp/full").exists()));
    let wanted = json!({"memory": {"limit": 8 << 20, "checkBeforeUpdate": true}}).to_string();
    let ran = world.minirun(&["update", "-r", "-", "c"]).input_text(&wanted).run();
    ran.fails("in use, and checkBeforeUpdate forbids that");
    let limit = world.cgroup_file("c", "memory", "memory.max", "memory.limit_in_bytes");
    assert_eq!(limit, "67108864");
    world.run(&["delete", "-f", "c"]).ok();
}

/// Waiting for the processor, memory and disks, where the kernel counts it.
fn pressure(world: &World) {
    let bundle = limited(world, "c", json!({"pids": {"limit": 9}}));
    world.run(&["run", "-d", bundle.path()]).ok();
    let data = &world.run(&["events", "--stats", "c"]).ok().json()["data"];
    for (part, file) in
        [("cpu", "cpu.pressure"), ("memory", "memory.pressure"), ("blkio", "io.pressure")]
    {
        let counted = ["", "/unified"].iter().any(|tree| {
            let group = format!("/sys/fs/cgroup{tree}{}/c", world.cgroup);
            std::fs::read_to_string(Path::new(&group).join(file)).is_ok()
        });
        let shown = data[part]["psi"]["some"]["avg10"].is_number();
        assert_eq!(shown, counted, "{part}: {data}");
    }
    world.run(&["delete", "-f", "c"]).ok();
}

/// As on a host with version 1 only: each of minirun's processes mounts version 2 for itself.
fn version_2_mounted_nowhere(world: &World) {
    let bundle = limited(world, "c", json!({"memory": {"limit": 64 << 20}}));
    let script = format!(
        "if test -d /sys/fs/cgroup/unified; then mount -t tmpfs t /sys/fs/cgroup/unified; fi
         m() {{ {} --root {} \"$@\"; }}
         status() {{ m state c | grep '\"status\"' | tr -dc 'a-z \\n'; }}
         m run -d {} >/dev/null
         m pause c; status
         ! m pause c 2>/dev/null; ! m exec c /bin/true 2>/dev/null
         m resume c; status; m exec c /bin/echo inside
         m pause c; m delete --force c; m list -q",
        programs::minirun().display(),
        world.root().display(),
        bundle.path(),
    );
    let place = ["--mount", "--propagation", "private", "sh", "-ec", &script];
    let ran = world.program("unshare").args(&place).run().ok();
    assert_eq!(ran.output, "  status paused\n  status running\ninside\n");
}
