//! Programs of others at the six moments of a container's life: where they run, what they are told,
//! and what follows when they fail (runtime-spec config.md, "POSIX-platform Hooks").

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::call::wait_until;
use crate::world::World;
use crate::{Test, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("where_they_run", where_they_run),
        test("several_of_one_moment", several_of_one_moment),
        test("a_failure_before_the_start", a_failure_before_the_start),
        test("a_failure_in_the_container", a_failure_in_the_container),
        test("a_failure_after_the_start", a_failure_after_the_start),
        test("a_failure_at_the_end", a_failure_at_the_end),
        test("a_time_that_is_over", a_time_that_is_over),
        test("later_changes_have_no_effect", later_changes_have_no_effect),
    ]
}

const MOMENTS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A shell of the host, or of the container where there is no other.
fn hook(script: &str) -> Value {
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
}

fn record(world: &World) -> PathBuf {
    world.path("record")
}

fn recorded(world: &World) -> Vec<String> {
    let text = std::fs::read_to_string(record(world)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// A bundle whose hooks write down a line each, with the record bound into the container.
fn recording(world: &World, line: &str) -> Bundle {
    std::fs::write(record(world), "").expect("make the record");
    let file = record(world);
    let file = file.to_str().expect("UTF-8");
    let mut hooks = serde_json::Map::new();
    for moment in MOMENTS {
        hooks.insert(moment.into(), hook(&format!("moment={moment}; {line} >>{file}")));
    }
    world.bundle("c").mount(file, "bind", file, &["bind", "rw"]).set("/hooks", hooks.into())
}

/// Each in the namespaces that the specification says, with the state of the moment.
fn where_they_run(world: &World) {
    let line = "state=$(cat); status=${state##*\\\"status\\\":\\\"}; status=${status%%\\\"*}
        test -e /etc/only-inside && root=inside || root=outside
        echo $moment $(readlink /proc/self/ns/uts) $(readlink /proc/self/ns/mnt) $root $status";
    let bundle =
        recording(world, line).file("/etc/only-inside", "", 0o644).args(&["sleep", "1000"]);
    world.run(&["create", "-b", bundle.path(), "c"]).ok();
    let pid = world.state("c")["pid"].to_string();
    let link = |of: &str, kind: &str| {
        let link = std::fs::read_link(format!("/proc/{of}/ns/{kind}")).expect("a namespace");
        link.to_string_lossy().into_owned()
    };
    let here = [link("self", "uts"), link("self", "mnt")];
    let there = [link(&pid, "uts"), link(&pid, "mnt")];
    world.run(&["start", "c"]).ok();
    world.run(&["kill", "c", "KILL"]).ok();
    assert!(wait_until(|| world.status("c") == "stopped"));
    world.run(&["delete", "c"]).ok();
    let expected = [
        ("prestart", &here, "outside", "creating"),
        ("createRuntime", &here, "outside", "creating"),
        ("createContainer", &there, "outside", "creating"),
        ("startContainer", &there, "inside", "created"),
        ("poststart", &here, "outside", "running"),
        ("poststop", &here, "outside", "stopped"),
    ];
    let expected: Vec<String> = expected
        .iter()
        .map(|(moment, [uts, mnt], root, status)| format!("{moment} {uts} {mnt} {root} {status}"))
        .collect();
    assert_eq!(recorded(world), expected);
}

/// In the order of the list, each with the number of the first process as it sees it from outside.
fn several_of_one_moment(world: &World) {
    let file = record(world);
    let say = |word: &str| {
        let pid = "$(grep -o '\"pid\":[0-9]*' | cut -d: -f2)";
        hook(&format!("echo {word} {pid} >>{}", file.display()))[0].clone()
    };
    let moments = json!({"createRuntime": [say("one"), say("two")], "poststart": [say("three"),
        say("four")]});
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]).set("/hooks", moments);
    world.run(&["run", "-d", bundle.path()]).ok();
    let pid = world.state("c")["pid"].to_string();
    let expected = ["one", "two", "three", "four"].map(|word| format!("{word} {pid}"));
    assert_eq!(recorded(world), expected);
    world.run(&["delete", "-f", "c"]).ok();
}

/// One that sets something up has a last one that takes it away: that one runs when all of it comes
/// to nothing, too.
fn a_failure_before_the_start(world: &World) {
    for moment in ["prestart", "createRuntime", "createContainer"] {
        let bundle = recording(world, "echo $moment");
        let failing = hook("echo no network >&2; exit 5");
        let bundle = bundle.set(&format!("/hooks/{moment}"), failing);
        for verb in [&["create", "-b", bundle.path(), "c"][..], &["run", bundle.path()]] {
            std::fs::write(record(world), "").expect("empty the record");
            world.run(verb).fails("no network").says(moment).says("exit status: 5");
            assert_eq!(recorded(world).last().map(String::as_str), Some("poststop"), "{moment}");
            assert!(!recorded(world).iter().any(|line| line.starts_with("start")), "{moment}");
            world.run(&["state", "c"]).fails("does not exist");
        }
        std::fs::remove_dir_all(&bundle.dir).expect("remove it");
    }
    // The same for what fails after them.
    let bundle = recording(world, "echo $moment").args(&["/no/such/program"]);
    world.run(&["create", "-b", bundle.path(), "c"]).fails("no such file or directory");
    let expected = ["prestart", "createRuntime", "createContainer", "poststop"];
    assert_eq!(recorded(world), expected);
}

/// `start` fails, the program never runs, and the container has ended.
fn a_failure_in_the_container(world: &World) {
    let bundle = recording(world, "echo $moment")
        .set("/hooks/startContainer", hook("echo not today >&2; exit 3"))
        .shell("echo ran >/tmp/ran");
    world.run(&["create", "-b", bundle.path(), "c"]).ok();
    world.run(&["start", "c"]).fails("startContainer").says("not today");
    assert!(wait_until(|| world.status("c") == "stopped"));
    assert!(!bundle.rootfs("tmp/ran").exists(), "its program ran");
    world.run(&["delete", "c"]).ok();
    assert_eq!(recorded(world).last().map(String::as_str), Some("poststop"));
    // `run` does all of it.
    std::fs::write(record(world), "").expect("empty the record");
    world.run(&["run", bundle.path()]).fails("startContainer").says("not today");
    assert_eq!(recorded(world).last().map(String::as_str), Some("poststop"));
    world.run(&["state", "c"]).fails("does not exist");
}

/// An error since runtime-spec 1.2, and the container is ended.
fn a_failure_after_the_start(world: &World) {
    let bundle = recording(world, "echo $moment")
        .set("/hooks/poststart", hook("echo too late >&2; exit 3"))
        .args(&["/bin/probe", "wait"]);
    world.run(&["create", "-b", bundle.path(), "c"]).ok();
    world.run(&["start", "c"]).fails("poststart").says("too late");
    assert!(wait_until(|| world.status("c") == "stopped"));
    world.run(&["delete", "c"]).ok();
    assert_eq!(recorded(world).last().map(String::as_str), Some("poststop"));
    std::fs::write(record(world), "").expect("empty the record");
    world.run(&["run", "-d", bundle.path()]).fails("poststart").says("too late");
    assert_eq!(recorded(world).last().map(String::as_str), Some("poststop"));
    world.run(&["state", "c"]).fails("does not exist");
}

/// A warning: whatever they have to take away, the container is gone.
fn a_failure_at_the_end(world: &World) {
    let bundle = recording(world, "echo $moment")
        .set("/hooks/poststop", hook("echo cannot >&2; exit 3"))
        .args(&["true"]);
    world.run(&["run", "--keep", bundle.path()]).ok();
    world.run(&["--debug", "delete", "c"]).exits(0).says("poststop").says("cannot");
    world.run(&["state", "c"]).fails("does not exist");
    world.run(&["run", bundle.path()]).ok();
}

fn a_time_that_is_over(world: &World) {
    let slow = json!([{"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]);
    for moment in ["createRuntime", "createContainer"] {
        let bundle = world.bundle(moment).args(&["true"]).set("/hooks", json!({moment: slow}));
        world.run(&["create", "-b", bundle.path(), "c"]).fails(moment).says("timeout");
    }
    let none = json!([{"path": "/bin/true", "timeout": 0}]);
    let bundle = world.bundle("none").args(&["true"]).set("/hooks", json!({"poststop": none}));
    world.run(&["run", bundle.path()]).fails("greater than 0");
}

/// What counts is the configuration as it was at `create`.
fn later_changes_have_no_effect(world: &World) {
    let bundle = recording(world, "echo $moment").shell("echo old >/tmp/which");
    world.run(&["create", "-b", bundle.path(), "c"]).ok();
    let which = bundle.rootfs("tmp/which");
    let changed = bundle.shell("echo new >/tmp/which").set("/hooks", json!({}));
    world.run(&["start", "c"]).ok();
    assert!(wait_until(|| world.status("c") == "stopped"));
    std::fs::write(changed.dir.join("config.json"), "no longer JSON").expect("break it");
    world.run(&["delete", "c"]).ok();
    assert_eq!(std::fs::read_to_string(which).expect("it ran"), "old\n");
    assert_eq!(recorded(world), MOMENTS);
}
