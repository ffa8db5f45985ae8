//! System calls that an agent decides about: the filter's listener, handed over with the state.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use super::terminal::receive;
use crate::bundle::Bundle;
use crate::world::World;
use crate::{Test, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("create_and_start", create_and_start),
        test("run_and_exec", run_and_exec),
        test("without_no_new_privileges", without_no_new_privileges),
        test("nobody_listens", nobody_listens),
        test("profiles_that_cannot_be", profiles_that_cannot_be),
        test("explain", explain),
        test("killed_by_its_filter", killed_by_its_filter),
    ]
}

/// A bundle in which an agent decides about mkdir.
fn bundle(world: &World, socket: &str, script: &str) -> Bundle {
    world.bundle("c").shell(script).set("/annotations", json!({"a": "b"})).set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket,
            "listenerMetadata": "for the agent",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]}),
    )
}

fn agent(world: &World) -> (UnixListener, String) {
    let path = world.path("agent");
    let listener = UnixListener::bind(&path).expect("listen");
    (listener, path.to_str().expect("UTF-8").to_owned())
}

const SCRIPT: &str = "mkdir /tmp/x 2>/tmp/said; echo done >>/tmp/said";

/// What the agent is told; it decides nothing and goes away, so that the call does not exist.
fn take(listener: &UnixListener) -> Value {
    let (text, fd) = receive(listener);
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).expect("a link");
    assert_eq!(link.to_string_lossy(), "anon_inode:seccomp notify");
    serde_json::from_str(&text).expect("JSON")
}

fn create_and_start(world: &World) {
    let (listener, socket) = agent(world);
    let bundle = bundle(world, &socket, SCRIPT);
    world.run(&["create", "-b", bundle.path(), "c"]).ok();
    let starting = world.minirun(&["start", "c"]).spawn();
    let told = take(&listener);
    starting.wait().ok();
    assert_eq!(told["fds"], json!(["seccompFd"]));
    assert_eq!(told["metadata"], "for the agent");
    assert_eq!(told["ociVersion"], told["state"]["ociVersion"]);
    assert_eq!(told["pid"], told["state"]["pid"]);
    assert_eq!(
        (&told["state"]["id"], &told["state"]["annotations"]["a"]),
        (&json!("c"), &json!("b"))
    );
    assert!(crate::call::wait_until(|| world.status("c") == "stopped"));
    let said = std::fs::read_to_string(bundle.rootfs("tmp/said")).expect("it ran");
    assert!(said.contains("Function not implemented") && said.ends_with("done\n"), "{said}");
    world.run(&["delete", "c"]).ok();
}

fn run_and_exec(world: &World) {
    let (listener, socket) = agent(world);
    let bundle = bundle(world, &socket, "exec probe wait");
    let running = world.minirun(&["run", "-d", bundle.path()]).spawn();
    let first = take(&listener);
    running.wait().ok();
    assert_eq!(first["pid"], world.state("c")["pid"]);
    let executing = world.minirun(&["exec", "c", "sh", "-c", "mkdir /tmp/y; echo no"]).spawn();
    let second = take(&listener);
    assert_ne!(second["pid"], first["pid"]);
    assert_eq!(second["state"]["pid"], first["pid"]);
    executing.wait().exits(0).prints("no\n").says("Function not implemented");
    world.run(&["delete", "-f", "c"]).ok();
}

fn without_no_new_privileges(world: &World) {
    let (listener, socket) = agent(world);
    let bundle = bundle(world, &socket, SCRIPT).set("/process/noNewPrivileges", json!(false));
    let running = world.minirun(&["run", bundle.path()]).spawn();
    take(&listener);
    running.wait().ok();
}

fn nobody_listens(world: &World) {
    let socket = world.path("nobody");
    let bundle = bundle(world, socket.to_str().expect("UTF-8"), "touch /tmp/ran");
    world.run(&["run", bundle.path()]).fails("nobody").says("listenerPath");
    world.run(&["create", "-b", bundle.path(), "c"]).ok();
    world.run(&["start", "c"]).fails("nobody");
    assert!(crate::call::wait_until(|| world.status("c") == "stopped"));
    world.run(&["delete", "c"]).ok();
    assert!(!bundle.rootfs("tmp/ran").exists(), "it ran without its agent");
}

fn profiles_that_cannot_be(world: &World) {
    let (_listener, socket) = agent(world);
    let bundle = bundle(world, &socket, "true")
        .set("/linux/seccomp/syscalls", json!([{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]));
    world.run(&["run", bundle.path()]).fails("read must be allowed");
    let bundle = bundle.unset("/linux/seccomp/listenerPath");
    world.run(&["run", bundle.path()]).exits(1).says("linux.seccomp");
}

/// Which rule decides, without a container.
fn explain(world: &World) {
    let bundle = bundle(world, "/agent", "true");
    let config = bundle.dir.join("config.json");
    let config = config.to_str().expect("UTF-8");
    let told = |call: &[&str]| world.run(&[&["explain", "--seccomp", config], call].concat());
    assert!(told(&["mkdir"]).ok().output.contains("syscalls[0] says so"));
    assert!(told(&["open"]).ok().output.contains("defaultAction decides"));
    let profile = world.path("profile.json");
    let rules = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["personality"],
        "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]}]});
    std::fs::write(&profile, rules.to_string()).expect("write it");
    let alone = |argument: &str| {
        let name = profile.to_str().expect("UTF-8");
        world.run(&["explain", "--seccomp", name, "personality", argument]).ok().output
    };
    assert!(alone("8").contains("where arg0 == 0x8"), "{}", alone("8"));
    assert!(alone("0x9").contains("no rule holds"), "{}", alone("9"));
    told(&["frobnicate"]).fails("frobnicate");
    world.run(&["explain", "mkdir"]).exits(1).says("--seccomp");
}

fn killed_by_its_filter(world: &World) {
    let bundle = world.bundle("c").shell("exec mkdir /tmp/x").set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}]}),
    );
    let records = || {
        let log = world.program("/bin/dmesg").run().output;
        log.lines().filter(|line| line.contains("type=1326") && line.contains("mkdir")).count()
    };
    let before = records();
    let ran = world.run(&["run", bundle.path()]).exits(128 + 31);
    let words = "container c was killed: its seccomp profile forbids ";
    assert!(ran.errors.contains(words), "{}", ran.errors);
    // The kernel has told the call where it writes such things down at all.
    let known = records() > before;
    assert!(!known || ran.errors.contains("the system call mkdir"), "{}", ran.errors);
    // Killed by somebody else is not the filter's doing.
    let bundle = bundle.shell("exit 137");
    let ran = world.run(&["run", bundle.path()]).exits(137);
    assert!(!ran.errors.contains("seccomp"), "{}", ran.errors);
}
