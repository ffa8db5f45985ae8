//! Who the program is and what it may do: user, groups, capabilities, limits, filter.

use serde_json::{Value, json};

use super::namespaces::mapped;
use crate::bundle::Bundle;
use crate::world::World;
use crate::{Test, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("user_and_groups", user_and_groups),
        test("home", home),
        test("default_capabilities", default_capabilities),
        test("five_sets_exactly", five_sets_exactly),
        test("no_capabilities", no_capabilities),
        test("ordinary_user_has_none", ordinary_user_has_none),
        test("ambient_reaches_ordinary_users", ambient_reaches_ordinary_users),
        test("unknown_capability_is_a_warning", unknown_capability_is_a_warning),
        test("rlimits", rlimits),
        test("rlimits_above_the_callers", rlimits_above_the_callers),
        test("no_new_privileges", no_new_privileges),
        test("signals_are_as_at_boot", signals_are_as_at_boot),
        test("descriptors_are_three", descriptors_are_three),
        test("names", names),
        test("oom_score", oom_score),
        test("personality", personality),
        test("keyring", keyring),
        test("default_filter", default_filter),
        test("filter_answers", filter_answers),
        test("filter_kills", filter_kills),
        test("filter_without_no_new_privileges", filter_without_no_new_privileges),
    ]
}

fn look(world: &World, bundle: Bundle) -> Value {
    let bundle = bundle.args(&["/bin/probe", "look"]);
    world.run(&["run", bundle.path()]).ok().json()
}

fn set(seen: &Value, name: &str) -> u64 {
    let text = seen["status"][name].as_str().unwrap_or_else(|| panic!("{name} in {seen}"));
    u64::from_str_radix(text, 16).expect("hexadecimal")
}

fn user_and_groups(world: &World) {
    let user = json!({"uid": 1000, "gid": 100, "additionalGids": [5, 7], "umask": 0o027});
    let bundle =
        world.bundle("c").set("/process/user", user).mount("/mine", "tmpfs", "t", &["mode=777"]);
    let seen = look(world, bundle);
    assert_eq!((&seen["uid"], &seen["gid"]), (&json!(1000), &json!(100)));
    assert_eq!(seen["groups"], json!([5, 7]));
    assert_eq!(seen["status"]["Uid"], "1000 1000 1000 1000");
    assert_eq!(seen["status"]["Gid"], "100 100 100 100");
    assert_eq!(seen["status"]["Umask"], "0027");
    // Nothing of the caller's groups stays, nor of its mask.
    let bundle = world.bundle("root").args(&["/bin/probe", "look"]);
    let script = format!(
        "umask 0077; exec {} --root {} run {}",
        crate::programs::minirun().display(),
        world.root().display(),
        bundle.path()
    );
    let seen = world.program("/bin/sh").args(&["-c", &script]).run().ok().json();
    assert_eq!((&seen["groups"], &seen["status"]["Umask"]), (&json!([]), &json!("0022")));
}

fn home(world: &World) {
    let passwd = "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv/web:/bin/sh\n";
    let bundle = world.bundle("c").file("/etc/passwd", passwd, 0o644).shell("echo $HOME");
    world.run(&["run", bundle.path()]).ok().prints("/root\n");
    world.run(&["run", "-u", "33", bundle.path()]).ok().prints("/srv/web\n");
    world.run(&["run", "-u", "34", bundle.path()]).ok().prints("/\n");
    world.run(&["run", "-e", "HOME=/else", bundle.path()]).ok().prints("/else\n");
}

fn default_capabilities(world: &World) {
    let seen = look(world, world.bundle("c"));
    let (effective, bounding) = (set(&seen, "CapEff"), set(&seen, "CapBnd"));
    assert_eq!(effective, bounding);
    assert_eq!(set(&seen, "CapPrm"), bounding);
    assert_eq!((set(&seen, "CapInh"), set(&seen, "CapAmb")), (0, 0));
    // Not among them: SYS_MODULE, SYS_RAWIO, SYS_PTRACE, SYS_ADMIN, SYS_BOOT, SYS_TIME, NET_ADMIN.
    for forbidden in [16, 17, 19, 21, 22, 25, 12] {
        assert_eq!(effective & (1 << forbidden), 0, "capability {forbidden}");
    }
    assert_ne!(effective & (1 << 5), 0, "CAP_KILL is harmless and needed");
}

fn capabilities(bundle: Bundle, sets: Value) -> Bundle {
    bundle.set("/process/capabilities", sets)
}

fn five_sets_exactly(world: &World) {
    let bundle = capabilities(
        world.bundle("c"),
        json!({
            "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_NET_BIND_SERVICE"],
            "permitted": ["CAP_NET_BIND_SERVICE", "CAP_KILL"], "effective": ["CAP_KILL"],
            "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"],
        }),
    );
    // As an ordinary user, because execve gives root all that is bounding.
    let seen = look(world, bundle.set("/process/user", json!({"uid": 1000, "gid": 1000})));
    let (chown, kill, bind) = (1 << 0, 1 << 5, 1 << 10);
    assert_eq!(set(&seen, "CapBnd"), chown | kill | bind);
    assert_eq!(set(&seen, "CapInh"), kill);
    assert_eq!(set(&seen, "CapAmb"), kill);
    assert_eq!((set(&seen, "CapPrm"), set(&seen, "CapEff")), (kill, kill));
}

fn no_capabilities(world: &World) {
    let seen = look(world, capabilities(world.bundle("c"), json!({})));
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(set(&seen, name), 0, "{name}");
    }
}

fn ordinary_user_has_none(world: &World) {
    let user = json!({"uid": 1000, "gid": 1000});
    let seen = look(world, world.bundle("c").set("/process/user", user));
    for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(set(&seen, name), 0, "{name}");
    }
    assert_ne!(set(&seen, "CapBnd"), 0);
}

fn ambient_reaches_ordinary_users(world: &World) {
    let one = json!(["CAP_NET_BIND_SERVICE"]);
    let sets = json!({
        "bounding": one, "permitted": one, "effective": one, "inheritable": one, "ambient": one,
    });
    let bundle = capabilities(world.bundle("c"), sets)
        .set("/process/user", json!({"uid": 1000, "gid": 1000}));
    assert_eq!(set(&look(world, bundle), "CapEff"), 1 << 10);
}

fn unknown_capability_is_a_warning(world: &World) {
    let sets = json!({"bounding": ["CAP_KILL", "CAP_OF_THE_FUTURE"]});
    let bundle = capabilities(world.bundle("c"), sets).args(&["true"]);
    world.run(&["run", bundle.path()]).ok();
    let ran = world.run(&["--debug", "run", bundle.path()]).exits(0);
    assert!(ran.errors.contains("CAP_OF_THE_FUTURE"), "{}", ran.errors);
}

fn rlimits(world: &World) {
    let list = json!([
        {"type": "RLIMIT_NOFILE", "soft": 256, "hard": 512},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_NPROC", "soft": 100, "hard": 200},
    ]);
    let seen = look(world, world.bundle("c").set("/process/rlimits", list));
    assert_eq!(seen["limits"]["Max open files"], json!(["256", "512"]));
    assert_eq!(seen["limits"]["Max core file size"], json!(["0", "0"]));
    assert_eq!(seen["limits"]["Max processes"], json!(["100", "200"]));
}

/// Raised from outside, by whoever may: also for a container whose own root may not.
fn rlimits_above_the_callers(world: &World) {
    let list = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 100}]);
    let status = std::fs::read_to_string("/proc/self/status").expect("our status");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("a set");
    let capabilities = u64::from_str_radix(line.trim(), 16).expect("hexadecimal");
    let may_raise = capabilities & 1 << 24 != 0;
    for bundle in [world.bundle("c"), mapped(world, "mapped")] {
        let bundle = bundle.shell("ulimit -n; ulimit -Hn").set("/process/rlimits", list.clone());
        let script = format!(
            "ulimit -n 90; exec {} --root {} run {}",
            crate::programs::minirun().display(),
            world.root().display(),
            bundle.path()
        );
        let ran = world.program("/bin/sh").args(&["-c", &script]).run();
        match may_raise {
            true => drop(ran.ok().prints("100\n100\n")),
            false => drop(ran.fails("CAP_SYS_RESOURCE")),
        }
    }
}

fn no_new_privileges(world: &World) {
    let program = std::fs::read(crate::programs::busybox()).expect("busybox");
    let bundle = world.bundle("c").file("/suid/id", program, 0o4755);
    let bundle =
        bundle.args(&["/suid/id", "-u"]).set("/process/user", json!({"uid": 1000, "gid": 1}));
    // busybox gives its privileges up itself, for all but a few of its programs.
    let bundle = bundle.shell("/suid/id >/dev/null; grep NoNewPrivs /proc/self/status");
    world.run(&["run", bundle.path()]).ok().prints("NoNewPrivs:\t1\n");
    let bundle = bundle.set("/process/noNewPrivileges", json!(false));
    world.run(&["run", bundle.path()]).ok().prints("NoNewPrivs:\t0\n");
}

/// Rust programs ignore SIGPIPE; their children must not.
fn signals_are_as_at_boot(world: &World) {
    let bundle = world.bundle("c").args(&["grep", "^Sig[BIC]", "/proc/self/status"]);
    let expected =
        "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000000\n";
    world.run(&["run", bundle.path()]).ok().prints(expected);
    let bundle = bundle.args(&["/bin/probe", "wait"]);
    world.run(&["run", "-d", bundle.path()]).ok();
    let grep = ["exec", "c", "grep", "^Sig[BIC]", "/proc/self/status"];
    world.run(&grep).ok().prints(expected);
    world.run(&["delete", "-f", "c"]).ok();
}

fn descriptors_are_three(world: &World) {
    // Whatever the caller has open.
    let bundle = world.bundle("c").args(&["/bin/probe", "look"]);
    let script = format!(
        "exec 7</ 8</etc 9</dev/null; exec {} --root {} run {}",
        crate::programs::minirun().display(),
        world.root().display(),
        bundle.path()
    );
    let seen = world.program("/bin/sh").args(&["-c", &script]).run().ok().json();
    let fds: Vec<_> = seen["descriptors"].as_object().expect("a list").keys().collect();
    assert_eq!(fds, ["0", "1", "2"], "{}", seen["descriptors"]);
}

fn names(world: &World) {
    let before = rustix::system::uname().nodename().to_owned();
    let bundle =
        world.bundle("c").set("/hostname", json!("inside")).set("/domainname", json!("example"));
    let seen = look(world, bundle);
    assert_eq!((&seen["hostname"], &seen["domainname"]), (&json!("inside"), &json!("example")));
    assert_eq!(rustix::system::uname().nodename(), &*before);
}

fn oom_score(world: &World) {
    let seen = look(world, world.bundle("c").set("/process/oomScoreAdj", json!(321)));
    assert_eq!(seen["oom_score_adj"], "321");
}

fn personality(world: &World) {
    let bundle = world.bundle("c").set("/linux/personality", json!({"domain": "LINUX32"}));
    let machine = look(world, bundle)["machine"].as_str().expect("text").to_owned();
    assert!(["i686", "i586", "i386", "armv8l"].contains(&machine.as_str()), "{machine}");
}

fn keyring(world: &World) {
    let bundle = world.bundle("c").set("/linux/maskedPaths", json!([])).shell("cat /proc/keys");
    let ran = world.run(&["run", bundle.path()]);
    if ran.status == 0 {
        assert!(ran.output.contains("_ses.c"), "{}", ran.output);
        let ran = world.run(&["run", "-b", bundle.path(), "--no-new-keyring", "other"]).exits(0);
        assert!(!ran.output.contains("_ses.other"), "{}", ran.output);
    } else {
        // A kernel without keyrings has nothing to inherit.
        assert!(ran.errors.contains("No such file"), "{ran:?}");
    }
}

fn default_filter(world: &World) {
    let seen = look(world, world.bundle("c"));
    assert_eq!(
        (&seen["status"]["Seccomp"], &seen["status"]["NoNewPrivs"]),
        (&json!("2"), &json!("1"))
    );
    let caps = json!(["CAP_SYS_ADMIN"]);
    // The capability alone is not enough: the profile allows unshare(2) by capability names, and
    // this one is not in the configuration that it was made for.
    let sets = json!({"bounding": caps, "effective": caps, "permitted": caps});
    let bundle = capabilities(world.bundle("d"), sets).args(&["unshare", "-m", "true"]);
    let ran = world.run(&["run", bundle.path()]).exits(1);
    assert!(ran.errors.contains("not permitted"), "{}", ran.errors);
    let bundle = bundle.unset("/linux/seccomp");
    world.run(&["run", bundle.path()]).ok();
}

fn filter(bundle: Bundle, action: Value) -> Bundle {
    let mut rule = json!({"names": ["mkdir", "mkdirat"]});
    for (key, value) in action.as_object().expect("an object") {
        rule[key] = value.clone();
    }
    bundle.set("/linux/seccomp", json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [rule],
    }))
}

fn filter_answers(world: &World) {
    let action = json!({"action": "SCMP_ACT_ERRNO", "errnoRet": 28});
    let bundle = filter(world.bundle("c"), action).shell("mkdir /tmp/x; touch /tmp/y && echo y");
    let ran = world.run(&["run", bundle.path()]).exits(0).prints("y\n");
    assert!(ran.errors.contains("No space left on device"), "{}", ran.errors);
}

fn filter_kills(world: &World) {
    let action = json!({"action": "SCMP_ACT_KILL_PROCESS"});
    let bundle = filter(world.bundle("c"), action).args(&["mkdir", "/tmp/x"]);
    world.run(&["run", bundle.path()]).exits(128 + 31);
}

fn filter_without_no_new_privileges(world: &World) {
    // Loaded before the capabilities go, it must not forbid what is still to be done.
    let bundle = world.bundle("c").set("/process/noNewPrivileges", json!(false)).set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
        }),
    );
    let seen = look(world, bundle.set("/process/user", json!({"uid": 1000, "gid": 1000})));
    assert_eq!(
        (&seen["status"]["Seccomp"], &seen["status"]["NoNewPrivs"]),
        (&json!("2"), &json!("0"))
    );
    assert_eq!(set(&seen, "CapEff"), 0);
}
