//! What minirun says to input that is wrong: one error, which names the step, the object and the
//! remedy; status 1; and nothing is left.
//!
//! The messages are in `snapshots/bad_input.txt`. After an intended change, run these tests with
//! `MINIRUN_TESTS_BLESS=1` and read the difference.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::world::World;
use crate::{Test, programs, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("messages", messages),
        test("messages_of_flags", messages_of_flags),
        test("no_permission", no_permission),
        test("usage", usage),
    ]
}

/// The cases: a name, and what is done to a good bundle.
type Case = (&'static str, fn(Bundle) -> Bundle);

const CASES: &[Case] = &[
    ("config.json is missing", |b| {
        std::fs::remove_file(b.dir.join("config.json")).expect("remove it");
        b
    }),
    ("broken JSON", |b| raw(b, "{\n  \"ociVersion\": \"1.0.0\",\n  \"process\": {,\n}\n")),
    ("empty file", |b| raw(b, "")),
    ("not UTF-8", |b| raw(b, b"{\"ociVersion\": \"\xff\xfe\"}")),
    ("an array", |b| raw(b, "[]")),
    ("a directory instead of config.json", |b| {
        std::fs::remove_file(b.dir.join("config.json")).expect("remove it");
        std::fs::create_dir(b.dir.join("config.json")).expect("make a directory");
        b
    }),
    ("unknown version", |b| b.set("/ociVersion", json!("2.0.0"))),
    ("version is a number", |b| b.set("/ociVersion", json!(1))),
    ("no version", |b| b.unset("/ociVersion")),
    ("no process", |b| b.unset("/process")),
    ("no root", |b| b.unset("/root")),
    ("root missing", |b| b.set("/root/path", json!("nowhere"))),
    ("root is a file", |b| b.file("/plain", "x", 0o644).set("/root/path", json!("rootfs/plain"))),
    ("root is the host's", |b| b.set("/root/path", json!("/"))),
    ("root path empty", |b| b.set("/root/path", json!(""))),
    ("no args", |b| b.set("/process/args", json!([]))),
    ("empty program name", |b| b.args(&[""])),
    ("cwd is relative", |b| b.set("/process/cwd", json!("tmp"))),
    ("cwd is a file", |b| b.file("/plain", "x", 0o644).set("/process/cwd", json!("/plain"))),
    ("env without =", |b| b.set("/process/env", json!(["PATH=/bin", "NOVALUE"]))),
    ("NUL in args", |b| b.args(&["true", "a\0b"])),
    ("program not in PATH", |b| b.args(&["no-such-program"])),
    ("program missing", |b| b.args(&["/usr/bin/missing"])),
    ("program not executable", |b| b.file("/plain", "x", 0o644).args(&["/plain"])),
    ("program is a directory", |b| b.args(&["/etc"])),
    ("program's parent is a file", |b| b.file("/plain", "x", 0o755).args(&["/plain/x"])),
    ("program is empty", |b| b.file("/empty", "", 0o755).args(&["/empty"])),
    ("program is text", |b| b.file("/text", "hello\n", 0o755).args(&["/text"])),
    ("interpreter missing", |b| {
        b.file("/script", "#!/usr/bin/python3 -u\nprint(1)\n", 0o755).args(&["/script"])
    }),
    ("CRLF", |b| b.file("/script", "#!/bin/sh\r\necho hi\r\n", 0o755).args(&["/script"])),
    ("wrong architecture", |b| b.file("/arm", elf(183, None), 0o755).args(&["/arm"])),
    ("loader missing", |b| {
        let loader = Some("/lib64/ld-linux-x86-64.so.2");
        b.file("/dynamic", elf(62, loader), 0o755).args(&["/dynamic"])
    }),
    ("a loop of links", |b| b.link("/loop", "/loop").args(&["/loop"])),
    ("unknown namespace", |b| b.set("/linux/namespaces/-", json!({"type": "moon"}))),
    ("duplicate namespace", |b| b.set("/linux/namespaces/-", json!({"type": "pid"}))),
    ("namespace path relative", |b| b.join_namespace("network", "self/ns/net")),
    ("namespace path missing", |b| b.join_namespace("network", "/proc/1/ns/nothing")),
    ("namespace path is a file", |b| b.join_namespace("network", "/etc/passwd")),
    ("namespace of another kind", |b| b.join_namespace("ipc", "/proc/self/ns/net")),
    ("user namespace without maps", |b| b.set("/linux/namespaces/-", json!({"type": "user"}))),
    ("maps without user namespace", |b| b.set("/linux/uidMappings", map(0, 0, 1))),
    ("maps overlap", |b| {
        let maps = json!([
            {"containerID": 0, "hostID": 0, "size": 10}, {"containerID": 5, "hostID": 90, "size": 1}
        ]);
        b.set("/linux/namespaces/-", json!({"type": "user"})).set("/linux/uidMappings", maps)
    }),
    ("map is empty", |b| {
        b.set("/linux/namespaces/-", json!({"type": "user"}))
            .set("/linux/uidMappings", map(0, 0, 0))
    }),
    ("hostname without uts", |b| b.without_namespace("uts")),
    ("hostname too long", |b| b.set("/hostname", json!("x".repeat(65)))),
    ("mounts without mount namespace", |b| b.without_namespace("mount")),
    ("time offsets without time namespace", |b| {
        b.set("/linux/timeOffsets", json!({"monotonic": {"secs": 1}}))
    }),
    ("time offset of an unknown clock", |b| {
        b.set("/linux/namespaces/-", json!({"type": "time"}))
            .set("/linux/timeOffsets", json!({"realtime": {"secs": 1}}))
    }),
    ("memory below the minimum", |b| memory(b, json!({"limit": 4096}))),
    ("memory is text", |b| memory(b, json!({"limit": "512m"}))),
    ("negative memory", |b| memory(b, json!({"limit": -5}))),
    ("swap below memory", |b| memory(b, json!({"limit": 64 << 20, "swap": 32 << 20}))),
    ("cpuset of no processor", |b| resource(b, "cpu", json!({"cpus": "4000"}))),
    ("cpuset is nonsense", |b| resource(b, "cpu", json!({"cpus": "a-b"}))),
    ("cpu quota too small", |b| resource(b, "cpu", json!({"quota": 10, "period": 100_000}))),
    ("unified with a path", |b| resource(b, "unified", json!({"../memory.max": "1"}))),
    ("cgroupsPath with ..", |b| b.set("/linux/cgroupsPath", json!("/a/../../b"))),
    ("mount without a type", |b| b.mount("/x", "", "", &[])),
    ("mount of an unknown file system", |b| b.mount("/x", "moonfs", "moon", &[])),
    ("mount with a wrong option", |b| b.mount("/x", "tmpfs", "tmpfs", &["colour=green"])),
    ("bind without a source", |b| b.mount("/x", "bind", "", &["bind"])),
    ("bind of nothing", |b| b.mount("/x", "bind", "/no/such/source", &["bind"])),
    ("mount on a file", |b| b.file("/x", "x", 0o644).mount("/x", "tmpfs", "tmpfs", &[])),
    ("/proc is a link", |b| b.link("/proc", "/tmp")),
    ("/sys is a link", |b| b.link("/sys", "../../../../tmp")),
    ("/dev is a link", |b| b.link("/dev", "/tmp")),
    ("/dev is a link, nothing mounted", |b| {
        let mounts = json!([{"destination": "/proc", "type": "proc", "source": "proc"}]);
        b.set("/mounts", mounts).link("/dev", "/tmp")
    }),
    ("/proc is a file", |b| b.file("/proc", "x", 0o644)),
    ("masked path is relative", |b| b.set("/linux/maskedPaths", json!(["proc/kcore"]))),
    ("unknown propagation", |b| b.set("/linux/rootfsPropagation", json!("sideways"))),
    ("device of an unknown kind", |b| device(b, json!({"path": "/dev/x", "type": "z"}))),
    ("device path relative", |b| {
        device(b, json!({"path": "x", "type": "c", "major": 1, "minor": 3}))
    }),
    ("sysctl of the host", |b| sysctl(b, "kernel.panic")),
    ("sysctl with ..", |b| sysctl(b, "net/../kernel/panic")),
    ("sysctl hostname", |b| sysctl(b, "kernel.hostname")),
    ("sysctl that does not exist", |b| sysctl(b, "net.ipv4.no_such_thing")),
    ("unknown rlimit", |b| rlimit(b, json!({"type": "RLIMIT_LUCK", "soft": 1, "hard": 1}))),
    ("rlimit soft above hard", |b| {
        rlimit(b, json!({"type": "RLIMIT_NOFILE", "soft": 20, "hard": 10}))
    }),
    ("rlimit twice", |b| {
        let one = json!({"type": "RLIMIT_NOFILE", "soft": 10, "hard": 10});
        b.set("/process/rlimits", json!([one, one]))
    }),
    ("oomScoreAdj out of range", |b| b.set("/process/oomScoreAdj", json!(2000))),
    ("seccomp: unknown action", |b| b.set("/linux/seccomp/defaultAction", json!("SCMP_ACT_PRAY"))),
    ("hook path relative", |b| hook(b, json!({"path": "bin/true"}))),
    ("hook missing", |b| hook(b, json!({"path": "/no/such/hook"}))),
    ("hook fails", |b| {
        hook(b, json!({"path": "/bin/sh", "args": ["sh", "-c", "echo why >&2; exit 3"]}))
    }),
    ("overlay without layers", |b| overlay(b, "[]")),
    ("overlay layer missing", |b| overlay(b, "[\"/no/such/layer\"]")),
    ("overlay is no JSON", |b| overlay(b, "/layer")),
    ("terminal detached without a socket", |b| b.set("/process/terminal", json!(true))),
    ("no resctrl here: intelRdt", |b| b.set("/linux/intelRdt", json!({"closID": "x"}))),
    ("an interface that is not there", |b| b.set("/linux/netDevices", json!({"eth7": {}}))),
];

fn raw(bundle: Bundle, text: impl AsRef<[u8]>) -> Bundle {
    std::fs::write(bundle.dir.join("config.json"), text).expect("write config.json");
    bundle
}

fn map(inside: u32, outside: u32, size: u32) -> Value {
    json!([{"containerID": inside, "hostID": outside, "size": size}])
}

fn memory(bundle: Bundle, value: Value) -> Bundle {
    resource(bundle, "memory", value)
}

fn resource(bundle: Bundle, kind: &str, value: Value) -> Bundle {
    bundle.set(&format!("/linux/resources/{kind}"), value)
}

fn device(bundle: Bundle, value: Value) -> Bundle {
    bundle.set("/linux/devices", json!([value]))
}

fn sysctl(bundle: Bundle, name: &str) -> Bundle {
    bundle.set("/linux/sysctl", json!({name: "1"}))
}

fn rlimit(bundle: Bundle, value: Value) -> Bundle {
    bundle.set("/process/rlimits", json!([value]))
}

fn hook(bundle: Bundle, value: Value) -> Bundle {
    bundle.set("/hooks", json!({"createRuntime": [value]}))
}

fn overlay(bundle: Bundle, layers: &str) -> Bundle {
    bundle.set("/annotations", json!({"org.minirun.overlay.lowerdirs": layers}))
}

/// The smallest ELF file that shows its machine, and its loader if it has one.
fn elf(machine: u16, loader: Option<&str>) -> Vec<u8> {
    let mut file = vec![0; 64];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    file[16..18].copy_from_slice(&2_u16.to_le_bytes());
    file[18..20].copy_from_slice(&machine.to_le_bytes());
    file[20..24].copy_from_slice(&1_u32.to_le_bytes());
    file[32..40].copy_from_slice(&64_u64.to_le_bytes());
    file[52..54].copy_from_slice(&64_u16.to_le_bytes());
    file[54..56].copy_from_slice(&56_u16.to_le_bytes());
    if let Some(name) = loader {
        let length = (name.len() as u64 + 1).to_le_bytes();
        file[56..58].copy_from_slice(&1_u16.to_le_bytes());
        let mut segment = vec![0; 56];
        segment[..4].copy_from_slice(&3_u32.to_le_bytes());
        segment[8..16].copy_from_slice(&120_u64.to_le_bytes());
        segment[32..40].copy_from_slice(&length);
        segment[40..48].copy_from_slice(&length);
        file.extend(segment);
        file.extend(name.bytes().chain([0]));
    }
    file
}

/// `create`, because that is where engines want to hear it; `start` too where it is known only
/// then.
fn messages(world: &World) {
    let mut shown = String::new();
    let mut wrong = Vec::new();
    for (index, (name, change)) in CASES.iter().enumerate() {
        let bundle = change(world.bundle(&format!("b{index}")));
        let id = format!("c{index}");
        let mut ran = world.run(&["create", "-b", bundle.path(), &id]);
        let mut verb = "create";
        if ran.status == 0 {
            ran = world.run(&["start", &id]);
            verb = "start";
            world.run(&["delete", "--force", &id]).ok();
        }
        let errors = ran.errors.lines().filter(|line| line.starts_with("minirun: ")).count();
        if (ran.status, errors, ran.output.as_str()) != (1, 1, "") {
            wrong.push(format!("{name}: not one error and status 1: {ran:?}"));
        }
        let text = neutral(&ran.errors, &bundle.dir, world);
        write!(shown, "# {name} ({verb})\n{text}\n").expect("a string takes everything");
        wrong.extend(world.what_is_left().iter().map(|left| format!("{name}: left: {left}")));
    }
    compare("bad_input", include_str!("../../snapshots/bad_input.txt"), &shown);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Without what differs from run to run, and between the versions of cgroups.
fn neutral(text: &str, bundle: &Path, world: &World) -> String {
    let text = text
        .replace(&*bundle.to_string_lossy(), "BUNDLE")
        .replace(&*world.dir.to_string_lossy(), "DIR")
        .replace(&world.cgroup, "/CGROUP")
        .replace("/sys/fs/cgroup/cpuset/CGROUP", "/sys/fs/cgroup/CGROUP");
    let text = number_after(&text, "openat2(");
    let Some((before, after)) = text.split_once("exit status: 3 after ") else { return text };
    let rest = after.split_once(',').map_or("", |(_, rest)| rest);
    format!("{before}exit status: 3 after TIME,{rest}")
}

/// Puts `N` in the place of the number that follows `words`.
fn number_after(text: &str, words: &str) -> String {
    let Some((before, after)) = text.split_once(words) else { return text.to_owned() };
    let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{before}{words}N{rest}")
}

/// Compares with the file, or writes it.
fn compare(name: &str, expected: &str, shown: &str) {
    if std::env::var_os("MINIRUN_TESTS_BLESS").is_some() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("snapshots/{name}.txt"));
        std::fs::write(file, shown).expect("write the snapshot");
        return;
    }
    let cases =
        |text: &str| -> Vec<String> { text.split_inclusive("\n\n").map(str::to_owned).collect() };
    let (expected, shown) = (cases(expected), cases(shown));
    for (old, new) in expected.iter().zip(&shown) {
        assert!(same(old, new), "{name}: expected\n{old}\nbut it is\n{new}");
    }
    assert_eq!(expected.len(), shown.len(), "{name}: another number of cases");
}

/// Some words are the kernel's, or depend on how its cgroups are laid out: `…` in a snapshot stands
/// for anything.
fn same(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut open = false;
    for part in parts {
        open = true;
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty() || (open && pattern.ends_with('…'))
}

fn messages_of_flags(world: &World) {
    let bundle = world.bundle("b").args(&["true"]);
    for (flag, words) in [
        ("--memory=lots", "--memory: "),
        ("--memory=", "--memory: "),
        ("--memory=-7", "--memory: "),
        ("--memory=99999999999999999999", "--memory: "),
        ("--memory=4k", "memory"),
        ("--cpus=0", "--cpus: "),
        ("--cpus=many", "--cpus: "),
        ("--cpus=-1", "--cpus: "),
        ("--cpuset=900-901", "cpu"),
        ("--pids=x", "--pids"),
        ("--io-weight=1", "--io-weight"),
        ("--cpu-weight=0", "--cpu-weight"),
        ("--io-read-bps=/dev/null:1m", "not a block device"),
        ("--io-read-bps=/no/such:1m", "/no/such"),
        ("--io-read-bps=nonsense", "is not DEVICE:RATE"),
        ("--volume=/no/such:/x", "--volume: "),
        ("--volume=/tmp", "--volume: "),
        ("--volume=/tmp:x", "--volume: "),
        ("--volume=/tmp:/x:rx", "--volume: "),
        ("--user=root", "is not a user or group number"),
        ("--env==x", "is not NAME=value"),
        ("--workdir=tmp", "is not an absolute path"),
        ("--no-such-flag", "--no-such-flag"),
    ] {
        let ran = world.run(&["run", flag, bundle.path()]).exits(1);
        assert!(ran.errors.contains(words), "{flag}: {}", ran.errors);
        assert_eq!(ran.output, "", "{flag}");
        let left = world.what_is_left();
        assert!(left.is_empty(), "{flag}: left behind: {left:?}");
    }
    world.run(&["run", "/no/such/bundle"]).fails("/no/such/bundle");
    let file = world.path("file");
    std::fs::write(&file, "x").expect("write a file");
    let store = world.path("store");
    let store = store.to_str().expect("UTF-8");
    let file = file.to_str().expect("UTF-8");
    for (target, words) in [("no-such-name", "no image `no-such-name:latest`"), (file, "file")] {
        let call = world.minirun(&["run", "--store", store, target]);
        call.env("ROOTFS_TOOLS", programs::rootfs_tools()).run().fails(words);
    }
}

fn no_permission(world: &World) {
    let bundle = world.bundle("b").args(&["true"]);
    // An ordinary user, with the state root of root.
    std::fs::create_dir(world.root()).expect("make it");
    world.minirun(&["run", bundle.path()]).user(1000).run().fails("belongs to another user");
    // And with one of their own, but a bundle that they may not read.
    let own = world.path("own");
    std::fs::create_dir(&own).expect("make it");
    std::os::unix::fs::chown(&own, Some(1000), Some(1000)).expect("give it away");
    let call = |arguments: &[&str]| {
        let root = ["--root", own.to_str().expect("UTF-8")];
        world.program(programs::minirun()).args(&root).args(arguments).user(1000).run()
    };
    use std::os::unix::fs::PermissionsExt;
    let closed = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(bundle.dir.join("config.json"), closed).expect("close it");
    call(&["run", bundle.path()]).exits(1).says("ermission denied");
    // `create` never adds a user namespace of its own accord.
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(bundle.dir.join("config.json"), open).expect("open it");
    let ran = call(&["create", "-b", bundle.path(), "c"]).exits(1);
    assert!(ran.errors.contains("user namespace"), "the remedy: {}", ran.errors);
    assert_eq!(std::fs::read_dir(&own).expect("it is there").count(), 0, "state was left");
}

fn usage(world: &World) {
    world.run(&["frobnicate"]).exits(1).says("frobnicate");
    world.run(&["create"]).exits(1).says("ID");
    world.run(&["run"]).exits(1).says("BUNDLE");
    world.run(&["--log-format", "xml", "list"]).exits(1).says("xml");
    world.run(&["--cgroup-manager", "openrc", "list"]).exits(1).says("openrc");
    let help = world.run(&["--help"]).ok().output;
    for verb in ["run", "create", "start", "state", "kill", "delete", "exec", "list", "check"] {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb} is not in {help}");
    }
    let help = world.run(&["run", "--help"]).ok().output;
    assert!(help.contains("--memory") && help.contains("--explain"), "{help}");
}
