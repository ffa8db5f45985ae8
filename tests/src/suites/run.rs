//! `minirun run`: a container from a bundle, its flags, its exit status.

use rustix::process::Signal;
use serde_json::json;

use crate::world::World;
use crate::{Test, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("prints_and_exits", prints_and_exits),
        test("target_is_a_bundle_or_a_name", target_is_a_bundle_or_a_name),
        test("exit_statuses", exit_statuses),
        test("killed_by_a_signal", killed_by_a_signal),
        test("signals_are_forwarded", signals_are_forwarded),
        test("process_flags", process_flags),
        test("volumes", volumes),
        test("read_only", read_only),
        test("keep_and_delete", keep_and_delete),
        test("detached_with_pid_file", detached_with_pid_file),
        test("standard_input_is_passed", standard_input_is_passed),
        test("explain_tells_every_step", explain_tells_every_step),
    ]
}

fn prints_and_exits(world: &World) {
    let bundle = world.bundle("hello").shell("echo hello; echo oops >&2");
    let ran = world.run(&["run", bundle.path()]).exits(0).prints("hello\n");
    assert_eq!(ran.errors, "oops\n");
}

fn target_is_a_bundle_or_a_name(world: &World) {
    let bundle = world.bundle("web").args(&["/bin/hostname"]);
    world.run(&["run", bundle.path()]).ok().prints("minirun\n");
    world.run(&["run", "--bundle", bundle.path(), "some-name"]).ok();
    // A directory with a config.json, where the current one has none.
    world.run(&["run", "web"]).ok();
    // In a bundle, a word is a name.
    world.minirun(&["run", "web"]).directory(&bundle.dir).run().ok();
    world.run(&["run", "--name", "other", bundle.path(), "echo", "-n", "mine"]).ok().prints("mine");
}

fn exit_statuses(world: &World) {
    let bundle = world.bundle("status").args(&["/bin/probe", "wait"]);
    for status in [0, 1, 7, 125, 126, 127, 128, 137, 255] {
        let number = status.to_string();
        world.run(&["run", bundle.path(), "/bin/probe", "exit", &number]).exits(status);
    }
    world.run(&["run", "--detach", bundle.path()]).ok();
    for status in 0..=255 {
        let number = status.to_string();
        world.run(&["exec", "status", "/bin/probe", "exit", &number]).exits(status);
    }
    world.run(&["delete", "--force", "status"]).ok();
}

/// Process 1 of a PID namespace ignores what it does not handle; without one, signals are as usual.
fn killed_by_a_signal(world: &World) {
    let bundle = world.bundle("signal").without_namespace("pid");
    for signal in [1, 2, 6, 9, 11, 13, 14, 15, 24, 31, 34, 64] {
        let script = format!("kill -{signal} $$");
        let ran = world.run(&["run", bundle.path(), "sh", "-c", &script]);
        assert_eq!(ran.status, 128 + signal, "signal {signal}: {}", ran.errors);
    }
    // Killed from outside, also as process 1.
    let bundle = world.bundle("killed").args(&["/bin/probe", "wait"]);
    let running = world.minirun(&["run", bundle.path()]).spawn();
    running.wait_for("waiting");
    world.run(&["kill", "killed", "KILL"]).ok();
    running.wait().exits(137);
}

fn signals_are_forwarded(world: &World) {
    let script = "trap 'echo got TERM' TERM; trap 'echo got HUP' HUP; trap 'echo got USR1' USR1
        trap 'echo bye; exit 7' INT
        echo ready; while :; do sleep 0.1; done";
    let bundle = world.bundle("forward").shell(script);
    let running = world.minirun(&["run", bundle.path()]).spawn();
    running.wait_for("ready");
    for (signal, name) in
        [(Signal::TERM, "got TERM"), (Signal::HUP, "got HUP"), (Signal::USR1, "got USR1")]
    {
        running.signal(signal);
        running.wait_for(name);
    }
    running.signal(Signal::INT);
    running.wait().exits(7).prints("ready\ngot TERM\ngot HUP\ngot USR1\nbye\n");
}

fn process_flags(world: &World) {
    let bundle = world.bundle("flags").args(&["/bin/probe", "look"]);
    let flags = [
        "--env=COLOUR=green",
        "-e",
        "FROM_HERE",
        "--user=1000:100",
        "--workdir=/tmp",
        "--hostname=green",
    ];
    let mut arguments = vec!["run"];
    arguments.extend(flags);
    arguments.push(bundle.path());
    let seen = world.minirun(&arguments).env("FROM_HERE", "it is").run().ok().json();
    assert_eq!(seen["env"]["COLOUR"], "green");
    assert_eq!(seen["env"]["FROM_HERE"], "it is");
    assert_eq!((&seen["uid"], &seen["gid"]), (&json!(1000), &json!(100)));
    assert_eq!(seen["cwd"], "/tmp");
    assert_eq!(seen["hostname"], "green");
    assert_eq!(seen["env"]["HOME"], "/");
    // Nothing of the caller's environment comes along unasked.
    let names: Vec<_> = seen["env"].as_object().expect("an object").keys().collect();
    assert_eq!(names, ["COLOUR", "FROM_HERE", "HOME", "PATH"]);
    world.run(&["run", "--env", "NOT_SET_ANYWHERE", bundle.path()]).fails("is not set here");
}

fn volumes(world: &World) {
    let bundle = world.bundle("volumes");
    let (shared, fixed) = (world.path("shared"), world.path("fixed"));
    std::fs::create_dir(&shared).expect("make a directory");
    std::fs::write(&fixed, "fixed\n").expect("write a file");
    let (one, two) =
        (format!("{}:/data", shared.display()), format!("{}:/etc/fixed:ro", fixed.display()));
    let script = "echo written >/data/file; cat /etc/fixed; echo x >/etc/fixed || echo refused";
    let ran =
        world.run(&["run", "-v", &one, "-v", &two, bundle.path(), "sh", "-c", script]).exits(0);
    assert_eq!(ran.output, "fixed\nrefused\n", "{}", ran.errors);
    assert_eq!(std::fs::read_to_string(shared.join("file")).expect("it is there"), "written\n");
    assert_eq!(std::fs::read_to_string(&fixed).expect("it is there"), "fixed\n");
}

fn read_only(world: &World) {
    let bundle =
        world.bundle("ro").shell("touch /file || echo refused; touch /dev/shm/x && echo shm");
    let ran = world.run(&["run", "--read-only", bundle.path()]).exits(0);
    assert_eq!(ran.output, "refused\nshm\n");
    assert!(ran.errors.contains("Read-only file system"), "{}", ran.errors);
    assert!(!bundle.rootfs("file").exists());
    // And without it, a plain root is written to.
    world.run(&["run", bundle.path()]).ok();
    assert!(bundle.rootfs("file").exists());
}

fn keep_and_delete(world: &World) {
    let bundle = world.bundle("kept").args(&["true"]);
    world.run(&["run", "--keep", bundle.path()]).ok();
    let state = world.state("kept");
    assert_eq!((&state["status"], &state["pid"]), (&json!("stopped"), &json!(0)));
    world.run(&["run", "--bundle", bundle.path(), "kept"]).fails("already exists");
    world.run(&["delete", "kept"]).ok();
    world.run(&["state", "kept"]).fails("container `kept` does not exist");
}

fn detached_with_pid_file(world: &World) {
    let bundle = world.bundle("detached").args(&["/bin/probe", "wait"]);
    let file = world.path("pid");
    let name = file.to_str().expect("UTF-8");
    world.run(&["run", "--detach", "--pid-file", name, bundle.path()]).ok();
    let text = std::fs::read_to_string(&file).expect("the pid file");
    let pid: i32 = text.parse().expect("a number and nothing else");
    assert_eq!(world.state("detached")["pid"], json!(pid));
    assert_eq!(world.status("detached"), "running");
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("it runs");
    assert_eq!(command, "/bin/probe\0wait\0");
    world
        .run(&["delete", "detached"])
        .fails("cannot delete container detached that is not stopped");
    world.run(&["delete", "--force", "detached"]).ok();
}

fn standard_input_is_passed(world: &World) {
    let bundle = world.bundle("input").args(&["/bin/wc", "-c"]);
    let text = "x".repeat(300_000);
    world.minirun(&["run", bundle.path()]).input_text(&text).run().ok().prints("300000\n");
}

fn explain_tells_every_step(world: &World) {
    let bundle = world.bundle("explain").args(&["true"]);
    let trace = world.path("trace");
    let trace_name = trace.to_str().expect("UTF-8");
    let ran = world.run(&["run", "--explain", "--trace", trace_name, bundle.path()]).exits(0);
    assert_eq!(ran.output, "", "the narration is not the program's output");
    assert!(!ran.errors.contains('\u{1b}'), "no colours in a file: {}", ran.errors);
    let text = std::fs::read_to_string(trace).expect("a trace");
    let records: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect();
    let steps: std::collections::BTreeSet<_> =
        records.iter().filter_map(|record| record["step"].as_str()).collect();
    for step in [
        "plan",
        "record",
        "cgroup",
        "clone",
        "rootfs",
        "mounts",
        "devices",
        "hide",
        "pivot",
        "limits",
        "credentials",
        "filter",
        "handover",
    ] {
        assert!(steps.contains(step), "no {step} in {steps:?}");
    }
}
