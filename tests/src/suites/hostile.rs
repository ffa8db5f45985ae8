//! Images, configurations and neighbours that want out.
//!
//! One test per way out that a container runtime has had (the number of the CVE is in its doc).
//! Each puts a canary on the host's side and looks whether it still sings: minirun may refuse, or do
//! what is safe, and nothing else.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::json;

use crate::bundle::Bundle;
use crate::call::wait_until;
use crate::programs;
use crate::world::World;
use crate::{Test, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("the_runtime_cannot_be_overwritten", the_runtime_cannot_be_overwritten),
        test("entering_processes_cannot_be_climbed", entering_processes_cannot_be_climbed),
        test("working_directory_through_a_descriptor", working_directory_through_a_descriptor),
        test("label_goes_to_the_real_procfs", label_goes_to_the_real_procfs),
        test("links_as_mount_points", links_as_mount_points),
        test("masks_are_made_of_the_real_null", masks_are_made_of_the_real_null),
        test("console_is_a_link", console_is_a_link),
        test("dev_is_a_link", dev_is_a_link),
        test("standard_streams_of_another_null", standard_streams_of_another_null),
        test("without_a_mount_namespace", without_a_mount_namespace),
        test("hooks_get_nothing_of_ours", hooks_get_nothing_of_ours),
        test("a_reused_number_is_not_killed", a_reused_number_is_not_killed),
        test("filter_forbids_what_is_still_to_do", filter_forbids_what_is_still_to_do),
        test("device_source_is_a_link", device_source_is_a_link),
        test("password_file_is_a_pipe", password_file_is_a_pipe),
        test("program_is_a_pipe", program_is_a_pipe),
        test("state_of_others", state_of_others),
    ]
}

/// A directory of the host that nothing may appear in, with one file that must not change.
struct Canary(PathBuf);

impl Canary {
    fn new(world: &World) -> Self {
        let dir = world.path("canary");
        std::fs::create_dir(&dir).expect("make a directory");
        std::fs::write(dir.join("song"), "sings").expect("write a file");
        Self(dir)
    }

    #[track_caller]
    fn sings(&self) {
        let found: Vec<_> = std::fs::read_dir(&self.0)
            .expect("it is there")
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert_eq!(found, ["song"], "something was made on the host");
        assert_eq!(std::fs::read_to_string(self.0.join("song")).expect("it is there"), "sings");
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

fn capabilities(bundle: Bundle, names: &[&str]) -> Bundle {
    let names = json!(names);
    bundle.set(
        "/process/capabilities",
        json!({"bounding": names, "effective": names, "permitted": names}),
    )
}

/// CVE-2019-5736: a process of the container opens the runtime's own program file for writing.
fn the_runtime_cannot_be_overwritten(world: &World) {
    let program = programs::minirun();
    let before = std::fs::read(&program).expect("minirun");
    let script = "for p in /proc/[0-9]*; do [ $p = /proc/1 ] || /bin/probe write $p/exe; done
        [ -e /tmp/end ]";
    let watch = format!("touch /tmp/ready; until sh -c '{script}' >>/tmp/log 2>&1; do :; done");
    let bundle =
        capabilities(world.bundle("c").shell(&watch), &["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"])
            .file("/self", "#!/proc/self/exe\n", 0o755)
            .unset("/linux/seccomp");
    world.run(&["run", "-d", bundle.path()]).ok();
    assert!(wait_until(|| bundle.rootfs("tmp/ready").exists()));
    for _ in 0..40 {
        world.run(&["exec", "c", "true"]).ok();
    }
    // The program is a script whose interpreter is whoever executes it.
    world.run(&["exec", "c", "/self"]);
    std::fs::write(bundle.rootfs("tmp/end"), "").expect("write a file");
    let log = std::fs::read_to_string(bundle.rootfs("tmp/log")).expect("a log");
    assert!(log.contains("refused"), "nothing was tried");
    assert!(!log.contains("opened"), "a program was opened for writing: {log}");
    world.run(&["delete", "-f", "c"]).ok();
    // Started by that trick.
    let bundle = world.bundle("d").file("/self", "#!/proc/self/exe\n", 0o755).args(&["/self"]);
    world.run(&["run", bundle.path()]);
    assert!(std::fs::read(&program).expect("minirun") == before, "minirun was overwritten");
}

/// CVE-2016-9962: through the descriptors, the root or the working directory of a process that is
/// about to join the container.
fn entering_processes_cannot_be_climbed(world: &World) {
    let canary = Canary::new(world);
    let song = format!("{}/song", canary.path());
    let up = "../../../../../../../..";
    let once = format!(
        "for p in /proc/[0-9]*; do cat $p/root{song} $p/cwd/{up}{song} 2>/dev/null
         for f in $p/fd/*; do cat $f/{up}{song} 2>/dev/null; done; done; [ -e /tmp/end ]"
    );
    let watch =
        format!("touch /tmp/ready; until sh -c '{once}' >>/tmp/log; do echo try >>/tmp/log; done");
    let powers = ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"];
    let bundle = capabilities(world.bundle("c").shell(&watch), &powers).unset("/linux/seccomp");
    world.run(&["run", "-d", bundle.path()]).ok();
    assert!(wait_until(|| bundle.rootfs("tmp/ready").exists()));
    for _ in 0..60 {
        world.run(&["exec", "c", "true"]).ok();
    }
    std::fs::write(bundle.rootfs("tmp/end"), "").expect("write a file");
    let log = std::fs::read_to_string(bundle.rootfs("tmp/log")).expect("a log");
    assert!(log.contains("try"), "nothing was tried");
    assert!(!log.contains("sings"), "a file of the host was read");
    world.run(&["delete", "-f", "c"]).ok();
}

/// CVE-2024-21626: a working directory that is a descriptor which leaked in.
fn working_directory_through_a_descriptor(world: &World) {
    let canary = Canary::new(world);
    let up = "../../../../../../..";
    let script = format!("cat {up}{}/song 2>/dev/null; pwd", canary.path());
    let running = world.bundle("running").args(&["/bin/probe", "wait"]);
    world.run(&["run", "-d", running.path()]).ok();
    let caller = |arguments: &[&str], number: i32| {
        // The caller has the host's root open, as an engine may.
        let inner = format!("exec {number}</; exec \"$@\"");
        let root = world.root();
        let minirun = programs::minirun();
        let fixed = [
            "-c",
            &inner,
            "sh",
            minirun.to_str().expect("UTF-8"),
            "--root",
            root.to_str().expect("UTF-8"),
        ];
        world.program("/bin/bash").args(&fixed).args(arguments).run()
    };
    for number in 3..=20 {
        let cwd = format!("/proc/self/fd/{number}");
        let bundle = world.bundle(&format!("c{number}")).shell(&script);
        let linked = bundle.link("/way", &cwd).set("/process/cwd", json!(&cwd));
        let ran = caller(&["run", linked.path()], number);
        assert!(!ran.output.contains("sings"), "{cwd}: {ran:?}");
        assert_ne!(ran.status, 0, "{cwd}: {ran:?}");
        let linked = linked.set("/process/cwd", json!("/way"));
        let ran = caller(&["run", linked.path()], number);
        assert!(!ran.output.contains("sings") && ran.status != 0, "link to {cwd}: {ran:?}");
        let ran = caller(&["exec", "--cwd", &cwd, "running", "sh", "-c", &script], number);
        assert!(!ran.output.contains("sings") && ran.status != 0, "exec {cwd}: {ran:?}");
    }
    world.run(&["delete", "-f", "running"]).ok();
    canary.sings();
}

/// CVE-2019-16884: the image brings its own `/proc`, and the label is "written" to a plain file.
fn label_goes_to_the_real_procfs(world: &World) {
    let fake = world.path("proc");
    std::fs::create_dir_all(fake.join("self/attr/apparmor")).expect("make directories");
    for file in ["self/attr/exec", "self/attr/apparmor/exec"] {
        std::fs::write(fake.join(file), "untouched").expect("write a file");
    }
    let source = fake.to_str().expect("UTF-8").to_owned();
    let bundle = world.bundle("c").args(&["true"]);
    let bundle = bundle
        .set(
            "/mounts/0",
            json!({
                "destination": "/proc", "type": "bind", "source": source, "options": ["rbind"],
            }),
        )
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]))
        .set("/process/apparmorProfile", json!("no-such-profile"));
    let ran = world.run(&["run", bundle.path()]).exits(1);
    assert!(ran.errors.contains("no-such-profile"), "{}", ran.errors);
    for file in ["self/attr/exec", "self/attr/apparmor/exec"] {
        let text = std::fs::read_to_string(fake.join(file)).expect("it is there");
        assert_eq!(text, "untouched", "{file}");
    }
}

/// CVE-2021-30465, CVE-2019-18837, CVE-2024-45310: mount points that lead out.
fn links_as_mount_points(world: &World) {
    let canary = Canary::new(world);
    let up = format!("../../../../../../../..{}", canary.path());
    let bundle = world
        .bundle("c")
        .link("/absolute", canary.path())
        .link("/climbing", &up)
        .link("/final", format!("{}/new", canary.path()))
        .mount("/absolute/one", "tmpfs", "t", &["size=64k"])
        .mount("/climbing/two/deep", "tmpfs", "t", &["size=64k"])
        .mount("/final", "tmpfs", "t", &["size=64k"])
        .mount("/proc/self/root/three", "tmpfs", "t", &["size=64k"])
        .mount("/proc/1/cwd/four", "bind", "/etc/hostname", &["bind"])
        .args(&["true"]);
    let ran = world.run(&["run", bundle.path()]);
    canary.sings();
    assert!(!Path::new("/three").exists() && !Path::new("/four").exists(), "{ran:?}");
    // A link of procfs is never followed.
    assert_eq!(ran.status, 1, "{ran:?}");
    // And links that are about the container's own files lead there.
    std::fs::create_dir_all(bundle.rootfs(canary.path()).join("new")).expect("make directories");
    let bundle = bundle.set("/mounts/10", json!({"destination": "/x", "type": "tmpfs"}));
    let bundle = bundle.set("/mounts/11", json!({"destination": "/y", "type": "tmpfs"}));
    world.run(&["run", bundle.path()]).ok();
    canary.sings();
    assert!(bundle.rootfs(canary.path()).join("one").is_dir(), "it was made inside");
}

/// CVE-2025-31133, CVE-2025-62161: the image's `/dev/null` is what masks are made of.
fn masks_are_made_of_the_real_null(world: &World) {
    let canary = Canary::new(world);
    let before = std::fs::read_to_string("/proc/sys/kernel/core_pattern").expect("a pattern");
    for (name, target) in
        [("one", "/proc/sys/kernel/core_pattern"), ("two", "/secret"), ("three", "/no/such")]
    {
        let bundle = world
            .bundle(name)
            .file("/secret", "secret", 0o644)
            .file("/dev/keep", "", 0o644)
            .link("/dev/null", target)
            .shell("cat /secret; echo '|/evil' >/secret; cat /proc/sys/kernel/core_pattern >/tmp/p")
            .set("/linux/maskedPaths", json!(["/secret", "/proc/keys"]))
            .set("/mounts", json!([{"destination": "/proc", "type": "proc", "source": "proc"}]));
        let ran = world.run(&["run", bundle.path()]);
        assert!(!ran.output.contains("secret"), "{name}: the mask has a hole: {ran:?}");
        let now = std::fs::read_to_string("/proc/sys/kernel/core_pattern").expect("a pattern");
        assert_eq!(now, before, "{name}");
    }
    canary.sings();
}

/// CVE-2025-52565, CVE-2026-88264: the image's `/dev/console` or `/dev/pts` is a link.
fn console_is_a_link(world: &World) {
    let canary = Canary::new(world);
    for (name, link, target) in
        [("file", "/dev/console", "song"), ("new", "/dev/console", "new"), ("pts", "/dev/pts", "")]
    {
        let bundle = world
            .bundle(name)
            .file("/dev/keep", "", 0o644)
            .link(link, format!("{}/{target}", canary.path()))
            .shell("echo evil >/dev/console")
            .set(
                "/mounts",
                json!([
                    {"destination": "/proc", "type": "proc", "source": "proc"},
                    {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                     "options": ["newinstance", "ptmxmode=0666"]},
                ]),
            );
        let ran = world.run(&["run", "--tty", bundle.path()]);
        canary.sings();
        drop(ran);
    }
}

/// CVE-2026-47766, CVE-2026-41579: nodes and links for a `/dev` that is somewhere else.
fn dev_is_a_link(world: &World) {
    let canary = Canary::new(world);
    let up = format!("../../../../../../../..{}", canary.path());
    for (name, target) in [("absolute", canary.path()), ("climbing", &up)] {
        let mounts = json!([{"destination": "/proc", "type": "proc", "source": "proc"}]);
        let bundle = world.bundle(name).link("/dev", target).set("/mounts", mounts).args(&["true"]);
        let ran = world.run(&["run", bundle.path()]).exits(1);
        assert!(ran.errors.contains("/dev is a symbolic link"), "{}", ran.errors);
        // A device of the configuration in a directory that is a link.
        let bundle = world.bundle(&format!("{name}-deep")).args(&["true"]);
        let bundle = bundle.link("/nodes", target).set(
            "/linux/devices",
            json!([
                {"path": "/nodes/sub/node", "type": "c", "major": 1, "minor": 3},
            ]),
        );
        world.run(&["run", bundle.path()]);
        canary.sings();
    }
}

/// CVE-2026-88265: closed standard streams, and a `/dev/null` that is not one.
fn standard_streams_of_another_null(world: &World) {
    let canary = Canary::new(world);
    let bundle = world
        .bundle("c")
        .file("/dev/keep", "", 0o644)
        .link("/dev/null", format!("{}/song", canary.path()))
        .set("/mounts", json!([{"destination": "/proc", "type": "proc", "source": "proc"}]))
        .set("/process/user", json!({"uid": 1000, "gid": 1000}))
        .shell("echo evil");
    let script = format!(
        "exec {} --root {} run {} <&- >&- 2>&-",
        programs::minirun().display(),
        world.root().display(),
        bundle.path()
    );
    world.program("/bin/sh").args(&["-c", &script]).run();
    canary.sings();
    use std::os::unix::fs::MetadataExt;
    let owner = std::fs::metadata(canary.0.join("song")).expect("it is there").uid();
    assert_eq!(owner, 0, "a file of the host was given to the container's user");
}

/// runc 1.5.3: without a mount namespace, every change of mounts is a change of the host's.
fn without_a_mount_namespace(world: &World) {
    let table = || {
        let text = std::fs::read_to_string("/proc/self/mountinfo").expect("a table");
        let mut lines: Vec<_> =
            text.lines().filter(|l| !l.contains("/minirun-test-")).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let before = table();
    let bundle = world
        .bundle("c")
        .without_namespace("mount")
        .set("/mounts", json!([]))
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]))
        .set("/linux/rootfsPropagation", json!("rprivate"))
        .shell("ls /; cd /; pwd");
    let ran = world.run(&["run", bundle.path()]).ok();
    assert!(ran.output.contains("tmp") && !ran.output.contains("boot"), "{}", ran.output);
    assert_eq!(table(), before);
}

fn hooks_get_nothing_of_ours(world: &World) {
    let seen = world.path("seen");
    let script = format!("ls /proc/self/fd >{0}; env >>{0}; cat >/dev/null", seen.display());
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    for moment in ["createRuntime", "createContainer", "poststart", "poststop"] {
        let bundle = world.bundle(moment).args(&["true"]).set("/hooks", json!({moment: hook}));
        let outer = format!(
            "exec 7</ 8</etc; LD_PRELOAD=/evil SECRET=1 exec {} --root {} run {}",
            programs::minirun().display(),
            world.root().display(),
            bundle.path()
        );
        world.program("/bin/sh").args(&["-c", &outer]).run().exits(0);
        let text = std::fs::read_to_string(&seen).expect("the hook ran");
        let (fds, names): (Vec<_>, Vec<_>) =
            text.lines().partition(|line| line.parse::<u32>().is_ok());
        // 3 is the directory that ls reads.
        assert_eq!(fds, ["0", "1", "2", "3"], "{moment}: {text}");
        assert!(
            names.iter().all(|line| line.starts_with("PWD=") || line.starts_with("_=")),
            "{text}"
        );
        std::fs::remove_file(&seen).expect("remove it");
    }
}

/// The container has ended, and its number belongs to somebody else now.
fn a_reused_number_is_not_killed(world: &World) {
    let bundle = world.bundle("c").args(&["true"]);
    world.run(&["run", "--keep", bundle.path()]).ok();
    let bystander = world.program("/bin/sleep").args(&["1000"]).spawn();
    let file = world.root().join("c/state.json");
    let text = std::fs::read_to_string(&file).expect("the state");
    let mut state: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    state["init"]["pid"] = json!(bystander.pid().as_raw_nonzero().get());
    std::fs::write(&file, state.to_string()).expect("write the state");
    assert_eq!(world.status("c"), "stopped");
    world.run(&["kill", "c", "KILL"]).fails("container not running");
    world.run(&["delete", "--force", "c"]).ok();
    assert!(bystander.is_alive(), "a process that is not the container's was killed");
    bystander.signal(Signal::KILL);
    bystander.wait();
}

/// The filter is on while minirun still has to give up what it has: nothing may be skipped.
fn filter_forbids_what_is_still_to_do(world: &World) {
    for nnp in [true, false] {
        let bundle = world
            .bundle(&format!("c-{nnp}"))
            .args(&["/bin/probe", "look"])
            .set("/process/noNewPrivileges", json!(nnp))
            .set("/process/user", json!({"uid": 1000, "gid": 1000}))
            .set("/linux/seccomp", json!({
                "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{
                    "names": ["capset", "setresuid", "setresgid", "setgroups", "close_range", "prctl"],
                    "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
                }],
            }));
        let ran = world.run(&["run", bundle.path()]);
        if nnp {
            // Loaded last: everything has been given up before.
            let seen = ran.ok().json();
            assert_eq!(
                (&seen["uid"], &seen["status"]["CapEff"]),
                (&json!(1000), &json!("0000000000000000"))
            );
        } else {
            // Loaded before: it must fail, and never run with what could not be given up.
            assert_eq!(ran.status, 1, "{ran:?}");
            assert_eq!(ran.output, "");
        }
    }
}

fn device_source_is_a_link(world: &World) {
    let link = world.path("null-link");
    std::os::unix::fs::symlink("/dev/null", &link).expect("make a link");
    let map = json!([{"containerID": 0, "hostID": 0, "size": 65_536}]);
    let bundle = world
        .bundle("c")
        .args(&["true"])
        .set("/linux/namespaces/-", json!({"type": "user"}))
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .set(
            "/linux/devices",
            json!([
                {"path": link.to_str().expect("UTF-8"), "type": "c", "major": 1, "minor": 3},
            ]),
        );
    world.run(&["run", bundle.path()]).exits(1);
    let other = world.bundle("d").args(&["true"]);
    let other = other.set("/linux/namespaces/-", json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 0, "size": 65_536}]);
    // It says null, and the host has something else of that name.
    let other = other
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .set("/linux/devices", json!([{"path": "/dev/zero", "type": "c", "major": 1, "minor": 3}]));
    world.run(&["run", other.path()]).exits(1);
}

/// Whoever reads a file of the image may wait for ever, with the container's lock held.
fn password_file_is_a_pipe(world: &World) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let bundle = world.bundle("c").shell("echo $HOME");
    mknodat(CWD, bundle.rootfs("etc/passwd"), FileType::Fifo, Mode::from_raw_mode(0o644), 0)
        .expect("make a pipe");
    world.run(&["run", bundle.path()]).ok().prints("/\n");
    let endless = world.bundle("d").link("/etc/passwd", "/dev/zero").shell("echo $HOME");
    world.run(&["run", endless.path()]).ok().prints("/\n");
}

fn program_is_a_pipe(world: &World) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let bundle = world.bundle("c").args(&["/pipe"]);
    mknodat(CWD, bundle.rootfs("pipe"), FileType::Fifo, Mode::from_raw_mode(0o755), 0)
        .expect("make a pipe");
    world.run(&["run", bundle.path()]).fails("ermission denied");
}

/// A state root with a container that is a link to somewhere else.
fn state_of_others(world: &World) {
    let canary = Canary::new(world);
    std::fs::create_dir(world.root()).expect("make it");
    std::os::unix::fs::symlink(canary.path(), world.root().join("c")).expect("make a link");
    world.run(&["delete", "--force", "c"]);
    canary.sings();
    world.run(&["state", "c"]).fails("does not exist");
    let bundle = world.bundle("c").args(&["true"]);
    world.run(&["create", "-b", bundle.path(), "c"]).fails("already exists");
    canary.sings();
    std::fs::remove_file(world.root().join("c")).expect("remove it");
}
