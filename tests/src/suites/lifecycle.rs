//! The verbs of an OCI runtime, in runc's forms: engines parse what they print and match on what
//! they say.

use std::os::unix::fs::FileTypeExt;

use serde_json::{Value, json};

use crate::world::World;
use crate::{Test, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("create_start_delete", create_start_delete),
        test("the_program_runs_only_after_start", the_program_runs_only_after_start),
        test("state_is_as_specified", state_is_as_specified),
        test("wrong_moment", wrong_moment),
        test("no_such_container", no_such_container),
        test("names", names),
        test("list", list),
        test("ps", ps),
        test("kill", kill),
        test("kill_all", kill_all),
        test("pause_and_resume", pause_and_resume),
        test("update_changes_limits", update_changes_limits),
        test("wait_tells_the_status", wait_tells_the_status),
        test("features_and_version", features_and_version),
        test("log_is_one_json_object", log_is_one_json_object),
        test("hooks_run_in_order", hooks_run_in_order),
        test("a_failing_hook_ends_the_container", a_failing_hook_ends_the_container),
        test("delete_force_of_nothing", delete_force_of_nothing),
        test("spec_writes_once", spec_writes_once),
        test("check_changes_nothing", check_changes_nothing),
        test("state_root_of_others_is_refused", state_root_of_others_is_refused),
        test("preserved_descriptors", preserved_descriptors),
    ]
}

/// A container that waits for a signal.
pub(super) fn waiting(world: &World, id: &str) {
    let bundle = world.bundle(id).args(&["/bin/probe", "wait"]);
    world.run(&["run", "--detach", bundle.path()]).ok();
}

fn create_start_delete(world: &World) {
    let bundle = world.bundle("c").shell("echo here; exit 3");
    let pid_file = world.path("pid");
    let name = pid_file.to_str().expect("UTF-8");
    let created = world.minirun(&["create", "-b", bundle.path(), "--pid-file", name, "c"]).spawn();
    created.wait().ok();
    assert_eq!(world.status("c"), "created");
    let pid = std::fs::read_to_string(pid_file).expect("the pid file");
    assert_eq!(world.state("c")["pid"].to_string(), pid, "decimal, no newline");
    world.run(&["start", "c"]).ok();
    assert!(crate::call::wait_until(|| world.status("c") == "stopped"));
    world.run(&["delete", "c"]).ok();
    world.run(&["state", "c"]).fails("container `c` does not exist");
}

fn the_program_runs_only_after_start(world: &World) {
    let bundle = world.bundle("c").shell("echo started >/tmp/here; sleep 1000");
    world.run(&["create", "-b", bundle.path(), "c"]).ok();
    let file = bundle.rootfs("tmp/here");
    assert!(!file.exists(), "the program ran before start");
    world.run(&["start", "c"]).ok();
    assert!(crate::call::wait_until(|| file.exists()));
    assert_eq!(world.status("c"), "running");
    world.run(&["delete", "-f", "c"]).ok();
}

fn state_is_as_specified(world: &World) {
    let bundle = world
        .bundle("c")
        .args(&["/bin/probe", "wait"])
        .set("/annotations", json!({"org.example.key": "value"}));
    world.run(&["create", "-b", bundle.path(), "c"]).ok();
    let state = world.state("c");
    let keys: Vec<_> = state.as_object().expect("an object").keys().map(String::as_str).collect();
    let expected = [
        "annotations",
        "bundle",
        "created",
        "id",
        "ociVersion",
        "owner",
        "pid",
        "rootfs",
        "status",
    ];
    assert_eq!(keys, expected);
    assert_eq!(state["id"], "c");
    assert_eq!(state["ociVersion"], "1.3.0");
    assert_eq!(state["bundle"], bundle.path());
    assert_eq!(state["rootfs"], bundle.rootfs("").to_str().expect("UTF-8").trim_end_matches('/'));
    assert_eq!(state["annotations"]["org.example.key"], "value");
    assert_eq!(state["owner"], "root");
    let created = state["created"].as_str().expect("a time");
    assert!(created.ends_with('Z') && created.as_bytes()[10] == b'T', "RFC 3339: {created}");
    world.run(&["delete", "-f", "c"]).ok();
}

fn wrong_moment(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    world.run(&["create", "-b", bundle.path(), "c"]).ok();
    world
        .run(&["create", "-b", bundle.path(), "c"])
        .fails("container with given ID already exists");
    world.run(&["resume", "c"]).fails("container not paused");
    world.run(&["delete", "c"]).fails("cannot delete container c that is not stopped: created");
    world.run(&["start", "c"]).ok();
    world.run(&["start", "c"]).fails("cannot start an already running container");
    world.run(&["delete", "c"]).fails("cannot delete container c that is not stopped: running");
    world.run(&["kill", "c", "KILL"]).ok();
    assert!(crate::call::wait_until(|| world.status("c") == "stopped"));
    world.run(&["start", "c"]).fails("cannot start a container that has stopped");
    world.run(&["kill", "c"]).fails("container not running");
    world.run(&["pause", "c"]).fails("container not running");
    world.run(&["update", "--pids-limit", "10", "c"]).fails("container not running");
    world.run(&["exec", "c", "true"]).exits(255).says("cannot exec in a stopped container");
    world.run(&["delete", "c"]).ok();
}

fn no_such_container(world: &World) {
    waiting(world, "other");
    for verb in [
        &["start"][..],
        &["state"],
        &["kill"],
        &["delete"],
        &["pause"],
        &["resume"],
        &["ps"],
        &["wait"],
        &["update", "--pids-limit=5"],
    ] {
        let ran = world.run(&[verb, &["gone"]].concat()).fails("container `gone` does not exist");
        assert_eq!(ran.output, "", "{verb:?}");
    }
    world.run(&["exec", "gone", "true"]).exits(255).says("container `gone` does not exist");
    world.run(&["delete", "-f", "other"]).ok();
}

fn names(world: &World) {
    let bundle = world.bundle("c").args(&["true"]);
    for name in ["a/b", "", ".", "..", "ü", "a b", "a\nb", "/etc", "x*"] {
        let ran = world.run(&["create", "-b", bundle.path(), name]).exits(1);
        assert!(ran.errors.contains("invalid container ID format"), "{name:?}: {}", ran.errors);
        world.run(&["delete", "--force", name]).fails("invalid container ID format");
    }
    for name in ["a", "A-b_c.d+e", "0", "a..b"] {
        world.run(&["run", "-b", bundle.path(), name]).ok();
    }
    let long = "x".repeat(256);
    world.run(&["create", "-b", bundle.path(), &long]).fails("invalid container ID format");
}

fn list(world: &World) {
    world.run(&["list"]).exits(1).says("No such file");
    waiting(world, "two");
    let bundle = world.bundle("one").args(&["/bin/probe", "wait"]);
    world.run(&["create", "-b", bundle.path(), "one"]).ok();
    let table = world.run(&["list"]).ok().output;
    let rows: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    assert_eq!((rows[1][0], rows[1][2]), ("one", "created"));
    assert_eq!((rows[2][0], rows[2][2]), ("two", "running"));
    world.run(&["list", "-q"]).ok().prints("one\ntwo\n");
    let json = world.run(&["list", "--format=json"]).ok().json();
    assert_eq!(json[1]["id"], "two");
    assert_eq!(json[0]["status"], "created");
    for id in ["one", "two"] {
        world.run(&["delete", "-f", id]).ok();
    }
    world.run(&["list", "-f", "json"]).ok().prints("[]\n");
}

fn ps(world: &World) {
    let bundle = world.bundle("c").shell("sleep 1000 & sleep 1000 & wait");
    world.run(&["run", "-d", bundle.path()]).ok();
    let processes = || world.run(&["ps", "--format", "json", "c"]).ok().json();
    assert!(crate::call::wait_until(|| processes().as_array().map(Vec::len) == Some(3)));
    let table = world.run(&["ps", "c"]).ok().output;
    assert_eq!(table.lines().filter(|line| line.contains("sleep 1000")).count(), 3, "{table}");
    let narrow = world.run(&["ps", "c", "-o", "pid,comm"]).ok().output;
    assert_eq!(narrow.lines().count(), 4, "{narrow}");
    world.run(&["delete", "-f", "c"]).ok();
}

fn kill(world: &World) {
    let script = "trap 'echo TERM >>/tmp/got' TERM; trap 'echo USR2 >>/tmp/got' USR2
        touch /tmp/ready; while :; do sleep 0.05; done";
    let bundle = world.bundle("c").shell(script);
    world.run(&["run", "-d", bundle.path()]).ok();
    assert!(crate::call::wait_until(|| bundle.rootfs("tmp/ready").exists()));
    let got = || std::fs::read_to_string(bundle.rootfs("tmp/got")).unwrap_or_default();
    let steps = [
        (&["kill", "c"][..], "TERM\n"),
        (&["kill", "c", "SIGUSR2"], "TERM\nUSR2\n"),
        (&["kill", "c", "usr2"], "TERM\nUSR2\nUSR2\n"),
        (&["kill", "c", "12"], "TERM\nUSR2\nUSR2\nUSR2\n"),
    ];
    for (call, expected) in steps {
        world.run(call).ok();
        assert!(crate::call::wait_until(|| got() == expected), "{call:?}: {:?}", got());
    }
    for wrong in ["NOPE", "65", "-1", "SIG", ""] {
        world.run(&["kill", "c", wrong]).fails("unknown signal");
    }
    world.run(&["kill", "c", "9"]).ok();
    assert!(crate::call::wait_until(|| world.status("c") == "stopped"));
    world.run(&["delete", "c"]).ok();
}

fn kill_all(world: &World) {
    // Without a PID namespace the others survive process 1.
    let bundle = world
        .bundle("c")
        .without_namespace("pid")
        .shell("sleep 1000 & sleep 1000 & sleep 1000; true");
    world.run(&["run", "-d", bundle.path()]).ok();
    let count = || {
        let all = world.run(&["ps", "--format=json", "c"]).ok().json();
        all.as_array().map_or(0, Vec::len)
    };
    assert!(crate::call::wait_until(|| count() == 4), "{}", count());
    world.run(&["kill", "--all", "c", "KILL"]).ok();
    assert!(crate::call::wait_until(|| count() == 0));
    world.run(&["delete", "c"]).ok();
}

fn pause_and_resume(world: &World) {
    let bundle = world.bundle("c").shell("while :; do echo x >>/tmp/ticks; sleep 0.01; done");
    world.run(&["run", "-d", bundle.path()]).ok();
    let ticks = || std::fs::metadata(bundle.rootfs("tmp/ticks")).map_or(0, |file| file.len());
    assert!(crate::call::wait_until(|| ticks() > 0));
    world.run(&["pause", "c"]).ok();
    assert_eq!(world.status("c"), "paused");
    let before = ticks();
    world.run(&["exec", "c", "true"]).exits(255).says("use --ignore-paused to override");
    world.run(&["pause", "c"]).fails("container not running");
    assert_eq!(ticks(), before, "a frozen program went on");
    world.run(&["resume", "c"]).ok();
    assert_eq!(world.status("c"), "running");
    assert!(crate::call::wait_until(|| ticks() > before));
    world.run(&["pause", "c"]).ok();
    world.run(&["delete", "-f", "c"]).ok();
}

fn update_changes_limits(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    world.run(&["run", "-d", "--memory", "256m", "--pids", "50", bundle.path()]).ok();
    let memory = || world.cgroup_file("c", "memory", "memory.max", "memory.limit_in_bytes");
    let pids = || world.cgroup_file("c", "pids", "pids.max", "pids.max");
    assert_eq!((memory().as_str(), pids().as_str()), ("268435456", "50"));
    world.run(&["update", "--memory", "128m", "c"]).ok();
    assert_eq!((memory().as_str(), pids().as_str()), ("134217728", "50"));
    let text = json!({"pids": {"limit": 77}, "memory": {"limit": 300 << 20}}).to_string();
    world.minirun(&["update", "--resources=-", "c"]).input_text(&text).run().ok();
    assert_eq!((memory().as_str(), pids().as_str()), ("314572800", "77"));
    world.run(&["update", "--pids-limit", "-1", "c"]).ok();
    assert_eq!(pids(), "max");
    world.minirun(&["update", "-r", "-", "c"]).input_text("{").run().fails("resources of -");
    // Device rules are not touched by an update.
    world.run(&["exec", "c", "sh", "-c", "echo x >/dev/null"]).ok();
    world.run(&["delete", "-f", "c"]).ok();
}

fn wait_tells_the_status(world: &World) {
    let bundle =
        world.bundle("c").shell("trap 'exit 42' TERM; touch /tmp/r; while :; do sleep 0.05; done");
    let foreground = world.minirun(&["run", "--keep", bundle.path()]).spawn();
    assert!(crate::call::wait_until(|| bundle.rootfs("tmp/r").exists()));
    let waiting = world.minirun(&["wait", "c"]).spawn();
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(waiting.is_alive(), "wait did not wait");
    world.run(&["kill", "c"]).ok();
    foreground.wait().exits(42);
    let ran = waiting.wait();
    match ran.status {
        0 => assert_eq!(ran.output, "42\n"),
        // Before Linux 6.15 only the parent knows for certain.
        _ => drop(ran.fails("known only to its parent")),
    }
    world.run(&["delete", "c"]).ok();
}

fn features_and_version(world: &World) {
    let features = world.run(&["features"]).ok().json();
    assert_eq!(features["ociVersionMin"], "1.0.0");
    assert_eq!(features["ociVersionMax"], "1.3.0");
    let namespaces = json!(["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"]);
    assert_eq!(features["linux"]["namespaces"], namespaces);
    let options = features["mountOptions"].as_array().expect("options");
    assert!(options.contains(&json!("rro")));
    let version = world.run(&["--version"]).ok().output;
    let lines: Vec<_> = version.lines().collect();
    assert!(lines[0].starts_with("minirun version "), "{version}");
    assert!(lines[1].starts_with("commit: "), "{version}");
    assert_eq!(lines[2], "spec: 1.3.0");
    assert_eq!(version.matches("version").count(), 1, "{version}");
}

fn log_is_one_json_object(world: &World) {
    let log = world.path("log.json");
    let name = log.to_str().expect("UTF-8");
    let bundle = world.bundle("c").args(&["/nope"]);
    // A warning first: the log must hold the error alone.
    let bundle = bundle.set("/process/capabilities/bounding", json!(["CAP_OF_THE_FUTURE"]));
    let global = ["--log", name, "--log-format", "json"];
    let ran = world.run(&[&global[..], &["create", "-b", bundle.path(), "c"]].concat()).exits(1);
    let text = std::fs::read_to_string(&log).expect("a log");
    let object: Value = serde_json::from_str(&text).expect("exactly one object");
    let keys: Vec<_> = object.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["level", "msg", "time"]);
    assert_eq!(object["level"], "error");
    let message = object["msg"].as_str().expect("text");
    assert!(message.contains("no such file or directory"), "{message}");
    assert!(ran.errors.contains(message), "told on both: {}", ran.errors);
    std::fs::remove_file(&log).expect("remove it");
    world.run(&[&global[..], &["state", "gone"]].concat()).exits(1);
    let text = std::fs::read_to_string(&log).expect("a log");
    let object: Value = serde_json::from_str(&text).expect("exactly one object");
    assert_eq!(object["msg"], "container `gone` does not exist");
    // Nothing to say, nothing written.
    std::fs::remove_file(&log).expect("remove it");
    let bundle = world.bundle("fine").args(&["true"]);
    world.run(&[&global[..], &["run", bundle.path()]].concat()).ok();
    assert!(!log.exists() || std::fs::read(&log).expect("a log").is_empty());
}

fn hooks_run_in_order(world: &World) {
    let record = world.path("hooks");
    let hook = |moment: &str| {
        let script = format!(
            "s=$(cat); echo \"{moment} $(echo \"$s\" | grep -o '\"status\":\"[a-z]*\"')\" \
             >>{} ; test -z \"$HOME\"",
            record.display()
        );
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
    };
    let bundle = world.bundle("c").args(&["true"]).set(
        "/hooks",
        json!({
            "prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
            "createContainer": hook("createContainer"), "poststart": hook("poststart"),
            "poststop": hook("poststop"),
        }),
    );
    world.run(&["create", "-b", bundle.path(), "c"]).ok();
    let so_far = || std::fs::read_to_string(&record).unwrap_or_default();
    let creating = "prestart \"status\":\"creating\"\ncreateRuntime \"status\":\"creating\"\n\
        createContainer \"status\":\"creating\"\n";
    assert_eq!(so_far(), creating);
    world.run(&["start", "c"]).ok();
    assert!(so_far().contains("poststart"), "{}", so_far());
    assert!(crate::call::wait_until(|| world.status("c") == "stopped"));
    world.run(&["delete", "c"]).ok();
    assert!(so_far().ends_with("poststop \"status\":\"stopped\"\n"), "{}", so_far());
}

fn a_failing_hook_ends_the_container(world: &World) {
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo no network >&2; exit 5"]}]);
    for moment in ["prestart", "createRuntime", "createContainer"] {
        let bundle = world.bundle(moment).args(&["true"]).set("/hooks", json!({moment: hook}));
        let ran = world.run(&["create", "-b", bundle.path(), moment]).exits(1);
        assert!(ran.errors.contains("no network"), "{moment}: {}", ran.errors);
        assert!(ran.errors.contains(moment), "{moment}: {}", ran.errors);
        world.run(&["state", moment]).fails("does not exist");
    }
}

fn delete_force_of_nothing(world: &World) {
    world.run(&["delete", "--force", "nothing"]).ok();
    world.run(&["delete", "nothing"]).fails("container `nothing` does not exist");
    // What a creator that was killed very early leaves: a directory.
    std::fs::create_dir_all(world.root().join("half")).expect("make a directory");
    world.run(&["delete", "--force", "half"]).ok();
    assert!(!world.root().join("half").exists());
    // And a state that nobody can read.
    std::fs::create_dir_all(world.root().join("torn")).expect("make a directory");
    std::fs::write(world.root().join("torn/state.json"), "{\"format\": 1, \"id\"").expect("write");
    world.run(&["state", "torn"]).exits(1).says("state.json");
    world.run(&["delete", "--force", "torn"]).ok();
    assert!(!world.root().join("torn").exists());
}

fn spec_writes_once(world: &World) {
    world.run(&["spec"]).ok();
    let file = world.path("config.json");
    let text = std::fs::read_to_string(&file).expect("it was written");
    let config: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(config["process"]["args"], json!(["sh"]));
    assert_eq!(config["root"]["path"], "rootfs");
    std::fs::write(&file, "mine").expect("write");
    world.run(&["spec"]).fails("exists already");
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "mine");
}

fn check_changes_nothing(world: &World) {
    let bundle = world.bundle("c").args(&["true"]);
    let before = std::fs::read_dir(&bundle.dir).expect("a bundle").count();
    let ran = world.run(&["check", "--memory", "512m", bundle.path()]).ok();
    assert!(ran.output.contains("512 MiB"), "{}", ran.output);
    assert!(ran.output.contains("this host can run it"), "{}", ran.output);
    assert_eq!(std::fs::read_dir(&bundle.dir).expect("a bundle").count(), before);
    assert!(!world.root().exists(), "check made the state root");
}

fn state_root_of_others_is_refused(world: &World) {
    use std::os::unix::fs::PermissionsExt;
    let bundle = world.bundle("c").args(&["true"]);
    std::fs::create_dir(world.root()).expect("make it");
    for (mode, fine) in [(0o777, false), (0o722, false), (0o755, true), (0o700, true)] {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(world.root(), mode.clone()).expect("set its mode");
        let ran = world.run(&["run", bundle.path()]);
        match fine {
            true => drop(ran.ok()),
            false => drop(ran.fails("others may write to it")),
        }
    }
    std::os::unix::fs::chown(world.root(), Some(1000), None).expect("give it away");
    world.run(&["run", bundle.path()]).fails("belongs to another user");
}

fn preserved_descriptors(world: &World) {
    let bundle = world.bundle("c").shell("ls /proc/self/fd; cat <&3");
    let file = world.path("passed");
    std::fs::write(&file, "through descriptor 3\n").expect("write a file");
    let script = format!("exec 3<{} 4</dev/null 5</; exec \"$@\"", file.display());
    let minirun = crate::programs::minirun();
    let root = world.root();
    let arguments = [
        "-c",
        &script,
        "sh",
        minirun.to_str().expect("UTF-8"),
        "--root",
        root.to_str().expect("UTF-8"),
        "run",
        "--preserve-fds",
        "1",
        bundle.path(),
    ];
    let ran = world.program("/bin/sh").args(&arguments).run().exits(0);
    // 4 is the directory that ls has open.
    assert_eq!(ran.output, "0\n1\n2\n3\n4\nthrough descriptor 3\n", "{}", ran.errors);
    let directory = std::fs::symlink_metadata(world.root()).expect("the state root");
    assert!(!directory.file_type().is_socket());
}
