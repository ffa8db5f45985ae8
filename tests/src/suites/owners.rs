//! Whose things are: idmapped mounts, user namespaces that exist, cgroups that are given away.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::needs::Need;
use crate::world::World;
use crate::{Test, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("idmapped_mount_with_its_own_map", idmapped_mount_with_its_own_map)
            .needs(Need::IdmappedFiles),
        test("idmapped_mount_of_the_container", idmapped_mount_of_the_container)
            .needs(Need::IdmappedFiles),
        test("ridmap_reaches_below", ridmap_reaches_below).needs(Need::IdmappedFiles),
        test("idmap_that_cannot_be", idmap_that_cannot_be),
        test("user_namespace_that_exists", user_namespace_that_exists).needs(Need::IdmappedFiles),
        test("pod_of_namespaces", pod_of_namespaces),
        test("groups_of_a_user_namespace", groups_of_a_user_namespace).needs(Need::CgroupV2),
    ]
}

const OUTSIDE: u32 = 300_000;

fn map() -> Value {
    json!([{"containerID": 0, "hostID": OUTSIDE, "size": 65_536}])
}

/// A bundle whose root is somebody else outside.
fn with_user_namespace(world: &World, name: &str) -> Bundle {
    let bundle = world
        .bundle(name)
        .set("/linux/uidMappings", map())
        .set("/linux/gidMappings", map())
        .set("/linux/namespaces/-", json!({"type": "user"}));
    for path in ["", "tmp", "etc", "root", "bin"] {
        chown(bundle.rootfs(path), Some(OUTSIDE), Some(OUTSIDE)).expect("give it away");
    }
    bundle
}

/// A directory of the host with a file of user 5, group 6.
fn volume(world: &World, name: &str) -> String {
    let dir = world.path(name);
    std::fs::create_dir(&dir).expect("make a directory");
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).expect("open it");
    std::fs::write(dir.join("file"), "x").expect("write a file");
    chown(dir.join("file"), Some(5), Some(6)).expect("give it away");
    dir.to_str().expect("UTF-8").to_owned()
}

fn add(bundle: Bundle, source: &str, option: &str, users: Option<Value>) -> Bundle {
    let mut mount = json!({"destination": "/v", "type": "bind", "source": source,
        "options": ["rbind", option]});
    if let Some(users) = users {
        mount["uidMappings"] = users.clone();
        mount["gidMappings"] = users;
    }
    bundle.set("/mounts/-", mount)
}

fn idmapped_mount_with_its_own_map(world: &World) {
    let volume = volume(world, "volume");
    let users = json!([{"containerID": 0, "hostID": 1000, "size": 100}]);
    for option in ["idmap", "ro"] {
        let bundle = add(world.bundle(option), &volume, option, Some(users.clone()));
        let bundle = bundle.shell("stat -c '%u %g' /v/file");
        world.run(&["run", bundle.path()]).ok().prints("1005 1006\n");
    }
    // What is written goes through the same map, the other way round.
    let bundle = add(world.bundle("write"), &volume, "idmap", Some(users))
        .shell("touch /v/new")
        .set("/process/user", json!({"uid": 1007, "gid": 1008}));
    world.run(&["run", bundle.path()]).ok();
    let new = std::fs::metadata(format!("{volume}/new")).expect("it was made");
    assert_eq!((new.uid(), new.gid()), (7, 8));
    // Nothing changes outside.
    let file = std::fs::metadata(format!("{volume}/file")).expect("it is there");
    assert_eq!((file.uid(), file.gid()), (5, 6));
}

fn idmapped_mount_of_the_container(world: &World) {
    let volume = volume(world, "volume");
    let bundle = add(with_user_namespace(world, "c"), &volume, "idmap", None)
        .shell("stat -c '%u %g' /v/file; touch /v/new");
    world.run(&["run", bundle.path()]).ok().prints("5 6\n");
    let new = std::fs::metadata(format!("{volume}/new")).expect("it was made");
    assert_eq!((new.uid(), new.gid()), (0, 0), "root inside is root on the volume");
    // Without it, the files are nobody's.
    let bundle = add(with_user_namespace(world, "plain"), &volume, "rw", None)
        .shell("stat -c '%u %g' /v/file");
    world.run(&["run", bundle.path()]).ok().prints("65534 65534\n");
}

fn ridmap_reaches_below(world: &World) {
    let outer = volume(world, "outer");
    std::fs::create_dir(format!("{outer}/below")).expect("make a directory");
    // A bind mount: a tmpfs can be idmapped only since Linux 6.3.
    let other = world.path("other");
    std::fs::create_dir(&other).expect("make a directory");
    std::fs::write(other.join("file"), "").expect("write a file");
    let script = "mount --bind \"$1/../other\" \"$1/below\" && shift && exec \"$@\"";
    let users = json!([{"containerID": 0, "hostID": 1000, "size": 100}]);
    let minirun = crate::programs::minirun();
    let root = world.root();
    for (option, seen) in [("ridmap", "1000"), ("idmap", "0")] {
        let bundle = add(world.bundle(option), &outer, option, Some(users.clone()))
            .shell("stat -c %u /v/below/file");
        // In a mount namespace of its own, so that nothing is left of the mount.
        let ran = world
            .program("/usr/bin/unshare")
            .args(&["--mount", "sh", "-c", script, "sh", &outer])
            .args(&[minirun.to_str().expect("UTF-8"), "--root", root.to_str().expect("UTF-8")])
            .args(&["run", bundle.path()])
            .run();
        ran.ok().prints(&format!("{seen}\n"));
    }
}

fn idmap_that_cannot_be(world: &World) {
    let volume = volume(world, "volume");
    let bundle = add(world.bundle("c"), &volume, "idmap", None).args(&["true"]);
    world.run(&["run", bundle.path()]).fails("idmap needs uidMappings and gidMappings");
    let half = json!({"destination": "/v", "type": "bind", "source": volume, "options": ["rbind"],
        "uidMappings": map()});
    let bundle = world.bundle("half").args(&["true"]).set("/mounts/-", half);
    world.run(&["run", bundle.path()]).fails("needs both uidMappings and gidMappings");
    let tmpfs = json!({"destination": "/v", "type": "tmpfs", "source": "t", "options": [],
        "uidMappings": map(), "gidMappings": map()});
    let bundle = world.bundle("tmpfs").args(&["true"]).set("/mounts/-", tmpfs);
    world.run(&["run", bundle.path()]).fails("only a bind mount can be idmapped");
    // The kernel has its say as well: procfs cannot.
    let bundle = add(world.bundle("proc"), "/proc", "idmap", Some(map())).args(&["true"]);
    world.run(&["run", bundle.path()]).fails("IDMAP").says("cannot be idmapped");
}

/// As the second container of a pod.
fn user_namespace_that_exists(world: &World) {
    let first = with_user_namespace(world, "first").args(&["/bin/probe", "wait"]);
    world.run(&["run", "-d", first.path()]).ok();
    let pid = world.state("first")["pid"].to_string();
    let second = world
        .bundle("second")
        .args(&["/bin/probe", "look"])
        .join_namespace("user", &format!("/proc/{pid}/ns/user"));
    for path in ["", "tmp", "etc", "root", "bin"] {
        chown(second.rootfs(path), Some(OUTSIDE), Some(OUTSIDE)).expect("give it away");
    }
    let seen = world.run(&["run", second.path()]).ok().json();
    let link = |kind: &str| {
        let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("it runs");
        json!(link.to_string_lossy())
    };
    assert_eq!(seen["namespaces"]["user"], link("user"));
    for kind in ["mnt", "net", "pid", "uts", "ipc"] {
        assert_ne!(seen["namespaces"][kind], link(kind), "{kind}");
    }
    assert_eq!((&seen["uid"], &seen["gid"], &seen["pid"]), (&json!(0), &json!(0), &json!(1)));
    // Its life cycle, and idmap by the namespace that exists.
    let volume = volume(world, "volume");
    let second = add(second, &volume, "idmap", None).args(&["/bin/probe", "wait"]);
    world.run(&["create", "-b", second.path(), "second"]).ok();
    world.run(&["start", "second"]).ok();
    let ran = world.run(&["exec", "second", "sh", "-c", "id -u; stat -c %u /v/file"]);
    ran.ok().prints("0\n5\n");
    let pid_of_second = world.state("second")["pid"].to_string();
    let owner = std::fs::metadata(format!("/proc/{pid_of_second}")).expect("it runs").uid();
    assert_eq!(owner, OUTSIDE);
    for name in ["second", "first"] {
        world.run(&["delete", "-f", name]).ok();
    }
    // What is no user namespace is refused.
    let bundle = world.bundle("bad").args(&["true"]).join_namespace("user", "/proc/self/ns/net");
    world.run(&["run", bundle.path()]).fails("must be a namespace of kind user");
}

/// User, PID and network namespaces of another container, new mounts.
fn pod_of_namespaces(world: &World) {
    let first = with_user_namespace(world, "first").args(&["/bin/probe", "wait"]);
    world.run(&["run", "-d", first.path()]).ok();
    let pid = world.state("first")["pid"].to_string();
    let mut second = world.bundle("second").shell("ps | grep -c 'probe wait'; hostname");
    for (kind, file) in [("user", "user"), ("pid", "pid"), ("network", "net"), ("uts", "uts")] {
        second = second.join_namespace(kind, &format!("/proc/{pid}/ns/{file}"));
    }
    let second = second.unset("/hostname");
    for path in ["", "tmp", "etc", "root", "bin"] {
        chown(second.rootfs(path), Some(OUTSIDE), Some(OUTSIDE)).expect("give it away");
    }
    let seen = world.run(&["run", second.path()]).ok().output;
    assert!(seen.ends_with("minirun\n") && !seen.starts_with('0'), "{seen}");
    world.run(&["delete", "-f", "first"]).ok();
}

/// systemd in a container with a user namespace: it makes groups of its own.
fn groups_of_a_user_namespace(world: &World) {
    let script = "mkdir /sys/fs/cgroup/mine && echo $$ >/sys/fs/cgroup/mine/cgroup.procs && \
                  cat /proc/self/cgroup";
    let mut bundle = with_user_namespace(world, "c").shell(script);
    let mounts = bundle.config["mounts"].as_array_mut().expect("mounts");
    let cgroup = mounts.iter_mut().find(|mount| mount["type"] == "cgroup").expect("a mount");
    cgroup["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
    bundle.save();
    world.run(&["run", bundle.path()]).ok().prints("0::/mine\n");
    // Read-only, nothing is given away.
    let mounts = bundle.config["mounts"].as_array_mut().expect("mounts");
    let cgroup = mounts.iter_mut().find(|mount| mount["type"] == "cgroup").expect("a mount");
    cgroup["options"] = json!(["nosuid", "noexec", "nodev", "ro"]);
    bundle.save();
    let ran = world.run(&["run", bundle.path()]);
    assert_ne!(ran.status, 0, "{ran:?}");
}
