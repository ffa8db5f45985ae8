//! When and where processes run: scheduler, disk priority, processors, memory nodes.

use serde_json::json;

use crate::world::World;
use crate::{Test, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("policy_and_nice", policy_and_nice),
        test("real_time", real_time),
        test("io_priority", io_priority),
        test("processors_of_exec", processors_of_exec),
        test("memory_policy", memory_policy),
        test("core_scheduling", core_scheduling),
        test("what_cannot_be_is_an_error", what_cannot_be_is_an_error),
    ]
}

/// Nice value and policy, fields 19 and 41 of proc_pid_stat(5).
const LOOK: &str = "x=$(cut -d' ' -f19,41 /proc/self/stat); echo $x";

fn policy_and_nice(world: &World) {
    let bundle = world
        .bundle("c")
        .shell(LOOK)
        .set("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 7}));
    world.run(&["run", bundle.path()]).ok().prints("7 3\n");
    let bundle = bundle.shell(LOOK).set(
        "/process/scheduler",
        json!({"policy": "SCHED_OTHER", "nice": -5,
            "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
    );
    // The shell's child forgets it, as asked.
    world.run(&["run", bundle.path()]).ok().prints("0 0\n");
    // A process of `exec` has its own.
    let bundle = bundle.args(&["/bin/probe", "wait"]).unset("/process/scheduler");
    world.run(&["run", "-d", bundle.path()]).ok();
    let process = json!({"cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"],
        "args": ["sh", "-c", LOOK], "scheduler": {"policy": "SCHED_IDLE"}});
    let file = world.path("process.json");
    std::fs::write(&file, process.to_string()).expect("write it");
    world.run(&["exec", "-p", file.to_str().expect("UTF-8"), "c"]).ok().prints("0 5\n");
    world.run(&["delete", "-f", "c"]).ok();
}

/// Some hosts give a new group no real-time (version 1, CONFIG_RT_GROUP_SCHED): an error then.
fn real_time(world: &World) {
    let bundle = world
        .bundle("c")
        .shell("cut -d' ' -f40,41 /proc/self/stat")
        .set("/process/scheduler", json!({"policy": "SCHED_RR", "priority": 11}));
    let ran = world.run(&["run", bundle.path()]);
    if ran.status == 0 {
        ran.prints("11 2\n");
    } else {
        ran.fails("sched_setattr").says("CAP_SYS_NICE");
    }
}

fn io_priority(world: &World) {
    let bundle = world
        .bundle("c")
        .args(&["/bin/probe", "wait"])
        .set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 6}));
    world.run(&["run", "-d", bundle.path()]).ok();
    let pid = world.state("c")["pid"].to_string();
    let seen = world.program("/usr/bin/ionice").args(&["-p", &pid]).run();
    assert_eq!(seen.output.trim(), "best-effort: prio 6");
    world.run(&["delete", "-f", "c"]).ok();
}

fn processors_of_exec(world: &World) {
    let bundle = world
        .bundle("c")
        .args(&["/bin/probe", "wait"])
        .set("/process/execCPUAffinity", json!({"initial": "0", "final": "0"}));
    world.run(&["run", "-d", bundle.path()]).ok();
    let allowed = "grep Cpus_allowed_list /proc/self/status | cut -f2";
    world.run(&["exec", "c", "sh", "-c", allowed]).ok().prints("0\n");
    // Not for the container's own program.
    let pid = world.state("c")["pid"].to_string();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let own = std::fs::read_to_string("/proc/self/status").expect("our own");
    let list = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("Cpus_allowed_list"));
        line.expect("a list").to_owned()
    };
    assert_eq!(list(&status), list(&own));
    world.run(&["delete", "-f", "c"]).ok();
    // Processors that do not exist.
    let bundle = bundle.set("/process/execCPUAffinity", json!({"final": "1023"}));
    world.run(&["run", "-d", bundle.path()]).ok();
    world.run(&["exec", "c", "true"]).exits(255).says("execCPUAffinity 1023");
    world.run(&["delete", "-f", "c"]).ok();
}

fn memory_policy(world: &World) {
    let bundle = world.bundle("c").shell("head -1 /proc/self/numa_maps | cut -d' ' -f2");
    let policy = |mode: &str, nodes: Option<&str>| match nodes {
        Some(nodes) => json!({"mode": mode, "nodes": nodes}),
        None => json!({"mode": mode}),
    };
    let bundle = bundle.set("/linux/memoryPolicy", policy("MPOL_BIND", Some("0")));
    let ran = world.run(&["run", bundle.path()]);
    if ran.status == 0 && std::path::Path::new("/proc/self/numa_maps").exists() {
        ran.prints("bind:0\n");
        let bundle = bundle.args(&["/bin/probe", "wait"]);
        world.run(&["run", "-d", bundle.path()]).ok();
        let look = "head -1 /proc/self/numa_maps | cut -d' ' -f2";
        world.run(&["exec", "c", "sh", "-c", look]).ok().prints("bind:0\n");
        world.run(&["delete", "-f", "c"]).ok();
        let bundle = bundle.set("/linux/memoryPolicy", policy("MPOL_BIND", Some("999")));
        world.run(&["run", bundle.path()]).fails("set_mempolicy");
    } else {
        // A kernel without NUMA says so.
        assert!(ran.status == 1 || ran.output.is_empty(), "{ran:?}");
    }
}

fn core_scheduling(world: &World) {
    let bundle = world
        .bundle("c")
        .args(&["/bin/probe", "exit", "3"])
        .set("/annotations", json!({"org.minirun.core-scheduling": "true"}));
    let ran = world.run(&["run", bundle.path()]);
    assert!(ran.status == 3 || ran.errors.contains("CONFIG_SCHED_CORE"), "{ran:?}");
}

fn what_cannot_be_is_an_error(world: &World) {
    let bundle = world.bundle("c").args(&["true"]);
    let bundle = bundle.set("/process/scheduler", json!({"policy": "SCHED_ISO"}));
    world.run(&["run", bundle.path()]).fails("sched_setattr");
    let bundle = bundle.set("/process/scheduler", json!({"policy": "SCHED_FIFO"}));
    world.run(&["run", bundle.path()]).fails("scheduler.priority 0");
    let bundle = bundle
        .unset("/process/scheduler")
        .set("/linux/memoryPolicy", json!({"mode": "MPOL_LOCAL", "nodes": "0"}));
    world.run(&["run", bundle.path()]).fails("MPOL_LOCAL takes no nodes");
}
