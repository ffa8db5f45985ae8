//! `kill -9` of minirun at every one of its system calls.
//!
//! strace(1) kills the program at its nth call. Whatever n is: `delete --force` afterwards leaves
//! nothing, and a container in the foreground is dead before that. By default as many calls are
//! tried as fit into a time, spread evenly; with `MINIRUN_TESTS_ALL=1`, all of them.

use std::collections::BTreeMap;
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
        crash("run_with_init", run_with_init),
        crash("run_detached", run_detached),
        crash("create", create),
        crash("start", start),
        crash("exec", exec),
        crash("exec_with_its_processes", exec_with_its_processes),
        crash("kill", kill),
        crash("delete", delete),
        crash("overlay", overlay),
        crash("update", update),
        crash("pause", pause),
        crash("resume", resume),
        crash("mounts_add", mounts_add),
        crash("mounts_remove", mounts_remove),
        crash("checkpoint", checkpoint).needs(Need::Criu),
        crash("restore", restore).needs(Need::Criu),
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
    /// Whether every process that comes of it is killed at its own nth call.
    follow: bool,
}

impl<'a> Scene<'a> {
    /// A command, about the container `c`, after which nothing is looked at but what is left.
    fn of(world: &'a World, call: Vec<&'a str>) -> Self {
        Self { world, id: "c", call, before: &|| {}, after: &|_| {}, follow: false }
    }
}

impl Scene<'_> {
    /// How many system calls the whole of it makes.
    fn length(&self) -> usize {
        (self.before)();
        let log = self.world.path("strace");
        let options = ["-qq", "-o", log.to_str().expect("UTF-8")];
        let ran = traced(self.world, &[&options[..], self.following()].concat(), &self.call).run();
        assert_eq!(ran.status, 0, "without a crash: {ran:?}");
        self.world.run(&["delete", "--force", self.id]).ok();
        let text = std::fs::read_to_string(log).expect("a trace");
        let calls = text.lines().filter(|line| line.contains('('));
        if !self.follow {
            return calls.count();
        }
        // Each line begins with the number of its process, and strace counts for each.
        let mut of_process: BTreeMap<&str, usize> = BTreeMap::new();
        for line in calls.filter(|line| !line.contains(" resumed>")) {
            *of_process.entry(line.split(' ').next().unwrap_or_default()).or_default() += 1;
        }
        of_process.into_values().max().unwrap_or(0)
    }

    fn following(&self) -> &'static [&'static str] {
        if self.follow { &["-f"] } else { &[] }
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
            let options = ["-qq", "-o", "/dev/null", "-e", &inject];
            let ran =
                traced(self.world, &[&options[..], self.following()].concat(), &self.call).run();
            // strace ends as its program did; that one fails when what it made was killed.
            let is_told = self.follow && (1..=255).contains(&ran.status);
            assert!(is_told || [1009, 137, 0].contains(&ran.status), "{number}: {ran:?}");
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

fn waiting(world: &World) -> Bundle {
    world.bundle("c").args(&["/bin/probe", "wait"])
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
    Scene { after: &after, ..Scene::of(world, call) }.play();
}

/// Init is killed as well, at its own nth call; its creator is killed at the same number, or has
/// to clean up after it.
fn run_with_init(world: &World) {
    let bundle = small(world);
    let after = |number| {
        assert!(wait_until(|| is_dead(world)), "call {number}: the container outlived minirun");
    };
    let call = vec!["run", bundle.path()];
    Scene { after: &after, follow: true, ..Scene::of(world, call) }.play();
}

fn run_detached(world: &World) {
    let bundle = waiting(world);
    let call = vec!["run", "-d", bundle.path()];
    Scene::of(world, call).play();
}

fn create(world: &World) {
    let bundle = small(world);
    let pid = world.path("pid");
    let call = vec!["create", "-b", bundle.path(), "--pid-file", pid.to_str().expect("UTF-8"), "c"];
    Scene::of(world, call).play();
}

fn start(world: &World) {
    let bundle = waiting(world);
    let before = || drop(world.run(&["create", "-b", bundle.path(), "c"]).ok());
    // Started or not: it can be asked, and it is not stuck in between.
    let after = |number| {
        let sure = || ["created", "running", "stopped"].contains(&world.status("c").as_str());
        assert!(wait_until(sure), "call {number}: {}", world.status("c"));
    };
    let call = vec!["start", "c"];
    Scene { before: &before, after: &after, ..Scene::of(world, call) }.play();
}

fn exec(world: &World) {
    exec_killed(world, false);
}

/// The process in between and the one that becomes the program are killed as well.
fn exec_with_its_processes(world: &World) {
    exec_killed(world, true);
}

fn exec_killed(world: &World, follow: bool) {
    let bundle = waiting(world);
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
    Scene { before: &before, after: &after, follow, ..Scene::of(world, call) }.play();
}

fn kill(world: &World) {
    let bundle = waiting(world);
    let before = || drop(world.run(&["run", "-d", bundle.path()]).ok());
    let after = |number| {
        let sure = || ["running", "stopped"].contains(&world.status("c").as_str());
        assert!(wait_until(sure), "call {number}: {}", world.status("c"));
    };
    let call = vec!["kill", "c", "KILL"];
    Scene { before: &before, after: &after, ..Scene::of(world, call) }.play();
}

fn delete(world: &World) {
    let bundle = waiting(world);
    let before = || drop(world.run(&["run", "-d", bundle.path()]).ok());
    let call = vec!["delete", "--force", "c"];
    Scene { before: &before, ..Scene::of(world, call) }.play();
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
    Scene::of(world, call).play();
}

fn update(world: &World) {
    let bundle = waiting(world);
    let before = || drop(world.run(&["run", "-d", bundle.path()]).ok());
    // Half of an update can be done again.
    let after = |_| drop(world.run(&["update", "--memory", "64m", "--pids-limit", "9", "c"]).ok());
    let call = vec!["update", "--memory", "64m", "--pids-limit", "9", "c"];
    Scene { before: &before, after: &after, ..Scene::of(world, call) }.play();
}

fn pause(world: &World) {
    let bundle = waiting(world);
    let before = || drop(world.run(&["run", "-d", bundle.path()]).ok());
    let after = |number| {
        let sure = || ["paused", "running"].contains(&world.status("c").as_str());
        assert!(wait_until(sure), "call {number}: {}", world.status("c"));
    };
    let call = vec!["pause", "c"];
    Scene { before: &before, after: &after, ..Scene::of(world, call) }.play();
}

fn resume(world: &World) {
    let bundle = waiting(world);
    let before = || {
        world.run(&["run", "-d", bundle.path()]).ok();
        world.run(&["pause", "c"]).ok();
    };
    let after = |number| {
        let sure = || ["paused", "running"].contains(&world.status("c").as_str());
        assert!(wait_until(sure), "call {number}: {}", world.status("c"));
    };
    let call = vec!["resume", "c"];
    Scene { before: &before, after: &after, ..Scene::of(world, call) }.play();
}

fn mounts_add(world: &World) {
    mounts(world, "add");
}

fn mounts_remove(world: &World) {
    mounts(world, "remove");
}

fn mounts(world: &World, verb: &str) {
    let bundle = waiting(world);
    let list = serde_json::json!([{"destination": "/tmp", "type": "tmpfs", "source": "t"}]);
    let file = world.path("mounts.json");
    std::fs::write(&file, list.to_string()).expect("write it");
    let file = file.to_str().expect("UTF-8");
    let before = || {
        world.run(&["run", "-d", bundle.path()]).ok();
        if verb == "remove" {
            world.run(&["mounts", "add", "c", file]).ok();
        }
    };
    let after = |number| {
        assert_eq!(world.status("c"), "running", "call {number}: it took the container along");
    };
    let call = vec!["mounts", verb, "c", file];
    Scene { before: &before, after: &after, ..Scene::of(world, call) }.play();
}

/// Where the images go is swept each time: a checkpoint that was cut short is none.
fn checkpoint(world: &World) {
    let bundle = without_streams(world);
    let images = world.path("images");
    let before = || {
        drop(std::fs::remove_dir_all(&images));
        world.run(&["run", "-d", bundle.path()]).ok();
    };
    // It goes on, or CRIU (a process of its own) came to its end all the same.
    let after = |number| {
        let known = || {
            let state = world.run(&["state", "c"]);
            state.status != 0 || state.json()["status"] != "creating"
        };
        assert!(wait_until(known), "call {number}: {}", world.status("c"));
    };
    let call = vec!["checkpoint", "--image-path", images.to_str().expect("UTF-8"), "c"];
    Scene { before: &before, after: &after, ..Scene::of(world, call) }.play();
}

fn restore(world: &World) {
    let bundle = without_streams(world);
    let images = world.path("images");
    let images = images.to_str().expect("UTF-8");
    world.run(&["run", "-d", bundle.path()]).ok();
    world.run(&["checkpoint", "--image-path", images, "c"]).ok();
    let call = vec!["restore", "-d", "-b", bundle.path(), "--image-path", images, "c"];
    Scene::of(world, call).play();
}

/// CRIU asks where the files of standard streams have come from.
fn without_streams(world: &World) -> Bundle {
    world.bundle("c").shell("exec >/dev/null 2>&1 </dev/null; while :; do sleep 1; done")
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
    Scene::of(world, call).play();
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
    Scene { before: &before, ..Scene::of(world, call) }.play();
    assert!(wait_until(is_gone), "{unit} is left");
}
