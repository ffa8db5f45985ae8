//! Groups that systemd makes: `--systemd-cgroup`, as Docker, Podman and Kubernetes ask for it.

use std::os::unix::fs::chown;
use std::path::Path;

use serde_json::json;

use crate::bundle::Bundle;
use crate::call::{Ran, wait_until};
use crate::needs::Need;
use crate::world::World;
use crate::{Test, programs, test};

pub(super) fn tests() -> Vec<Test> {
    let systemd = |name, body: fn(&World)| test(name, body).needs(Need::Systemd);
    vec![
        systemd("life_cycle", life_cycle),
        systemd("the_group_is_the_containers_root", the_group_is_the_containers_root),
        systemd("update_is_kept", update_is_kept),
        systemd("run_leaves_nothing", run_leaves_nothing),
        systemd("a_failed_create_leaves_no_unit", a_failed_create_leaves_no_unit),
        systemd("a_unit_that_exists_is_refused", a_unit_that_exists_is_refused),
        systemd("stopped_by_systemd", stopped_by_systemd),
        systemd("user_namespace", user_namespace),
        systemd("ordinary_user", ordinary_user)
            .needs(Need::UserSessions)
            .needs(Need::UserNamespaces),
        test("form_of_the_path", form_of_the_path),
        test("not_there", not_there),
    ]
}

/// A bundle whose scope is of this test; gives the unit's name.
fn bundle(world: &World, name: &str) -> (Bundle, String) {
    let prefix = format!("minirun-test-{}", std::process::id());
    let test = world.dir.file_name().expect("a name").to_string_lossy().replace('.', "_");
    let path = format!("system.slice:{prefix}:{test}-{name}");
    let bundle = world.bundle(name).set("/linux/cgroupsPath", json!(path));
    (bundle.args(&["/bin/probe", "wait"]), format!("{prefix}-{test}-{name}.scope"))
}

fn systemctl(world: &World, arguments: &[&str]) -> String {
    world.program("/usr/bin/systemctl").args(arguments).run().output.trim().to_owned()
}

/// systemd removes a unit in its own time after it is empty.
fn is_gone(world: &World, unit: &str) -> bool {
    wait_until(|| systemctl(world, &["show", "-P", "LoadState", unit]) == "not-found")
}

fn sd(world: &World, arguments: &[&str]) -> Ran {
    world.run(&[&["--systemd-cgroup"], arguments].concat())
}

fn file_of(world: &World, id: &str, file: &str) -> String {
    let pid = world.state(id)["pid"].to_string();
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    let group = groups.trim().strip_prefix("0::").expect("version 2");
    let path = format!("/sys/fs/cgroup{group}/{file}");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.trim().to_owned()
}

fn life_cycle(world: &World) {
    let (bundle, unit) = bundle(world, "c");
    let bundle = bundle.set(
        "/linux/resources",
        json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 20},
               "cpu": {"quota": 50_000, "period": 100_000, "shares": 1024}}),
    );
    sd(world, &["create", "--bundle", bundle.path(), "c"]).ok();
    assert_eq!(world.status("c"), "created");
    let pid = world.state("c")["pid"].to_string();
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    assert_eq!(groups.trim(), format!("0::/system.slice/{unit}"));
    sd(world, &["start", "c"]).ok();
    assert_eq!(file_of(world, "c", "memory.max"), "67108864");
    assert_eq!(file_of(world, "c", "cpu.max"), "50000 100000");
    assert_eq!(systemctl(world, &["show", "-P", "MemoryMax", &unit]), "67108864");
    assert_eq!(systemctl(world, &["show", "-P", "TasksMax", &unit]), "20");
    // Podman's exec says nothing about systemd: the state knows.
    let ran = world.run(&["exec", "c", "cat", "/proc/self/cgroup"]).ok();
    assert_eq!(ran.output, "0::/\n");
    world.run(&["pause", "c"]).ok();
    assert_eq!(world.status("c"), "paused");
    world.run(&["resume", "c"]).ok();
    world.run(&["kill", "c", "KILL"]).ok();
    assert!(wait_until(|| world.status("c") == "stopped"));
    world.run(&["delete", "c"]).ok();
    assert!(is_gone(world, &unit), "{unit} is left");
    assert!(!Path::new("/sys/fs/cgroup/system.slice").join(&unit).exists());
}

fn the_group_is_the_containers_root(world: &World) {
    let (bundle, unit) = bundle(world, "c");
    let bundle = bundle
        .shell("cat /proc/self/cgroup; cat /sys/fs/cgroup/pids.max")
        .set("/linux/resources", json!({"pids": {"limit": 33}}));
    sd(world, &["run", "-b", bundle.path(), "c"]).ok().prints("0::/\n33\n");
    assert!(is_gone(world, &unit), "{unit} is left");
}

fn update_is_kept(world: &World) {
    let (bundle, unit) = bundle(world, "c");
    sd(world, &["run", "-d", "-b", bundle.path(), "c"]).ok();
    world.run(&["update", "--memory", "48m", "--cpu-quota", "20000", "c"]).ok();
    let limits = || (file_of(world, "c", "memory.max"), file_of(world, "c", "cpu.max"));
    assert_eq!(limits(), ("50331648".into(), "20000 100000".into()));
    systemctl(world, &["daemon-reload"]);
    systemctl(world, &["set-property", "--runtime", &unit, "CPUWeight=50"]);
    assert_eq!(limits(), ("50331648".into(), "20000 100000".into()));
    world.run(&["delete", "-f", "c"]).ok();
    assert!(is_gone(world, &unit), "{unit} is left");
}

fn run_leaves_nothing(world: &World) {
    let (bundle, unit) = bundle(world, "c");
    let bundle = bundle.args(&["/bin/probe", "exit", "7"]);
    sd(world, &["run", "-b", bundle.path(), "c"]).exits(7);
    assert!(is_gone(world, &unit), "{unit} is left");
}

fn a_failed_create_leaves_no_unit(world: &World) {
    let (bundle, unit) = bundle(world, "c");
    let bundle = bundle.args(&["/no/such/program"]);
    sd(world, &["create", "-b", bundle.path(), "c"]).fails("no such file or directory");
    assert!(is_gone(world, &unit), "{unit} is left");
    world.run(&["state", "c"]).fails("does not exist");
    // A limit that the kernel refuses comes after the unit.
    let bundle = bundle
        .args(&["true"])
        .set("/linux/resources", json!({"unified": {"memory.max": "nonsense"}}));
    sd(world, &["create", "-b", bundle.path(), "c"]).fails("memory.max");
    assert!(is_gone(world, &unit), "{unit} is left");
}

fn a_unit_that_exists_is_refused(world: &World) {
    let (first, unit) = bundle(world, "c");
    sd(world, &["run", "-d", "-b", first.path(), "c"]).ok();
    sd(world, &["run", "-d", "-b", first.path(), "other"]).exits(1).says(&unit);
    // The first one is none the worse for it.
    assert_eq!(world.status("c"), "running");
    world.run(&["state", "other"]).fails("does not exist");
    world.run(&["delete", "-f", "c"]).ok();
    assert!(is_gone(world, &unit), "{unit} is left");
}

fn stopped_by_systemd(world: &World) {
    let (bundle, unit) = bundle(world, "c");
    sd(world, &["run", "-d", "-b", bundle.path(), "c"]).ok();
    systemctl(world, &["kill", "--signal=KILL", &unit]);
    assert!(wait_until(|| world.status("c") == "stopped"));
    assert!(is_gone(world, &unit), "{unit} is left");
    world.run(&["delete", "c"]).ok();
}

fn user_namespace(world: &World) {
    let (bundle, unit) = bundle(world, "c");
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let bundle = bundle
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .set("/linux/namespaces/-", json!({"type": "user"}))
        .shell("id -u; cat /proc/self/cgroup");
    for path in ["", "tmp", "etc", "root", "bin"] {
        chown(bundle.rootfs(path), Some(100_000), Some(100_000)).expect("give it away");
    }
    sd(world, &["run", "-b", bundle.path(), "c"]).ok().prints("0\n0::/\n");
    assert!(is_gone(world, &unit), "{unit} is left");
}

/// Rootless Podman: the user's own systemd makes the scope.
fn ordinary_user(world: &World) {
    const USER: u32 = 1000;
    world.program("/usr/bin/systemctl").args(&["start", "user@1000"]).run().exits(0);
    let bundle = world.bundle("c");
    std::fs::create_dir_all(world.root()).expect("make the state root");
    for path in [world.root(), bundle.dir.clone()] {
        chown(path, Some(USER), Some(USER)).expect("give it away");
    }
    for dir in ["", "tmp", "etc", "root", "bin"] {
        chown(bundle.rootfs(dir), Some(USER), Some(USER)).expect("give it away");
    }
    std::fs::remove_file(bundle.dir.join("config.json")).expect("remove it");
    let call = |arguments: &[&str]| {
        let call = world.minirun(&[&["--systemd-cgroup"], arguments].concat());
        call.env("XDG_RUNTIME_DIR", "/run/user/1000").user(USER).run()
    };
    call(&["spec", "--bundle", bundle.path()]).ok();
    let text = std::fs::read(bundle.dir.join("config.json")).expect("it was written");
    let config = serde_json::from_slice(&text).expect("JSON");
    let bundle = Bundle { dir: bundle.dir, config }
        .set("/linux/cgroupsPath", json!("user.slice:libpod:rootless-test"))
        .set("/linux/resources", json!({"memory": {"limit": 64 << 20}}))
        .args(&["/bin/probe", "wait"]);
    call(&["run", "-d", "-b", bundle.path(), "c"]).ok();
    assert_eq!(file_of(world, "c", "memory.max"), "67108864");
    let pid = world.state("c")["pid"].to_string();
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    assert!(groups.trim().ends_with("user@1000.service/user.slice/libpod-rootless-test.scope"));
    call(&["delete", "-f", "c"]).ok();
    let programs = programs::find("systemctl").expect("it is there");
    let left = world
        .program(programs)
        .args(&["--user", "list-units", "--all", "--no-legend", "libpod-rootless-test.scope"])
        .env("XDG_RUNTIME_DIR", "/run/user/1000")
        .user(USER)
        .run();
    assert!(!left.output.contains("running"), "{}", left.output);
}

fn form_of_the_path(world: &World) {
    let bundle = world.bundle("c").args(&["true"]);
    for (path, words) in [
        ("/a/b", "`slice:prefix:name`"),
        ("a:b:c", "slice"),
        ("system.slice:x:y.slice", "no scope"),
        ("../x.slice:a:b", "slice"),
    ] {
        let bundle = Bundle { dir: bundle.dir.clone(), config: bundle.config.clone() }
            .set("/linux/cgroupsPath", json!(path));
        sd(world, &["run", "-b", bundle.path(), "c"]).exits(1).says(words);
    }
    world.run(&["state", "c"]).fails("does not exist");
}

fn not_there(world: &World) {
    if Need::Systemd.is_met() {
        let away = |call: crate::call::Call| {
            call.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus").run()
        };
        let (bundle, _) = bundle(world, "c");
        let call = world.minirun(&["--systemd-cgroup", "run", "-b", bundle.path(), "c"]);
        away(call).exits(1).says("is systemd running here");
    } else {
        let (bundle, _) = bundle(world, "c");
        sd(world, &["run", "-b", bundle.path(), "c"]).exits(1).says("ystemd");
    }
    world.run(&["state", "c"]).fails("does not exist");
}
