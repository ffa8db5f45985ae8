//! Namespaces: new ones differ from the host's, joined ones are the ones that were named.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::needs::Need;
use crate::world::World;
use crate::{Test, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("new_ones_differ_from_the_host", new_ones_differ_from_the_host),
        test("left_out_ones_are_the_host", left_out_ones_are_the_host),
        test("joined_by_path", joined_by_path),
        test("joined_pid_namespace", joined_pid_namespace),
        test("user_namespace", user_namespace),
        test("user_namespace_owns_the_others", user_namespace_owns_the_others),
        test("devices_of_a_user_namespace", devices_of_a_user_namespace),
        test("time_offsets", time_offsets).needs(Need::Namespace("time")),
        test("processes_of_the_host_are_not_seen", processes_of_the_host_are_not_seen),
        test("network_is_empty_and_loopback_is_up", network_is_empty_and_loopback_is_up),
        test("sysctl_stays_inside", sysctl_stays_inside),
        test("exec_joins_all", exec_joins_all),
        test("interface_of_the_host", interface_of_the_host).needs(Need::Program("ip")),
    ]
}

fn look(world: &World, bundle: &Bundle) -> Value {
    world.run(&["run", bundle.path()]).ok().json()
}

/// Kind and inode, of this process.
fn own() -> BTreeMap<String, String> {
    let entries = std::fs::read_dir("/proc/self/ns").expect("namespaces").flatten();
    let named = entries.map(|entry| {
        let link = std::fs::read_link(entry.path()).expect("a link");
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, link.to_string_lossy().into_owned())
    });
    named.collect()
}

fn new_ones_differ_from_the_host(world: &World) {
    let seen = look(world, &world.bundle("c").args(&["/bin/probe", "look"]));
    let own = own();
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "uts"] {
        assert_ne!(seen["namespaces"][kind], json!(own[kind]), "{kind}");
    }
    for kind in ["user", "time"] {
        assert_eq!(seen["namespaces"][kind], json!(own[kind]), "{kind} was not asked for");
    }
}

fn left_out_ones_are_the_host(world: &World) {
    let own = own();
    for (name, kind) in [("pid", "pid"), ("network", "net"), ("cgroup", "cgroup")] {
        let bundle = world.bundle(name).args(&["/bin/probe", "look"]).without_namespace(name);
        assert_eq!(look(world, &bundle)["namespaces"][kind], json!(own[kind]), "{name}");
    }
    let bundle = world.bundle("uts").args(&["/bin/probe", "look"]).without_namespace("uts");
    let seen = look(world, &bundle.unset("/hostname"));
    assert_eq!(seen["namespaces"]["uts"], json!(own["uts"]));
}

fn joined_by_path(world: &World) {
    let first = world.bundle("first").args(&["/bin/probe", "wait"]);
    world.run(&["run", "-d", first.path()]).ok();
    let pid = world.state("first")["pid"].to_string();
    let kinds = [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("cgroup", "cgroup")];
    let mut bundle = world.bundle("second").args(&["/bin/probe", "look"]);
    for (name, kind) in kinds {
        bundle = bundle.join_namespace(name, &format!("/proc/{pid}/ns/{kind}"));
    }
    let seen = look(world, &bundle.unset("/hostname"));
    for (name, kind) in kinds {
        let expected = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace");
        assert_eq!(seen["namespaces"][kind], json!(expected), "{name}");
    }
    world.run(&["delete", "-f", "first"]).ok();
}

fn joined_pid_namespace(world: &World) {
    let first = world.bundle("first").args(&["/bin/probe", "wait"]);
    world.run(&["run", "-d", first.path()]).ok();
    let pid = world.state("first")["pid"].to_string();
    let bundle = world
        .bundle("second")
        .args(&["/bin/probe", "look"])
        .join_namespace("pid", &format!("/proc/{pid}/ns/pid"));
    let seen = look(world, &bundle);
    let expected = std::fs::read_link(format!("/proc/{pid}/ns/pid")).expect("a namespace");
    assert_eq!(seen["namespaces"]["pid"], json!(expected));
    assert_ne!(seen["pid"], json!(1));
    assert!(seen["processes"].as_array().expect("a list").contains(&json!("1")), "{seen}");
    // Its end does not end the first.
    assert_eq!(world.status("first"), "running");
    world.run(&["delete", "-f", "first"]).ok();
}

/// A bundle with a user namespace that maps to 100000 and up, and with a root that it owns.
pub(super) fn mapped(world: &World, name: &str) -> Bundle {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let bundle = world
        .bundle(name)
        .set("/linux/namespaces/-", json!({"type": "user"}))
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map);
    for dir in ["", "tmp", "etc", "root", "bin"] {
        let path = bundle.rootfs(dir);
        std::os::unix::fs::chown(path, Some(100_000), Some(100_000)).expect("give it away");
    }
    bundle
}

fn user_namespace(world: &World) {
    let bundle = mapped(world, "c").args(&["/bin/probe", "look"]);
    let seen = look(world, &bundle);
    assert_ne!(seen["namespaces"]["user"], json!(own()["user"]));
    assert_eq!((&seen["uid"], &seen["gid"]), (&json!(0), &json!(0)));
    let bundle = bundle.shell("echo mine >/tmp/file; cat /proc/self/uid_map; ls -ld /proc/self");
    let ran = world.run(&["run", bundle.path()]).ok();
    let words: Vec<_> = ran.output.split_whitespace().take(3).collect();
    assert_eq!(words, ["0", "100000", "65536"]);
    use std::os::unix::fs::MetadataExt;
    let made = std::fs::metadata(bundle.rootfs("tmp/file")).expect("it was made");
    assert_eq!((made.uid(), made.gid()), (100_000, 100_000), "root inside is nobody outside");
    // Groups beside the main one work with a map that we may write.
    let bundle = bundle
        .args(&["/bin/probe", "look"])
        .set("/process/user", json!({"uid": 7, "gid": 8, "additionalGids": [9, 10]}));
    let seen = look(world, &bundle);
    assert_eq!(
        (&seen["uid"], &seen["gid"], &seen["groups"]),
        (&json!(7), &json!(8), &json!([9, 10]))
    );
}

fn user_namespace_owns_the_others(world: &World) {
    // Root of the user namespace may change what belongs to it, and nothing of the host's.
    let caps = json!(["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]);
    let script =
        "hostname changed && hostname; echo 7 >/proc/sys/net/ipv4/ip_default_ttl && echo ttl
        mount -t tmpfs t /tmp && echo mounted; echo 1 >/proc/sys/vm/drop_caches || echo refused";
    let bundle = mapped(world, "c")
        .shell(script)
        .set("/linux/readonlyPaths", json!([]))
        .unset("/linux/seccomp")
        .set(
            "/process/capabilities",
            json!({"bounding": caps, "effective": caps, "permitted": caps}),
        );
    let ran = world.run(&["run", bundle.path()]).exits(0);
    assert_eq!(ran.output, "changed\nttl\nmounted\nrefused\n", "{}", ran.errors);
}

/// Nodes cannot be made there: the host's own are bound.
fn devices_of_a_user_namespace(world: &World) {
    let script =
        "cd /dev; for d in null zero full random urandom tty; do stat -c '%n %t:%T' $d; done
        echo gone >null && head -c3 zero | wc -c; readlink ptmx";
    let bundle = mapped(world, "c").shell(script);
    let expected = "null 1:3\nzero 1:5\nfull 1:7\nrandom 1:8\nurandom 1:9\ntty 5:0\n3\npts/ptmx\n";
    world.run(&["run", bundle.path()]).ok().prints(expected);
    let none = json!([{"path": "/dev/no-such-node", "type": "c", "major": 1, "minor": 3}]);
    let bundle = bundle.set("/linux/devices", none);
    world.run(&["run", bundle.path()]).fails("/dev/no-such-node");
}

fn time_offsets(world: &World) {
    let bundle = world
        .bundle("c")
        .shell("cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets")
        .set("/linux/namespaces/-", json!({"type": "time"}))
        .set(
            "/linux/timeOffsets",
            json!({
                "boottime": {"secs": 1_000_000, "nanosecs": 5}, "monotonic": {"secs": 2_000_000},
            }),
        );
    let ran = world.run(&["run", bundle.path()]).ok();
    let uptime: u64 = ran.output.lines().next().and_then(|l| l.parse().ok()).expect("a number");
    let outside = std::fs::read_to_string("/proc/uptime").expect("uptime");
    let outside: u64 = outside.split('.').next().and_then(|l| l.parse().ok()).expect("a number");
    assert!((999_000..=1_000_100).contains(&(uptime - outside)), "{uptime} against {outside}");
    let words: Vec<&str> = ran.output.split_whitespace().skip(1).collect();
    assert_eq!(words, ["monotonic", "2000000", "0", "boottime", "1000000", "5"]);
    // exec is in it, too.
    let bundle = bundle.args(&["/bin/probe", "wait"]);
    world.run(&["run", "-d", bundle.path()]).ok();
    let inside = world.run(&["exec", "c", "cut", "-d.", "-f1", "/proc/uptime"]).ok().output;
    let inside: u64 = inside.trim().parse().expect("a number");
    assert!(inside > outside + 999_000, "{inside} against {outside}");
    world.run(&["delete", "-f", "c"]).ok();
}

fn processes_of_the_host_are_not_seen(world: &World) {
    let seen = look(world, &world.bundle("c").args(&["/bin/probe", "look"]));
    assert_eq!(seen["processes"], json!(["1"]));
    assert_eq!((&seen["pid"], &seen["session"]), (&json!(1), &json!(1)));
}

fn network_is_empty_and_loopback_is_up(world: &World) {
    let bundle = world.bundle("c").shell("ls /sys/class/net; cat /sys/class/net/lo/flags");
    world.run(&["run", bundle.path()]).ok().prints("lo\n0x9\n");
}

fn sysctl_stays_inside(world: &World) {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/{name}")).expect("a number");
    let before = (read("net/ipv4/ip_default_ttl"), read("kernel/msgmax"));
    let bundle = world
        .bundle("c")
        .shell("cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/msgmax")
        .set("/linux/sysctl", json!({"net.ipv4.ip_default_ttl": "33", "kernel.msgmax": "4444"}));
    world.run(&["run", bundle.path()]).ok().prints("33\n4444\n");
    assert_eq!((read("net/ipv4/ip_default_ttl"), read("kernel/msgmax")), before);
}

fn exec_joins_all(world: &World) {
    let bundle = mapped(world, "c").args(&["/bin/probe", "wait"]);
    world.run(&["run", "-d", bundle.path()]).ok();
    let pid = world.state("c")["pid"].to_string();
    let seen = world.run(&["exec", "c", "/bin/probe", "look"]).ok().json();
    for kind in own().into_keys() {
        let expected = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace");
        assert_eq!(seen["namespaces"][&kind], json!(expected), "{kind}");
    }
    assert_eq!(seen["uid"], json!(0));
    world.run(&["delete", "-f", "c"]).ok();
}

/// An interface of the host that the container gets, with its addresses.
fn interface_of_the_host(world: &World) {
    let ip = |arguments: &str| {
        let words: Vec<&str> = arguments.split(' ').collect();
        world.program("/usr/bin/env").args(&["ip"]).args(&words).run()
    };
    let name = format!("mrt{}", std::process::id() % 100_000);
    ip(&format!("link add {name} type veth peer name {name}p")).ok();
    ip(&format!("addr add 10.231.7.5/24 dev {name}")).ok();
    ip(&format!("addr add fd00:7::5/64 dev {name} nodad")).ok();
    let script = "cut -d: -f1 /proc/net/dev | grep -c moved; cat /sys/class/net/moved/flags; \
                  grep -c 10.231.7.5 /proc/net/fib_trie; grep -c moved /proc/net/if_inet6";
    let mut devices = serde_json::Map::new();
    devices.insert(name.clone(), json!({"name": "moved"}));
    let bundle = world.bundle("c").shell(script).set("/linux/netDevices", devices.into());
    let ran = world.run(&["run", bundle.path()]);
    ip(&format!("link del {name}p"));
    let seen = ran.ok().output;
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!((lines[0], lines[1]), ("1", "0x1003"), "it is up: {seen}");
    assert!(lines[2] != "0" && lines[3] != "0", "its addresses: {seen}");
    // It is not there any more: a clear error, and nothing is left.
    world.run(&["run", bundle.path()]).fails("this host has no interface");
    let bundle = bundle.without_namespace("network");
    world.run(&["run", bundle.path()]).fails("need a network namespace");
    let bad = world.bundle("bad").args(&["true"]);
    let bad = bad.set("/linux/netDevices", json!({"a": {"name": "x y"}}));
    world.run(&["run", bad.path()]).fails("is no name of an interface");
}
