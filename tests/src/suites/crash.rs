//! `kill -9` of minirun at every one of its system calls.
//!
//! strace(1) kills the program at its nth call. Whatever n is: `delete --force` afterwards leaves
//! nothing, and a container in the foreground is dead before that. By default as many calls are
//! tried as fit into a time, spread evenly; with `MINIRUN_TESTS_ALL=1`, all of them.

use std::time::{Duration, Instant};

use crate::bundle::Bundle;
use crate::call::{Call, length_of_loop, wait_until};
use crate::needs::Need;
use crate::world::World;
use crate::{Test, leaks, programs, test};

/// How long the calls of one verb are tried.
const LENGTH: Duration = Duration::from_secs(25);

pub(super) fn tests() -> Vec<Test> {
    let crash = |name, body: fn(&World)| test(name, body).needs(Need::Program("strace"));
    vec![
        crash("run", run),
        crash("run_detached", run_detached),
        crash("create", create),
        crash("start", start),
        crash("exec", exec),
        crash("delete", delete),
        crash("overlay", overlay),
        crash("update", update),
        crash("pause", pause),
        crash("mounts", mounts),
        crash("user_namespace", user_namespace),
        crash("under_systemd", under_systemd).needs(Need::Systemd),
    ]
}

/// minirun under strace, with these options.
fn traced(world: &World, options: &[&str], arguments: &[&str]) -> Call {
    let (minirun, root) = (programs::minirun(), world.root());
    world
        .program(programs::find("strace").expect("strace"))
        .args(options)
        .args(&[minirun.to_str().expect("UTF-8"), "--root", root.to_str().expect("UTF-8")])
        .args(arguments)
}

/// What to do around one crash.
struct Scene<'a> {
    world: &'a World,
    id: &'a str,
    call: Vec<&'a str>,
    before: &'a dyn Fn(),
    after: &'a dyn Fn(usize),
}

impl Scene<'_> {
    /// How many system calls the whole of it makes.
    fn length(&self) -> usize {
        (self.before)();
        let log = self.world.path("strace");
        let options = ["-qq", "-o", log.to_str().expect("UTF-8")];
        let ran = traced(self.world, &options, &self.call).run();
        assert_eq!(ran.status, 0, "without a crash: {ran:?}");
        self.world.run(&["delete", "--force", self.id]).ok();
        let text = std::fs::read_to_string(log).expect("a trace");
        text.lines().filter(|line| line.contains('(')).count()
    }

    fn play(&self) {
        let length = self.length();
        let all = std::env::var_os("MINIRUN_TESTS_ALL").is_some();
        let begun = Instant::now();
        let mut tried = 0;
        for number in spread(length) {
            if !all && tried >= 8 && begun.elapsed() > length_of_loop(LENGTH) {
                break;
            }
            (self.before)();
            let inject = format!("inject=all:signal=KILL:when={number}");
            let ran =
                traced(self.world, &["-qq", "-o", "/dev/null", "-e", &inject], &self.call).run();
            // strace ends as its program did.
            assert!(
                ran.status == 1009 || ran.status == 137 || ran.status == 0,
                "{number}: {ran:?}"
            );
            (self.after)(number);
            let ran = self.world.run(&["delete", "--force", self.id]);
            assert_eq!(ran.status, 0, "call {number} of {length}: delete --force: {}", ran.errors);
            let left = self.world.what_is_left();
            assert!(left.is_empty(), "call {number} of {length}: left behind: {left:?}");
            tried += 1;
        }
        eprintln!("crash: {:?}: killed at {tried} of {length} system calls", self.call);
    }
}

/// The numbers 1 to `length`, those first that halve the largest gap.
pub(super) fn spread(length: usize) -> Vec<usize> {
    let bits = usize::BITS - length.leading_zeros();
    let reversed = (0..1_usize << bits).map(|n| n.reverse_bits() >> (usize::BITS - bits));
    reversed.map(|n| n + 1).filter(|n| *n <= length).collect()
}

/// Whether nothing of the container runs any more.
fn is_dead(world: &World) -> bool {
    leaks::processes(&world.dir, &world.cgroup).is_empty()
}

fn small(world: &World) -> Bundle {
    world.bundle("c").args(&["/bin/probe", "exit", "0"])
}

fn run(world: &World) {
    let bundle = small(world);
    let after = |number| {
        assert!(wait_until(|| is_dead(world)), "call {number}: the container outlived minirun");
    };
    let call = vec!["run", bundle.path()];
    Scene { world, id: "c", call, before: &|| {}, after: &after }.play();
}

fn run_detached(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    let call = vec!["run", "-d", bundle.path()];
    Scene { world, id: "c", call, before: &|| {}, after: &|_| {} }.play();
}

fn create(world: &World) {
    let bundle = small(world);
    let pid = world.path("pid");
    let call = vec!["create", "-b", bundle.path(), "--pid-file", pid.to_str().expect("UTF-8"), "c"];
    Scene { world, id: "c", call, before: &|| {}, after: &|_| {} }.play();
}

fn start(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    let before = || drop(world.run(&["create", "-b", bundle.path(), "c"]).ok());
    // Started or not: it can be asked, and it is not stuck in between.
    let after = |number| {
        let sure = || ["created", "running", "stopped"].contains(&world.status("c").as_str());
        assert!(wait_until(sure), "call {number}: {}", world.status("c"));
    };
    Scene { world, id: "c", call: vec!["start", "c"], before: &before, after: &after }.play();
}

fn exec(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    let before = || drop(world.run(&["run", "-d", bundle.path()]).ok());
    let after = |number| {
        let alone = || {
            let all = world.run(&["ps", "-f", "json", "c"]).ok().json();
            all.as_array().map(Vec::len) == Some(1)
        };
        assert!(wait_until(alone), "call {number}: the process outlived its exec");
        assert_eq!(world.status("c"), "running", "call {number}: exec took the container along");
    };
    let call = vec!["exec", "c", "/bin/probe", "exit", "0"];
    Scene { world, id: "c", call, before: &before, after: &after }.play();
}

fn delete(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    let before = || drop(world.run(&["run", "-d", bundle.path()]).ok());
    let call = vec!["delete", "--force", "c"];
    Scene { world, id: "c", call, before: &before, after: &|_| {} }.play();
}

/// With a writable layer, which is a directory in the bundle.
fn overlay(world: &World) {
    let bundle = small(world);
    let layer = world.path("layer");
    std::fs::rename(bundle.rootfs(""), &layer).expect("make it a layer");
    std::fs::create_dir(bundle.rootfs("")).expect("the mount point");
    let layers = serde_json::json!([layer]).to_string();
    let bundle =
        bundle.set("/annotations", serde_json::json!({"org.minirun.overlay.lowerdirs": layers}));
    let call = vec!["run", bundle.path()];
    Scene { world, id: "c", call, before: &|| {}, after: &|_| {} }.play();
}

fn update(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    let before = || drop(world.run(&["run", "-d", bundle.path()]).ok());
    // Half of an update can be done again.
    let after = |_| drop(world.run(&["update", "--memory", "64m", "--pids-limit", "9", "c"]).ok());
    let call = vec!["update", "--memory", "64m", "--pids-limit", "9", "c"];
    Scene { world, id: "c", call, before: &before, after: &after }.play();
}

fn pause(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    let before = || drop(world.run(&["run", "-d", bundle.path()]).ok());
    let after = |number| {
        let sure = || ["paused", "running"].contains(&world.status("c").as_str());
        assert!(wait_until(sure), "call {number}: {}", world.status("c"));
    };
    Scene { world, id: "c", call: vec!["pause", "c"], before: &before, after: &after }.play();
}

fn mounts(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    let list = serde_json::json!([{"destination": "/tmp", "type": "tmpfs", "source": "t"}]);
    let file = world.path("mounts.json");
    std::fs::write(&file, list.to_string()).expect("write it");
    let before = || drop(world.run(&["run", "-d", bundle.path()]).ok());
    let after = |number| {
        assert_eq!(world.status("c"), "running", "call {number}: it took the container along");
    };
    let call = vec!["mounts", "add", "c", file.to_str().expect("UTF-8")];
    Scene { world, id: "c", call, before: &before, after: &after }.play();
}

/// With all that is made for it: maps, a namespace for an idmapped mount.
fn user_namespace(world: &World) {
    let map = serde_json::json!([{"containerID": 0, "hostID": 0, "size": 65_536}]);
    let mount = serde_json::json!({"destination": "/v", "type": "bind", "source": "/etc",
        "options": ["rbind", "idmap"]});
    let bundle = small(world)
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .set("/linux/namespaces/-", serde_json::json!({"type": "user"}))
        .set("/mounts/-", mount);
    let call = vec!["create", "-b", bundle.path(), "c"];
    Scene { world, id: "c", call, before: &|| {}, after: &|_| {} }.play();
}

/// The unit is systemd's: it goes when its processes have gone.
fn under_systemd(world: &World) {
    let path = format!("system.slice:minirun-crash:{}", std::process::id());
    let bundle = small(world).set("/linux/cgroupsPath", path.clone().into());
    let unit = format!("minirun-crash-{}.scope", std::process::id());
    let is_gone = || {
        let shown =
            world.program("/usr/bin/systemctl").args(&["show", "-P", "LoadState", &unit]).run();
        shown.output.trim() == "not-found"
    };
    let before = || assert!(wait_until(is_gone), "{unit} is left");
    let call = vec!["--systemd-cgroup", "create", "-b", bundle.path(), "c"];
    Scene { world, id: "c", call, before: &before, after: &|_| {} }.play();
    assert!(wait_until(is_gone), "{unit} is left");
}
