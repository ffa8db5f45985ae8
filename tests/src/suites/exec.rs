//! `minirun exec`: one more process in a container, in all that the container is in.

use serde_json::{Value, json};

use super::lifecycle::waiting;
use super::namespaces::mapped;
use crate::needs::Need;
use crate::world::World;
use crate::{Test, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("sees_the_container", sees_the_container),
        test("process_file", process_file),
        test("failures", failures),
        test("users_are_read_strictly", users_are_read_strictly),
        test("labels_in_a_user_namespace", labels_in_a_user_namespace).needs(Need::Root),
        test("in_a_group_below", in_a_group_below),
        test("group_that_the_container_divided", group_that_the_container_divided)
            .needs(Need::CgroupV2),
    ]
}

fn sees_the_container(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]).set("/process/cwd", json!("/tmp"));
    world.run(&["run", "-d", bundle.path()]).ok();
    let look = |more: &[&str]| -> Value {
        world.run(&[&["exec"], more, &["c", "/bin/probe", "look"]].concat()).ok().json()
    };
    let plain = look(&[]);
    assert_eq!(plain["cwd"], "/tmp", "{plain}");
    assert_eq!(plain["hostname"], "minirun");
    assert_eq!(plain["processes"].as_array().map(Vec::len), Some(2), "{}", plain["processes"]);
    let fds: Vec<_> = plain["descriptors"].as_object().expect("fds").keys().collect();
    assert_eq!(fds, ["0", "1", "2"], "{}", plain["descriptors"]);
    assert_eq!(plain["status"]["CapInh"], "0000000000000000");
    assert_eq!(plain["status"]["CapAmb"], "0000000000000000");
    assert_eq!(plain["status"]["NoNewPrivs"], "1");
    assert_eq!(plain["status"]["Seccomp"], "2");
    let changed = look(&["--cwd=/", "-e", "A=b", "-u", "5:6", "-g", "7", "--cap", "CAP_SYS_TIME"]);
    assert_eq!((&changed["cwd"], &changed["env"]["A"]), (&json!("/"), &json!("b")));
    assert_eq!((&changed["uid"], &changed["gid"]), (&json!(5), &json!(6)));
    assert_eq!(changed["groups"], json!([7]));
    assert_eq!(changed["status"]["CapInh"], "0000000000000000");
    let bounding = changed["status"]["CapBnd"].as_str().expect("a set");
    let bounding = u64::from_str_radix(bounding, 16).expect("hexadecimal");
    assert_ne!(bounding & 1 << 25, 0, "CAP_SYS_TIME was asked for");
    let pids = world.run(&["exec", "c", "sh", "-c", "cat /proc/self/cgroup"]).ok().output;
    assert!(pids.lines().all(|line| line.ends_with(":/")), "its own cgroups are the root: {pids}");
    world.run(&["exec", "c", "sh", "-c", "exit 9"]).exits(9);
    world.minirun(&["exec", "c", "cat"]).input_text("through").run().ok().prints("through");
    world.run(&["delete", "-f", "c"]).ok();
}

fn process_file(world: &World) {
    waiting(world, "c");
    let process = json!({
        "terminal": false, "cwd": "/root", "user": {"uid": 1, "gid": 2},
        "args": ["sh", "-c", "pwd; id -u; echo $X"], "env": ["PATH=/bin", "X=y"],
    });
    let file = world.path("process.json");
    std::fs::write(&file, process.to_string()).expect("write a file");
    let file = file.to_str().expect("UTF-8");
    world.run(&["exec", "--process", file, "c"]).ok().prints("/root\n1\ny\n");
    let pid_file = world.path("exec-pid");
    let pid_name = pid_file.to_str().expect("UTF-8");
    let process = json!({
        "cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["/bin/probe", "wait"], "env": ["A=b"],
    });
    std::fs::write(file, process.to_string()).expect("write a file");
    world.run(&["exec", "-d", "--pid-file", pid_name, "--process", file, "c"]).ok();
    let pid: i32 = std::fs::read_to_string(pid_file).expect("a pid file").parse().expect("a pid");
    let all = world.run(&["ps", "-f", "json", "c"]).ok().json();
    assert!(all.as_array().expect("pids").contains(&json!(pid)), "{pid} not in {all}");
    std::fs::write(file, "{\"args\": 7}").expect("write a file");
    world.run(&["exec", "--process", file, "c"]).exits(255).says("process.json");
    world.run(&["delete", "-f", "c"]).ok();
}

fn failures(world: &World) {
    waiting(world, "c");
    world.run(&["exec", "c", "nothing-here"]).exits(255).says("executable file not found in $PATH");
    world.run(&["exec", "c", "/etc"]).exits(255).says("is a directory: permission denied");
    world.run(&["exec", "c"]).exits(255).says("exec needs a command");
    world.run(&["exec", "--cwd", "/no/such", "c", "true"]).exits(255).says("/no/such");
    world.run(&["exec", "--cap", "CAP_NOPE", "c", "true"]).exits(255).says("unknown capability");
    world.run(&["exec", "-e", "NOVALUE", "c", "true"]).exits(255).says("not NAME=value");
    assert_eq!(world.status("c"), "running");
    world.run(&["delete", "-f", "c"]).ok();
}

/// A label is written to a file in /proc, and in a user namespace the kernel allows no second /proc
/// beside one of which parts are hidden. Docker asks for both when it maps users.
fn labels_in_a_user_namespace(world: &World) {
    let bundle = mapped(world, "c")
        .args(&["sleep", "1000"])
        .set("/linux/maskedPaths", json!(["/proc/keys", "/proc/sysrq-trigger"]));
    world.run(&["run", "-d", bundle.path()]).ok();
    let ran = world.run(&["exec", "--apparmor", "no-such-profile", "c", "true"]);
    assert!(ran.errors.contains("no-such-profile"), "{}", ran.errors);
    world.run(&["exec", "c", "id", "-u"]).ok().prints("0\n");
    world.run(&["delete", "-f", "c"]).ok();
}

fn users_are_read_strictly(world: &World) {
    waiting(world, "c");
    for user in ["1:", ":1", "-1", "4294967295", "4294967296", "0x1", " 1", "1:2:3", "root", ""] {
        let option = format!("--user={user}");
        world.run(&["exec", &option, "c", "id"]).exits(255).says("not a user or group number");
    }
    world.run(&["delete", "-f", "c"]).ok();
}

/// Where the group of a container is: in the tree of version 1 that has pids, or in version 2.
fn group_of(world: &World, id: &str) -> std::path::PathBuf {
    let v1 = format!("/sys/fs/cgroup/pids{}/{id}", world.cgroup);
    let v2 = format!("/sys/fs/cgroup{}/{id}", world.cgroup);
    let place = if Need::CgroupV2.is_met() { v2 } else { v1 };
    std::path::PathBuf::from(place)
}

fn in_a_group_below(world: &World) {
    waiting(world, "c");
    let group = group_of(world, "c");
    std::fs::create_dir_all(group.join("a/b")).expect("make groups");
    let prefix = if Need::CgroupV2.is_met() { "" } else { "pids:" };
    let exec = |path: &str, then: &str| {
        let option = format!("--cgroup={prefix}{path}");
        world.run(&["exec", &option, "c", "sh", "-c", then])
    };
    let look = "grep -e ^0:: -e :pids: /proc/self/cgroup";
    for path in ["a/b", "/a/b", "./a//b"] {
        let seen = exec(path, look).ok().output;
        assert!(seen.lines().any(|line| line.ends_with(":/a/b")), "{path}: {seen}");
    }
    // Nothing leads out: not up, not to a neighbour whose name begins the same.
    for path in ["..", "../c2", "a/../../x", "/../.."] {
        exec(path, "true").exits(255).says("leads out of the container's cgroup");
    }
    std::os::unix::fs::symlink("/", world.path("link")).expect("make a link");
    exec("nowhere", "true").exits(255).says("no such file or directory");
    world.run(&["exec", "--cgroup=moon:a", "c", "true"]).exits(255).says("moon");
    for below in ["a/b", "a"] {
        std::fs::remove_dir(group.join(below)).expect("it is empty");
    }
    world.run(&["delete", "-f", "c"]).ok();
}

/// What systemd in a container does: it moves itself into a leaf and gives controllers to leaves.
fn group_that_the_container_divided(world: &World) {
    waiting(world, "c");
    let group = group_of(world, "c");
    let pid = world.state("c")["pid"].to_string();
    std::fs::create_dir(group.join("init.scope")).expect("make a leaf");
    std::fs::write(group.join("init.scope/cgroup.procs"), &pid).expect("move its init");
    std::fs::write(group.join("cgroup.subtree_control"), "+memory").expect("divide it");
    let seen = world.run(&["exec", "c", "cat", "/proc/self/cgroup"]).ok().output;
    assert_eq!(seen, "0::/init.scope\n");
    world.run(&["delete", "-f", "c"]).ok();
}
