//! `events`: what a container uses, as tools parse it.

use serde_json::Value;

use crate::bundle::Bundle;
use crate::call::wait_until;
use crate::needs::Need;
use crate::world::World;
use crate::{Test, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("stats_once", stats_once),
        test("stats_at_intervals", stats_at_intervals),
        test("deaths_are_told", deaths_are_told).needs(Need::Memory(400)),
        test("wrong_calls", wrong_calls),
    ]
}

fn stats_once(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    world.run(&["run", "-d", "--memory=64m", "--pids=7", bundle.path()]).ok();
    let ran = world.run(&["events", "--stats", "c"]).ok();
    assert_eq!(ran.output.lines().count(), 1);
    let event = ran.json();
    assert_eq!((&event["type"], &event["id"]), (&Value::from("stats"), &Value::from("c")));
    let data = &event["data"];
    assert_eq!(data["memory"]["usage"]["limit"], 64 << 20);
    assert!(data["memory"]["usage"]["usage"].as_u64().is_some_and(|bytes| bytes > 0), "{data}");
    assert_eq!((&data["pids"]["limit"], &data["pids"]["current"]), (&7.into(), &1.into()));
    assert!(data["cpu"]["usage"]["total"].as_u64().is_some_and(|time| time > 0), "{data}");
    let interfaces = data["network_interfaces"].as_array().expect("a list");
    assert!(interfaces.iter().any(|one| one["Name"] == "lo"), "{interfaces:?}");
    for part in ["cpuset", "blkio", "hugetlb", "intel_rdt"] {
        assert!(data[part].is_object(), "{part}: {data}");
    }
    // One dash is enough for engines that are written in Go.
    world.run(&["events", "-stats", "c"]).ok();
    world.run(&["delete", "-f", "c"]).ok();
}

fn stats_at_intervals(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    world.run(&["run", "-d", bundle.path()]).ok();
    let watching = world.minirun(&["events", "--interval", "50ms", "c"]).spawn();
    assert!(wait_until(|| watching.output().lines().count() > 3));
    world.run(&["kill", "c", "KILL"]).ok();
    // It ends with the container.
    let ran = watching.wait().exits(0);
    for line in ran.output.lines() {
        let event: Value = serde_json::from_str(line).expect("one JSON text per line");
        assert_eq!(event["type"], "stats");
    }
    world.run(&["delete", "c"]).ok();
}

fn deaths_are_told(world: &World) {
    // The child takes more than there is; its parent lives on.
    let script = "while test ! -e /go; do sleep 0.05; done; probe alloc 64; probe wait";
    let bundle = world.bundle("c").shell(script);
    world.run(&["run", "-d", "--memory=32m", bundle.path()]).ok();
    let watching = world.minirun(&["events", "--interval", "1h", "c"]).spawn();
    // It must be watching before there is something to see.
    let pid = watching.pid().as_raw_nonzero().get();
    assert!(wait_until(|| {
        std::fs::read_to_string(format!("/proc/{pid}/wchan"))
            .is_ok_and(|place| place.contains("poll"))
            || std::fs::read_to_string(format!("/proc/{pid}/syscall"))
                .is_ok_and(|text| text.starts_with("271 ") || text.starts_with("7 "))
    }));
    std::fs::write(bundle.rootfs("go"), "").expect("give the word");
    watching.wait_for("oom");
    let event: Value = serde_json::from_str(watching.output().lines().next().expect("a line"))
        .expect("one JSON text per line");
    assert_eq!(event, serde_json::json!({"type": "oom", "id": "c"}));
    world.run(&["delete", "-f", "c"]).ok();
    watching.wait().exits(0);
}

fn without_cgroup_mount(mut bundle: Bundle) -> Bundle {
    let mounts = bundle.config["mounts"].as_array_mut().expect("mounts");
    mounts.retain(|mount| mount["type"] != "cgroup");
    bundle.save();
    bundle
}

fn wrong_calls(world: &World) {
    world.run(&["events", "--stats", "c"]).fails("does not exist");
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    world.run(&["run", "-d", bundle.path()]).ok();
    world.run(&["events", "--interval", "0s", "c"]).fails("above zero");
    world.run(&["kill", "c", "KILL"]).ok();
    assert!(wait_until(|| world.status("c") == "stopped"));
    world.run(&["events", "--stats", "c"]).fails("container not running");
    world.run(&["delete", "c"]).ok();
    let bundle = without_cgroup_mount(bundle);
    world.run(&["--cgroup-manager=disabled", "run", "-d", bundle.path()]).ok();
    world.run(&["events", "--stats", "c"]).fails("no cgroup");
    world.run(&["delete", "-f", "c"]).ok();
}
