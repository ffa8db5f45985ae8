//! minirun for an ordinary user: root inside, themselves outside, and nothing that is not theirs.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use rustix::process::Signal;
use serde_json::json;

use crate::bundle::Bundle;
use crate::call::{Call, Ran, wait_until};
use crate::host::Host;
use crate::needs::Need;
use crate::programs;
use crate::world::World;
use crate::{Test, test};

/// An ordinary user, known to no password file.
const USER: u32 = 1000;

pub(super) fn tests() -> Vec<Test> {
    let user = |name, body: fn(&World)| test(name, body).needs(Need::UserNamespaces);
    vec![
        user("root_inside_and_the_user_outside", root_inside_and_the_user_outside),
        user("life_cycle", life_cycle),
        user("what_is_not_theirs_stays_closed", what_is_not_theirs_stays_closed),
        user("limits_need_delegation", limits_need_delegation),
        user("limits_where_systemd_delegates", limits_where_systemd_delegates)
            .needs(Need::CgroupV2)
            .needs(Need::UserSessions),
        user("overlay", overlay),
        user("ids_of_others_are_refused", ids_of_others_are_refused),
        user("groups_that_cannot_be", groups_that_cannot_be),
        user("no_state_directory", no_state_directory),
        user("check", check),
        user("a_network_by_default", a_network_by_default).needs(Need::Program("pasta")),
        user("pasta", pasta).needs(Need::Program("pasta")),
        user("pasta_publishes", pasta_publishes).needs(Need::Program("pasta")),
        user("slirp4netns", slirp4netns).needs(Need::Program("slirp4netns")),
    ]
}

/// A bundle that belongs to the user, with the configuration that `spec` writes for them.
fn bundle_of_user(world: &World, name: &str) -> Bundle {
    let bundle = world.bundle(name);
    std::fs::create_dir_all(world.root()).expect("make the state root");
    for path in [world.root(), bundle.dir.clone()] {
        chown(path, Some(USER), Some(USER)).expect("give it away");
    }
    for dir in ["", "tmp", "etc", "root", "bin"] {
        chown(bundle.rootfs(dir), Some(USER), Some(USER)).expect("give it away");
    }
    std::fs::remove_file(bundle.dir.join("config.json")).expect("remove it");
    call(world, &["spec", "--bundle", bundle.path()]).ok();
    let text = std::fs::read(bundle.dir.join("config.json")).expect("it was written");
    Bundle { dir: bundle.dir, config: serde_json::from_slice(&text).expect("JSON") }
}

fn call(world: &World, arguments: &[&str]) -> Ran {
    world.minirun(arguments).user(USER).run()
}

fn root_inside_and_the_user_outside(world: &World) {
    let bundle = bundle_of_user(world, "c").args(&["/bin/probe", "look"]);
    let seen = call(world, &["run", bundle.path()]).ok().json();
    assert_eq!((&seen["uid"], &seen["gid"], &seen["pid"]), (&json!(0), &json!(0), &json!(1)));
    assert_eq!(seen["hostname"], "minirun");
    let bundle = bundle.shell("touch /tmp/mine; cat /proc/self/setgroups; cat /proc/self/uid_map");
    let ran = call(world, &["run", bundle.path()]).ok();
    let words: Vec<_> = ran.output.split_whitespace().collect();
    assert_eq!(words, ["deny", "0", "1000", "1"]);
    let made = std::fs::metadata(bundle.rootfs("tmp/mine")).expect("it was made");
    assert_eq!((made.uid(), made.gid()), (USER, USER));
    // A configuration without a user namespace gets one from `run`.
    let plain = world.bundle("plain").args(&["id", "-u"]);
    chown(plain.rootfs(""), Some(USER), Some(USER)).expect("give it away");
    call(world, &["run", plain.path()]).ok().prints("0\n");
}

fn life_cycle(world: &World) {
    let bundle = bundle_of_user(world, "c").args(&["/bin/probe", "wait"]);
    call(world, &["create", "-b", bundle.path(), "c"]).ok();
    call(world, &["start", "c"]).ok();
    let state = call(world, &["state", "c"]).ok().json();
    assert_eq!(state["status"], "running");
    let pid = state["pid"].to_string();
    assert_eq!(std::fs::metadata(format!("/proc/{pid}")).expect("it runs").uid(), USER);
    call(world, &["exec", "c", "sh", "-c", "id -u; exit 4"]).exits(4).prints("0\n");
    call(world, &["kill", "c", "KILL"]).ok();
    let stopped = || call(world, &["state", "c"]).ok().json()["status"] == "stopped";
    assert!(wait_until(stopped));
    call(world, &["delete", "c"]).ok();
}

fn what_is_not_theirs_stays_closed(world: &World) {
    let secret = world.path("secret");
    std::fs::write(&secret, "secret").expect("write a file");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).expect("close it");
    let bundle = bundle_of_user(world, "c")
        .mount("/secret", "bind", secret.to_str().expect("UTF-8"), &["bind"])
        .shell("cat /secret || echo closed; echo x >/secret || echo closed; mknod /tmp/d c 1 3 || echo no");
    let ran = call(world, &["run", bundle.path()]).exits(0).prints("closed\nclosed\nno\n");
    assert!(ran.errors.contains("ermission denied"), "{}", ran.errors);
    assert_eq!(std::fs::read_to_string(&secret).expect("it is there"), "secret");
}

fn limits_need_delegation(world: &World) {
    let bundle = bundle_of_user(world, "c").args(&["true"]);
    let ran = call(world, &["run", "--memory", "64m", bundle.path()]).exits(1);
    assert!(ran.errors.contains("systemd-run --user --scope"), "the remedy: {}", ran.errors);
    assert_eq!(std::fs::read_dir(world.root()).expect("it is there").count(), 0);
}

/// What a person types: a scope of their own, in which minirun may make groups.
fn limits_where_systemd_delegates(world: &World) {
    let bundle = bundle_of_user(world, "c").args(&["/bin/probe", "wait"]);
    world.program("/usr/bin/systemctl").args(&["start", "user@1000"]).run().exits(0);
    let (minirun, root) = (programs::minirun(), world.root());
    let scoped = |arguments: &[&str]| {
        world
            .program("/usr/bin/systemd-run")
            .args(&["--user", "--scope", "--quiet", "-p", "Delegate=yes"])
            .args(&[minirun.to_str().expect("UTF-8"), "--root", root.to_str().expect("UTF-8")])
            .args(arguments)
            .env("XDG_RUNTIME_DIR", "/run/user/1000")
            .user(USER)
            .run()
    };
    scoped(&["run", "-d", "--memory", "64m", "--pids", "20", bundle.path()]).ok();
    let pid = call(world, &["state", "c"]).ok().json()["pid"].to_string();
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    let group = groups.trim().strip_prefix("0::").expect("version 2").to_owned();
    assert!(group.contains("user@1000.service") && group.ends_with("/c"), "{group}");
    let read = |file: &str| std::fs::read_to_string(format!("/sys/fs/cgroup{group}/{file}"));
    assert_eq!(read("memory.max").expect("a limit").trim(), "67108864");
    assert_eq!(read("pids.max").expect("a limit").trim(), "20");
    call(world, &["pause", "c"]).ok();
    assert_eq!(call(world, &["state", "c"]).ok().json()["status"], "paused");
    call(world, &["resume", "c"]).ok();
    call(world, &["delete", "-f", "c"]).ok();
    assert!(!Path::new(&format!("/sys/fs/cgroup{group}")).exists(), "{group} is left");
    // Killed for memory, in the foreground.
    let bundle = bundle.args(&["/bin/probe", "alloc", "64"]);
    let ran = scoped(&["run", "--memory", "32m", bundle.path()]).exits(137);
    assert!(ran.errors.contains("memory limit of 32 MiB"), "{}", ran.errors);
}

fn overlay(world: &World) {
    let bundle = bundle_of_user(world, "c");
    let layer = world.path("layer");
    std::fs::rename(bundle.rootfs(""), &layer).expect("make it a layer");
    std::fs::create_dir(bundle.rootfs("")).expect("the mount point");
    chown(bundle.rootfs(""), Some(USER), Some(USER)).expect("give it away");
    std::fs::write(layer.join("etc/file"), "below\n").expect("write a file");
    chown(layer.join("etc/file"), Some(USER), Some(USER)).expect("give it away");
    let layers = json!([layer]).to_string();
    let bundle = bundle
        .set("/annotations", json!({"org.minirun.overlay.lowerdirs": layers}))
        .shell("cat /etc/file; echo above >/etc/file; cat /etc/file; rm /etc/file; ls /etc");
    call(world, &["run", bundle.path()]).ok().prints("below\nabove\n");
    assert_eq!(std::fs::read_to_string(layer.join("etc/file")).expect("it is there"), "below\n");
}

fn ids_of_others_are_refused(world: &World) {
    let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    let bundle = bundle_of_user(world, "c")
        .args(&["true"])
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map);
    let ran = call(world, &["run", bundle.path()]).exits(1);
    assert!(ran.errors.contains("/etc/subuid") || ran.errors.contains("uidmap"), "{}", ran.errors);
}

/// A group that is dropped can give access that it took away: where the kernel forbids to change
/// them, asking for groups is an error.
fn groups_that_cannot_be(world: &World) {
    let bundle = bundle_of_user(world, "c").args(&["true"]);
    let bundle = bundle.set("/process/user/additionalGids", json!([5]));
    call(world, &["run", bundle.path()]).fails("additionalGids").says("setgroups(2)");
}

fn no_state_directory(world: &World) {
    let bundle = bundle_of_user(world, "c").args(&["true"]);
    let without = || {
        let ran = world.program("/usr/bin/env").args(&["-u", "XDG_RUNTIME_DIR"]).args(&[
            programs::minirun().to_str().expect("UTF-8"),
            "run",
            bundle.path(),
        ]);
        ran.user(USER).run()
    };
    let place = Path::new("/tmp").join(format!("minirun-{USER}"));
    if !Path::new("/run/user").join(USER.to_string()).exists() {
        without().ok();
        std::fs::remove_dir(&place).expect("it was made, and is empty");
        // One that another user has made first.
        std::fs::create_dir(&place).expect("make it");
        without().fails("set XDG_RUNTIME_DIR, or name a directory with --root");
        std::fs::remove_dir(&place).expect("it is empty");
    }
    // With one, the state is there.
    let ran = world.program(programs::minirun()).args(&["run", bundle.path()]);
    let runtime = world.root();
    ran.env("XDG_RUNTIME_DIR", runtime.as_os_str()).user(USER).run().ok();
    let ours = runtime.join("minirun");
    assert_eq!(std::fs::metadata(&ours).expect("it was made").uid(), USER);
    assert!(std::fs::read_dir(&ours).expect("it is there").next().is_none());
    std::fs::remove_dir(ours).expect("it is empty");
}

fn check(world: &World) {
    let bundle = bundle_of_user(world, "c").args(&["true"]);
    let ran = call(world, &["check", bundle.path()]);
    assert!(ran.output.contains("delegated") || ran.status == 0, "{ran:?}");
    assert!(Path::new(bundle.path()).join("config.json").exists());
}

/// Without a word it is pasta, and where there is no program for it, one line says so.
fn a_network_by_default(world: &World) {
    let tell = "cut -d: -f1 /proc/net/dev | tail -n +3 | wc -l; ls /etc";
    let bundle = bundle_of_user(world, "c").shell(tell);
    let run = |bundle: &Bundle| world.minirun(&["run", bundle.path()]).env("MINIRUN_NET", "");
    let ran = run(&bundle).env("PATH", "/nowhere").user(USER).run().exits(0);
    assert!(ran.output.starts_with('1') && !ran.output.contains("resolv"), "{ran:?}");
    assert_eq!(ran.errors.matches("minirun: ").count(), 1, "{ran:?}");
    assert!(ran.errors.contains("pasta (Debian and Fedora: package passt)"), "{ran:?}");
    assert!(world.what_is_left().is_empty(), "{:?}", world.what_is_left());
}

fn pasta(world: &World) {
    through_a_program(world, "pasta");
}

fn slirp4netns(world: &World) {
    through_a_program(world, "slirp4netns");
}

/// The container speaks to a machine that only its host reaches, and nothing stays.
fn through_a_program(world: &World, program: &str) {
    let (host, _) = host_for_users(world);
    let who = "http://192.0.2.2:7000/cgi-bin/who";
    let bundle = bundle_of_user(world, "c");
    let bundle = bundle.shell(&format!("wget -q -O - {who} && cat /etc/hostname"));
    // pasta is what users get who do not ask.
    for variable in [program, ""] {
        if variable.is_empty() && program != "pasta" {
            continue;
        }
        let call = by_user(&host, world, &["run", bundle.path()]);
        // The machine outside sees the host, which is who speaks.
        call.env("MINIRUN_NET", variable).run().ok().prints("192.0.2.1\nminirun\n");
        assert!(wait_until(|| host.processes_named(program).is_empty()), "{program} is left");
        assert_eq!(std::fs::read_dir(world.root()).expect("it is there").count(), 0);
    }
}

/// A host on which users have networks, and a process of the machine outside.
fn host_for_users(world: &World) -> (Host<'_>, i32) {
    let mut host = Host::new(world);
    let outside = host.outside();
    // pasta takes the addresses of the interface with the default route; nobody has to be there.
    host.call("ip", &["route", "add", "default", "via", "192.0.2.254"]).run().ok();
    // Some machines keep the device to root; distributions do not.
    let device = "mkdir -p /dev/net && mount -t tmpfs none /dev/net && \
                  mknod -m 666 /dev/net/tun c 10 200";
    host.call("sh", &["-c", device]).run().ok();
    (host, outside)
}

/// minirun of the user on that host.
fn by_user(host: &Host<'_>, world: &World, arguments: &[&str]) -> Call {
    let (minirun, root) = (programs::minirun(), world.root());
    let program = [minirun.to_str().expect("UTF-8"), "--root", root.to_str().expect("UTF-8")];
    let user = ["--reuid=1000", "--regid=1000", "--clear-groups"];
    host.call("setpriv", &user).args(&program).args(arguments)
}

/// A port of the host leads into the container, and pasta ends when minirun could not end it.
fn pasta_publishes(world: &World) {
    let (host, outside) = host_for_users(world);
    let server = ["/bin/busybox", "httpd", "-f", "-p", "7000", "-h", "/www"];
    let bundle = bundle_of_user(world, "c").file("www/index.html", "here", 0o644).args(&server);
    let run = ["run", "--net", "pasta", "-p", "8080:7000"];
    let port_answers = || {
        let busybox = programs::busybox();
        let url = "http://192.0.2.1:8080/index.html";
        let ask = ["-t", &outside.to_string(), "--net", busybox.to_str().expect("UTF-8")];
        let asked = world.program("nsenter").args(&ask).args(&["wget", "-q", "-O", "-", url]).run();
        asked.status == 0 && asked.output == "here"
    };
    let is_over = || host.processes_named("pasta").is_empty() && !port_answers();
    by_user(&host, world, &run).args(&["-d", bundle.path()]).run().ok();
    assert!(wait_until(port_answers), "nobody answers");
    by_user(&host, world, &["delete", "--force", "c"]).run().ok();
    assert!(wait_until(is_over), "pasta is left");

    let running = by_user(&host, world, &run).args(&[bundle.path()]).spawn();
    assert!(wait_until(port_answers), "nobody answers");
    running.signal(Signal::KILL);
    running.wait();
    by_user(&host, world, &["delete", "--force", "c"]).run().ok();
    assert!(wait_until(is_over), "pasta is left");
}
