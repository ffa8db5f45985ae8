//! What engines ask for on the command line and then rely on: descriptors, words, numbers.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use super::lifecycle::waiting;
use super::terminal::receive;
use crate::call::{Ran, wait_until};
use crate::programs;
use crate::world::World;
use crate::{Test, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("pidfd_of_a_process", pidfd_of_a_process),
        test("without_pivot", without_pivot),
        test("flags_of_exec", flags_of_exec),
        test("exec_in_a_paused_container", exec_in_a_paused_container),
        test("options_in_the_forms_of_go", options_in_the_forms_of_go),
        test("questions_about_options", questions_about_options),
        test("words_that_engines_look_for", words_that_engines_look_for),
        test("a_container_that_has_ended", a_container_that_has_ended),
        test("features_have_every_section", features_have_every_section),
    ]
}

/// What comes over a `--pidfd-socket`: its word, and whose process the descriptor is.
fn process_from(listener: &UnixListener) -> (String, String) {
    let (word, pidfd) = receive(listener);
    let info = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let info = std::fs::read_to_string(info).expect("it is open");
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).expect("a pidfd");
    (word, pid.trim().to_owned())
}

fn pidfd_of_a_process(world: &World) {
    let path = world.path("socket");
    let listener = UnixListener::bind(&path).expect("listen");
    let socket = path.to_str().expect("UTF-8");
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    world.run(&["create", "-b", bundle.path(), "--pidfd-socket", socket, "c"]).ok();
    let pid = world.state("c")["pid"].to_string();
    assert_eq!(process_from(&listener), ("standard".into(), pid));
    world.run(&["start", "c"]).ok();
    let file = world.path("pid");
    let name = file.to_str().expect("UTF-8");
    let exec = ["exec", "-d", "--pid-file", name, "--pidfd-socket", socket, "c", "probe", "wait"];
    world.run(&exec).ok();
    let pid = std::fs::read_to_string(&file).expect("a pid file");
    assert_eq!(process_from(&listener), ("setns".into(), pid));
    world.run(&["delete", "-f", "c"]).ok();
    // Nobody listens: an error, and no container.
    drop(listener);
    let ran = world.run(&["create", "-b", bundle.path(), "--pidfd-socket", socket, "c"]);
    ran.fails("--pidfd-socket");
    world.run(&["state", "c"]).fails("does not exist");
}

/// For hosts whose root is an initramfs, which cannot be changed by pivot_root(2).
fn without_pivot(world: &World) {
    let bundle = world.bundle("c").shell("ls /; ls -d /../.. | wc -l; echo x >/tmp/made");
    let ran = world.run(&["run", "--no-pivot", bundle.path()]).ok();
    assert!(ran.output.contains("tmp\n") && !ran.output.contains("boot\n"), "{}", ran.output);
    assert!(bundle.rootfs("tmp/made").exists());
}

fn look(world: &World, flags: &[&str]) -> Value {
    world.run(&[&["exec"], flags, &["c", "/bin/probe", "look"]].concat()).ok().json()
}

fn flags_of_exec(world: &World) {
    let bundle = world
        .bundle("c")
        .args(&["/bin/probe", "wait"])
        .set("/process/noNewPrivileges", json!(false));
    world.run(&["run", "-d", bundle.path()]).ok();
    assert_eq!(look(world, &[])["status"]["NoNewPrivs"], "0");
    assert_eq!(look(world, &["--no-new-privs"])["status"]["NoNewPrivs"], "1");
    let groups = look(world, &["-u", "5:6", "-g", "7", "--additional-gids", "8"]);
    assert_eq!((&groups["gid"], &groups["groups"]), (&json!(6), &json!([7, 8])));
    assert_eq!(look(world, &["--env", "A=b", "-e", "C=d"])["env"]["C"], "d");
    // Descriptors beyond the three, and no others.
    let script = "exec 3</etc/hostname 4</dev/null 5</; exec \"$@\"";
    let (minirun, root) = (programs::minirun(), world.root());
    let ran = world
        .program("/bin/sh")
        .args(&["-c", script, "sh", minirun.to_str().expect("UTF-8")])
        .args(&["--root", root.to_str().expect("UTF-8"), "exec", "--preserve-fds", "1", "c"])
        .args(&["sh", "-c", "cat <&3; test -e /proc/self/fd/4 || echo closed"])
        .run();
    let name = std::fs::read_to_string("/etc/hostname").expect("a name");
    ran.ok().prints(&format!("{name}closed\n"));
    world.run(&["delete", "-f", "c"]).ok();
}

/// It is born into the frozen group, and runs when that is thawed.
fn exec_in_a_paused_container(world: &World) {
    waiting(world, "c");
    world.run(&["pause", "c"]).ok();
    let running = world.minirun(&["exec", "--ignore-paused", "c", "echo", "in"]).spawn();
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(running.is_alive(), "a process of a frozen group ran");
    world.run(&["resume", "c"]).ok();
    running.wait().ok().prints("in\n");
    world.run(&["delete", "-f", "c"]).ok();
}

/// One dash is enough, and a value may stand behind `=`.
fn options_in_the_forms_of_go(world: &World) {
    let bundle = world.bundle("c").args(&["echo", "-detach"]);
    let path = format!("-bundle={}", bundle.path());
    world.run(&["run", "-no-subreaper", &path, "c"]).ok().prints("-detach\n");
    world.run(&["run", "-b", bundle.path(), "-preserve-fds=0", "c"]).ok();
    world.run(&["list", "-format=json"]).ok().prints("[]\n");
}

/// How Podman and CRI-O find out what a runtime can do.
fn questions_about_options(world: &World) {
    for verb in ["checkpoint", "restore", "create", "exec"] {
        let ran = world.run(&[verb, "--help"]).exits(0);
        assert!(ran.output.contains("Usage"), "{verb}: {ran:?}");
    }
    let ran = world.run(&["restore", "--lsm-mount-context"]);
    assert_ne!(ran.status, 0);
    ran.says("flag needs an argument");
}

/// containerd, Docker, Podman and CRI-O tell failures apart by such parts of the text.
fn words_that_engines_look_for(world: &World) {
    let failing = |ran: Ran, words: &[&str]| {
        assert_ne!(ran.status, 0, "{ran:?}");
        for word in words {
            assert!(ran.errors.contains(word), "{word:?}: {}", ran.errors);
        }
    };
    let program = |name: &str| {
        let bundle = world.bundle(name).file("/plain", "x", 0o644);
        let bundle = bundle.args(&[if name == "plain" { "/plain" } else { name }]);
        world.run(&["create", "-b", bundle.path(), "c"])
    };
    // Status 127 and 126 of Docker, by the text of the errno; Podman's two expressions.
    failing(program("nowhere"), &["executable file not found in $PATH", "no such file"]);
    failing(program("plain"), &["permission denied"]);
    waiting(world, "c");
    failing(world.run(&["exec", "c", "nowhere"]), &["executable file not found in $PATH"]);
    // A label that cannot be written: Podman looks for the file between back-ticks.
    let label = world.run(&["exec", "--process-label", "a:b:c:s0", "c", "true"]);
    if label.status != 0 {
        failing(label, &["`/proc/self/attr/exec`"]);
    }
    failing(world.run(&["kill", "gone", "9"]), &["does not exist"]);
    failing(world.run(&["delete", "gone"]), &["does not exist"]);
    failing(world.run(&["delete", "c"]), &["that is not stopped: running"]);
    world.run(&["kill", "--all", "c", "KILL"]).ok();
    assert!(wait_until(|| world.status("c") == "stopped"));
    failing(world.run(&["kill", "c", "15"]), &["container not running"]);
    world.run(&["delete", "--force", "c"]).ok();
}

/// It has no process any more, and nobody may be told a number that belongs to another by now.
fn a_container_that_has_ended(world: &World) {
    let bundle = world.bundle("c").args(&["true"]);
    world.run(&["run", "--keep", bundle.path()]).ok();
    let state = world.state("c");
    assert_eq!((&state["status"], &state["pid"]), (&json!("stopped"), &json!(0)));
    assert_eq!(world.run(&["list", "-f", "json"]).ok().json()[0]["pid"], 0);
    world.run(&["ps", "-f", "json", "c"]).ok().prints("[]");
    world.run(&["delete", "c"]).ok();
}

/// features.md and features-linux.md of runtime-spec 1.3.0.
fn features_have_every_section(world: &World) {
    let features = world.run(&["features"]).ok().json();
    for pointer in [
        "/ociVersionMin",
        "/ociVersionMax",
        "/hooks/5",
        "/mountOptions/59",
        "/annotations",
        "/potentiallyUnsafeConfigAnnotations",
        "/linux/namespaces/7",
        "/linux/capabilities/40",
        "/linux/cgroup/v1",
        "/linux/cgroup/v2",
        "/linux/cgroup/systemd",
        "/linux/cgroup/systemdUser",
        "/linux/cgroup/rdma",
        "/linux/seccomp/enabled",
        "/linux/seccomp/actions/7",
        "/linux/seccomp/operators/6",
        "/linux/seccomp/archs",
        "/linux/seccomp/knownFlags/3",
        "/linux/seccomp/supportedFlags",
        "/linux/apparmor/enabled",
        "/linux/selinux/enabled",
        "/linux/intelRdt/enabled",
        "/linux/intelRdt/schemata",
        "/linux/intelRdt/monitoring",
        "/linux/memoryPolicy/modes/6",
        "/linux/memoryPolicy/flags/2",
        "/linux/mountExtensions/idmap/enabled",
        "/linux/netDevices/enabled",
    ] {
        assert!(features.pointer(pointer).is_some_and(|value| !value.is_null()), "{pointer}");
    }
}
