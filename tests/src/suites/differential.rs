//! The same bundle under minirun, runc and crun: what the process sees must be the same, or be in
//! the table of explained differences, which is in docs/operating/differences.md too.
//!
//! The bundles are hand-picked changes of one configuration, and random combinations of them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::needs::Need;
use crate::world::World;
use crate::{Test, programs, test};

pub(super) fn tests() -> Vec<Test> {
    let against = |other: &'static str| {
        let each =
            test(format!("each_change_like_{other}"), move |world| each_change(world, other));
        let mixed = test(format!("combinations_like_{other}"), move |world| mixed(world, other));
        // crun 1.8 cannot run on a hybrid host.
        let need = if other == "crun" { Need::CgroupV2 } else { Need::Root };
        [each, mixed].map(|test| test.needs(Need::Program(other)).needs(need))
    };
    let mut all: Vec<Test> = ["runc", "crun"].into_iter().flat_map(against).collect();
    all.push(test("the_table_is_in_the_book", the_table_is_in_the_book).needs(Need::Workspace));
    all
}

/// One change of the configuration.
type Change = (&'static str, fn(Bundle) -> Bundle);

const CHANGES: &[Change] = &[
    ("as it is", |b| b),
    ("user", |b| b.set("/process/user", json!({"uid": 1000, "gid": 5, "additionalGids": [7, 9]}))),
    ("umask", |b| b.set("/process/user/umask", json!(0o27))),
    ("capabilities", |b| {
        let set = json!(["CAP_NET_ADMIN", "CAP_CHOWN"]);
        let mut all = serde_json::Map::new();
        for name in ["bounding", "permitted", "effective"] {
            all.insert(name.to_owned(), set.clone());
        }
        b.set("/process/capabilities", all.into())
    }),
    ("ambient", |b| {
        let set = json!(["CAP_NET_BIND_SERVICE"]);
        let mut all = serde_json::Map::new();
        for name in ["bounding", "permitted", "effective", "inheritable", "ambient"] {
            all.insert(name.to_owned(), set.clone());
        }
        b.set("/process/capabilities", all.into())
    }),
    ("new privileges", |b| b.set("/process/noNewPrivileges", json!(false))),
    ("resource limits", |b| {
        b.set(
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]),
        )
    }),
    ("read-only root", |b| b.set("/root/readonly", json!(true))),
    ("writable root", |b| b.set("/root/readonly", json!(false))),
    ("tmpfs", |b| b.mount("/tmp", "tmpfs", "tmpfs", &["nosuid", "size=64k", "mode=1770"])),
    ("tmpfs as it is there", |b| b.mount("/root", "tmpfs", "tmpfs", &["noexec"])),
    ("bind", |b| b.mount("/etc/hosts", "bind", "/etc/hosts", &["rbind", "rprivate", "ro"])),
    ("slave", |b| b.set("/linux/rootfsPropagation", json!("rslave"))),
    ("names", |b| b.set("/hostname", json!("blue"))),
    ("no network namespace", |b| b.without_namespace("network")),
    ("no ipc namespace", |b| b.without_namespace("ipc").without_mount("/dev/mqueue")),
    ("the host's queues", |b| b.without_namespace("ipc")),
    ("no cgroup namespace", |b| b.without_namespace("cgroup").without_mount("/sys/fs/cgroup")),
    ("parameter", |b| b.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}))),
    ("oom score", |b| b.set("/process/oomScoreAdj", json!(77))),
    ("device", |b| {
        b.set(
            "/linux/devices",
            json!([{"path": "/dev/mine", "type": "c", "major": 1, "minor": 3,
            "fileMode": 0o640, "uid": 5, "gid": 6}]),
        )
    }),
    ("environment", |b| b.set("/process/env", json!(["PATH=/bin", "A=b", "HOME=/x"]))),
    ("home", |b| b.set("/process/env", json!(["PATH=/bin"]))),
    ("directory", |b| b.set("/process/cwd", json!("/tmp"))),
    ("memory and processes", |b| {
        b.set("/linux/resources", json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 30}}))
    }),
    ("processor", |b| {
        b.set(
            "/linux/resources",
            json!({"cpu": {"shares": 512, "quota": 50_000, "period": 100_000}}),
        )
    }),
    ("filter", |b| {
        b.set(
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}),
        )
    }),
    ("no filter", |b| b.unset("/linux/seccomp")),
    ("user namespace", |b| {
        let map = json!([{"containerID": 0, "hostID": 0, "size": 65_536}]);
        b.set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map)
            .set("/linux/namespaces/-", json!({"type": "user"}))
    }),
    ("masks", |b| {
        b.set("/linux/maskedPaths", json!(["/proc/version", "/etc", "/none"]))
            .set("/linux/readonlyPaths", json!(["/proc/sys", "/bin"]))
    }),
    ("status", |b| b.set("/process/env/-", json!("STATUS=9"))),
    ("signal", |b| b.set("/process/env/-", json!("STATUS=143"))),
];

/// What the shell runs: everything that can be seen, then a status.
const LOOK: &str = "/bin/probe look; \
    for f in /dev/*; do /bin/stat -c 'dev %n %f %t %T %u %g' $f; done; \
    for f in memory.max memory.low cpu.max cpu.weight pids.max io.weight; do \
        test -e /sys/fs/cgroup/$f && /bin/echo limit $f `/bin/cat /sys/fs/cgroup/$f`; done; \
    for f in /tmp /root /etc /proc/version; do /bin/stat -c 'file %n %a %u %g %s' $f; done; \
    /bin/mkdir /tmp/made 2>&1; \
    exit ${STATUS:-0}";

/// Differences that are meant: field, other runtime, why. The field may end with `*`.
const EXPLAINED: &[(&str, &str, &str)] = &[
    ("status.Seccomp_filters", "runc", "runc puts a filter of its own before the profile's"),
    (
        "file./tmp",
        "runc",
        "runc 1.1 gives a tmpfs the mode of the directory below it, whatever `mode` says",
    ),
    ("file./etc", "runc", "a masked directory is an empty tmpfs; minirun's has mode 555"),
    ("file./etc", "crun", "a masked directory is an empty tmpfs; minirun's has mode 555"),
    ("mount./etc", "runc", "minirun forbids devices, programs and set-user-ID below a mask"),
    ("mount./etc", "crun", "minirun forbids devices, programs and set-user-ID below a mask"),
    (
        "mount./proc/*",
        "runc",
        "minirun masks with the host's null device, which no image can replace",
    ),
    (
        "mount./proc/*",
        "crun",
        "minirun masks with the host's null device, which no image can replace",
    ),
    (
        "mount./sys/firmware",
        "runc",
        "minirun forbids devices, programs and set-user-ID below a mask",
    ),
    (
        "mount./sys/firmware",
        "crun",
        "minirun forbids devices, programs and set-user-ID below a mask",
    ),
    (
        "mount./sys/fs/cgroup",
        "runc",
        "on hosts with version 1 minirun's tmpfs for the trees is read-only too",
    ),
    (
        "dev./dev/null",
        "crun",
        "crun gives the host's null device, where it is a standard stream, to the user",
    ),
    (
        "file./root",
        "crun",
        "a tmpfs without `mode` gets the mode of the directory below it, as with runc",
    ),
    (
        "limit.cpu.weight",
        "runc",
        "shares become weights by the formula of 2025, which later versions of runc have",
    ),
    (
        "limit.cpu.weight",
        "crun",
        "shares become weights by the formula of 2025, which later versions of crun have",
    ),
    (
        "mount./",
        "runc",
        "what is forbidden on the host's file system stays forbidden when the root becomes read-only",
    ),
    (
        "mount./",
        "crun",
        "what is forbidden on the host's file system stays forbidden; the propagation is runc's",
    ),
    ("mount./bin", "crun", "what is forbidden on the host's file system stays forbidden"),
    ("mount./dev/*", "crun", "in a user namespace the host's devices are bound as they are"),
    ("status.SigIgn", "runc", "signals that the caller ignores get their default meaning"),
    ("status.SigIgn", "crun", "signals that the caller ignores get their default meaning"),
    ("mount./sys/fs/cgroup/unified", "runc", "on hybrid hosts minirun shows version 2 as well"),
];

fn each_change(world: &World, other: &str) {
    let mut found = BTreeMap::new();
    for (index, (name, change)) in CHANGES.iter().enumerate() {
        let bundle = change(start(world, &format!("b{index}")));
        compare(world, &bundle, other, name, &mut found);
    }
    report(&found);
}

/// Three changes at a time, chosen by a sequence that is the same in each run.
fn mixed(world: &World, other: &str) {
    let mut found = BTreeMap::new();
    let mut seed = 20_261_121_u64;
    for index in 0..12 {
        let mut names = Vec::new();
        let mut bundle = start(world, &format!("b{index}"));
        for _ in 0..3 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let chosen = usize::try_from(seed >> 33).expect("it fits") % CHANGES.len();
            let (name, change) = CHANGES[chosen];
            if !names.contains(&name) && bundle.config.pointer("/linux/seccomp").is_some() {
                names.push(name);
                bundle = change(bundle);
            }
        }
        compare(world, &bundle, other, &names.join(" + "), &mut found);
    }
    report(&found);
}

fn start(world: &World, name: &str) -> Bundle {
    let bundle = world.bundle(name).args(&["/bin/sh", "-c", LOOK]);
    // The oldest of the three knows this version.
    bundle.set("/ociVersion", json!("1.0.2"))
}

fn compare(
    world: &World,
    bundle: &Bundle,
    other: &str,
    name: &str,
    found: &mut BTreeMap<String, String>,
) {
    let ours = seen(world, bundle, programs::minirun().to_str().expect("UTF-8"));
    let program = programs::find(other).expect("it is installed");
    let theirs = seen(world, bundle, program.to_str().expect("UTF-8"));
    let keys: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    for key in keys {
        let (one, two) = (ours.get(key), theirs.get(key));
        let explained = EXPLAINED.iter().any(|(field, whose, _)| {
            let same = match field.strip_suffix('*') {
                Some(start) => key.starts_with(start),
                None => key == field,
            };
            same && *whose == other
        });
        if one != two && !explained {
            let text = format!("{name}: minirun {one:?}, {other} {two:?}");
            found.entry(key.clone()).or_insert(text);
        }
    }
}

fn report(found: &BTreeMap<String, String>) {
    let lines: Vec<String> = found.iter().map(|(key, text)| format!("{key}: {text}")).collect();
    assert!(lines.is_empty(), "{} differences:\n{}", lines.len(), lines.join("\n"));
}

/// Everything that the process sees, by name.
fn seen(world: &World, bundle: &Bundle, program: &str) -> BTreeMap<String, String> {
    let root = world.path("roots").join(program.rsplit('/').next().unwrap_or_default());
    std::fs::create_dir_all(&root).expect("make a directory");
    let ran = world
        .program(program)
        .args(&["--root", root.to_str().expect("UTF-8"), "run", "--bundle", bundle.path(), "same"])
        .run();
    drop(std::fs::remove_dir_all(bundle.rootfs("tmp/made")));
    let mut all = BTreeMap::from([("exit".to_owned(), ran.status.to_string())]);
    let (first, rest) = ran.output.split_once('\n').unwrap_or(("", ""));
    let Ok(value) = serde_json::from_str::<Value>(first) else {
        all.insert("failed".into(), "yes".into());
        return all;
    };
    look(&value, &mut all);
    for line in rest.lines() {
        let mut words = line.splitn(3, ' ');
        let key = format!("{}.{}", words.next().unwrap_or(""), words.next().unwrap_or(""));
        all.insert(key, words.next().unwrap_or_default().to_owned());
    }
    all
}

fn look(value: &Value, all: &mut BTreeMap<String, String>) {
    for key in [
        "env",
        "cwd",
        "uid",
        "gid",
        "groups",
        "hostname",
        "domainname",
        "machine",
        "root",
        "dev",
        "oom_score_adj",
        "interfaces",
        "cgroup",
    ] {
        let shown = value[key].to_string();
        // runc and crun have no word for a group outside of the container's namespace.
        all.insert(key.to_owned(), shown);
    }
    for key in [
        "Uid",
        "Gid",
        "Groups",
        "Umask",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
        "SigBlk",
        "SigIgn",
    ] {
        all.insert(format!("status.{key}"), value["status"][key].to_string());
    }
    for (name, limit) in value["limits"].as_object().into_iter().flatten() {
        all.insert(format!("limits.{name}"), limit.to_string());
    }
    let descriptors = value["descriptors"].as_object();
    let numbers: Vec<_> = descriptors.into_iter().flatten().map(|(number, _)| number).collect();
    all.insert("descriptors".into(), format!("{numbers:?}"));
    for (kind, link) in value["namespaces"].as_object().into_iter().flatten() {
        let own = std::fs::read_link(format!("/proc/self/ns/{kind}"));
        let same = own.is_ok_and(|own| link.as_str() == own.to_str());
        all.insert(format!("namespace.{kind}"), if same { "the host's" } else { "new" }.into());
    }
    for line in value["mounts"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let (fields, after) = line.split_once(" - ").unwrap_or((line, ""));
        let fields: Vec<&str> = fields.split(' ').collect();
        let mut options: Vec<&str> = fields[5].split(',').collect();
        options.sort_unstable();
        let tags = fields[6..].iter().map(|tag| tag.split(':').next().unwrap_or_default());
        let tags: Vec<&str> = tags.collect();
        let kind = after.split(' ').next().unwrap_or_default();
        all.insert(format!("mount.{}", fields[4]), format!("{kind} {options:?} {tags:?}"));
    }
}

fn the_table_is_in_the_book(_: &World) {
    let book = programs::source().expect("it is there").join("docs/operating/differences.md");
    let book = std::fs::read_to_string(book).expect("the page");
    for (field, other, why) in EXPLAINED {
        let row = format!("| `{field}` | {other} | {why} |");
        assert!(book.contains(&row), "not in docs/operating/differences.md: {row}");
    }
}
