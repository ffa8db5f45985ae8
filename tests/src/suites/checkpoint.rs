//! `checkpoint` and `restore`, with the real CRIU.
//!
//! CRIU is tied to kernels: one that is too old for the kernel cannot do anything, so that these
//! tests need one that finds itself able (`criu check`).

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use serde_json::json;

use super::terminal::receive;
use crate::bundle::Bundle;
use crate::call::{Ran, wait_until};
use crate::needs::Need;
use crate::world::World;
use crate::{Test, programs, test};

pub(super) fn tests() -> Vec<Test> {
    let with_criu = |test: Test| test.needs(Need::Criu);
    let mut tests = vec![
        with_criu(test("it_goes_on_where_it_was", it_goes_on_where_it_was)),
        with_criu(test("left_running", left_running)),
        with_criu(test("memory_ahead_of_the_rest", memory_ahead_of_the_rest)),
        with_criu(test("volumes_come_from_the_new_configuration", volumes)),
        with_criu(test("what_was_written_stays_with_it", its_writable_layer)),
        with_criu(test("a_network_namespace_of_others", a_network_namespace_of_others)),
        with_criu(test("in_the_foreground", in_the_foreground)),
        with_criu(test("its_terminal", its_terminal)),
        with_criu(test("paused", paused)),
        with_criu(test("hooks_see_it_come_back", hooks_see_it_come_back)),
        with_criu(test("groups_by_criu", groups_by_criu)),
        with_criu(test("what_criu_refuses_leaves_it_running", what_criu_refuses)),
        with_criu(test("a_failed_restore_leaves_nothing", a_failed_restore_leaves_nothing)),
        with_criu(test("mount_points_that_became_links", mount_points_that_became_links)),
    ];
    tests.extend([
        test("how_engines_ask", how_engines_ask),
        test("what_cannot_be", what_cannot_be),
        test("without_criu", without_criu).needs(Need::Program("unshare")),
    ]);
    tests
}

/// A container that counts in a file of its root.
fn counter(world: &World, name: &str) -> Bundle {
    // CRIU takes a file that the container has not mounted for a standard stream only, and a shell
    // that redirects one has it twice. One that is left running has the same files as another.
    let script = "exec >/dev/null 2>&1; i=0; while :; do i=$((i+1))
        echo $i >/tmp/new; mv /tmp/new /tmp/count; sleep 0.05; done";
    world.bundle(name).shell(script).set("/root/readonly", json!(false))
}

fn count(bundle: &Bundle) -> u64 {
    let text = std::fs::read_to_string(bundle.rootfs("tmp/count")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Starts it and waits until it counts.
fn start(world: &World, bundle: &Bundle, id: &str) {
    world.run(&["create", "-b", bundle.path(), id]).ok();
    world.run(&["start", id]).ok();
    assert!(wait_until(|| count(bundle) > 2), "it does not count");
}

/// It counts on from where it was.
#[track_caller]
fn counts_on(bundle: &Bundle, before: u64) {
    assert!(wait_until(|| count(bundle) > before + 2), "it stopped at {}", count(bundle));
}

fn images(world: &World) -> String {
    world.path("images").display().to_string()
}

fn checkpoint(world: &World, id: &str, options: &[&str]) -> Ran {
    let images = images(world);
    let mut call = vec!["checkpoint", "--image-path", &images];
    call.extend(options);
    call.push(id);
    world.run(&call)
}

fn restore(world: &World, bundle: &Bundle, id: &str, options: &[&str]) -> Ran {
    let images = images(world);
    let mut call = vec!["restore", "-d", "-b", bundle.path(), "--image-path", &images];
    call.extend(options);
    call.push(id);
    world.run(&call)
}

/// What is in a file of the container's first process.
fn proc_file(world: &World, id: &str, name: &str) -> String {
    let pid = &world.state(id)["pid"];
    std::fs::read_to_string(format!("/proc/{pid}/{name}")).expect("it runs")
}

/// The mount points of a container, and how they are mounted.
fn mounts(world: &World, id: &str) -> Vec<String> {
    let table = proc_file(world, id, "mountinfo");
    let shown = table.lines().map(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        let kind = fields.iter().position(|field| *field == "-").map(|at| fields[at + 1]);
        format!("{} {} {}", fields[4], fields[5], kind.unwrap_or_default())
    });
    let mut shown: Vec<_> = shown.collect();
    shown.sort();
    shown
}

fn it_goes_on_where_it_was(world: &World) {
    let bundle = counter(world, "c")
        .set("/hostname", json!("traveller"))
        .set("/linux/resources", json!({"pids": {"limit": 33}}));
    start(world, &bundle, "c");
    let before = mounts(world, "c");
    checkpoint(world, "c", &[]).ok();
    world.run(&["state", "c"]).fails("does not exist");
    let stopped_at = count(&bundle);
    let pid_file = world.path("pid");
    restore(world, &bundle, "c", &["--pid-file", pid_file.to_str().expect("UTF-8")]).ok();
    assert_eq!(world.status("c"), "running");
    counts_on(&bundle, stopped_at);
    assert_eq!(
        std::fs::read_to_string(pid_file).expect("a pid file"),
        world.state("c")["pid"].to_string()
    );
    assert_eq!(mounts(world, "c"), before);
    // It is in its group, sees that as the root, and has its limits.
    assert!(proc_file(world, "c", "cgroup").contains(&format!("{}/c", world.cgroup)));
    assert_eq!(world.cgroup_file("c", "pids", "pids.max", "pids.max"), "33");
    let ran = world.run(&["exec", "c", "sh", "-c", "hostname; cat /proc/1/cgroup"]).ok();
    assert_eq!(ran.output, "traveller\n0::/\n");
    world.run(&["kill", "c", "KILL"]).ok();
    assert!(wait_until(|| world.status("c") == "stopped"));
    world.run(&["delete", "c"]).ok();
}

fn left_running(world: &World) {
    let bundle = counter(world, "c");
    start(world, &bundle, "c");
    checkpoint(world, "c", &["--leave-running"]).ok();
    assert_eq!(world.status("c"), "running");
    counts_on(&bundle, count(&bundle));
    world.run(&["delete", "-f", "c"]).ok();
    let stopped_at = count(&bundle);
    restore(world, &bundle, "d", &[]).ok();
    counts_on(&bundle, stopped_at.min(count(&bundle)));
    world.run(&["delete", "-f", "d"]).ok();
}

fn memory_ahead_of_the_rest(world: &World) {
    let bundle = counter(world, "c");
    start(world, &bundle, "c");
    let first = world.path("images/first").display().to_string();
    let last = world.path("images/last").display().to_string();
    world.run(&["checkpoint", "--pre-dump", "--image-path", &first, "c"]).ok();
    assert_eq!(world.status("c"), "running");
    let last_one = ["checkpoint", "--image-path", &last, "--parent-path", "../first", "c"];
    world.run(&last_one).ok();
    assert!(Path::new(&last).join("parent").exists(), "it does not continue the first");
    let stopped_at = count(&bundle);
    world.run(&["restore", "-d", "-b", bundle.path(), "--image-path", &last, "c"]).ok();
    counts_on(&bundle, stopped_at);
    world.run(&["delete", "-f", "c"]).ok();
}

fn volumes(world: &World) {
    let (old, new) = (world.path("old"), world.path("new"));
    for (dir, text) in [(&old, "old"), (&new, "new")] {
        std::fs::create_dir(dir).expect("make a volume");
        std::fs::write(dir.join("text"), text).expect("fill it");
        std::fs::write(dir.join("single"), text).expect("fill it");
    }
    let with = |bundle: Bundle, dir: &Path| {
        let file = dir.join("single");
        bundle.mount("/volume", "bind", dir.to_str().expect("UTF-8"), &["bind", "ro"]).mount(
            "/etc/single",
            "bind",
            file.to_str().expect("UTF-8"),
            &["bind"],
        )
    };
    let bundle = with(counter(world, "c"), &old);
    start(world, &bundle, "c");
    checkpoint(world, "c", &[]).ok();
    // Without the volume there is nothing to restore it with.
    let mut without = bundle.config.clone();
    without["mounts"].as_array_mut().expect("mounts").retain(|m| m["destination"] != "/volume");
    let bundle = Bundle { config: without, ..bundle };
    bundle.save();
    restore(world, &bundle, "c", &[]).fails("config.json binds nothing to /volume");
    world.run(&["state", "c"]).fails("does not exist");
    let bundle = with(bundle.without_mount("/etc/single"), &new);
    let stopped_at = count(&bundle);
    restore(world, &bundle, "c", &[]).ok();
    counts_on(&bundle, stopped_at);
    let script = "cat /volume/text /etc/single; echo no 2>/dev/null >/volume/text || echo ' ro'";
    world.run(&["exec", "c", "sh", "-c", script]).ok().prints("newnew ro\n");
    // What was masked still is.
    world.run(&["exec", "c", "cat", "/proc/timer_list"]).ok().prints("");
    world.run(&["delete", "-f", "c"]).ok();
}

/// On an overlay the checkpoint keeps what the program has written, until the container that was
/// made of it is deleted.
fn its_writable_layer(world: &World) {
    let bundle = counter(world, "c");
    let lower = bundle.dir.join("lower");
    std::fs::rename(bundle.dir.join("rootfs"), &lower).expect("make a layer");
    std::fs::create_dir(bundle.dir.join("rootfs")).expect("make the mount point");
    let layers = json!([lower]).to_string();
    let bundle = bundle.set("/annotations", json!({"org.minirun.overlay.lowerdirs": layers}));
    world.run(&["create", "-b", bundle.path(), "c"]).ok();
    world.run(&["start", "c"]).ok();
    let written = || {
        let ran = world.run(&["exec", "c", "cat", "/tmp/count"]);
        ran.output.trim().parse().unwrap_or(0)
    };
    assert!(wait_until(|| written() > 2));
    checkpoint(world, "c", &[]).ok();
    let layer = bundle.dir.join(".minirun-c/upper/tmp/count");
    let stopped_at: u64 = std::fs::read_to_string(&layer).expect("kept").trim().parse().expect("n");
    assert!(stopped_at > 2);
    restore(world, &bundle, "c", &[]).ok();
    assert!(wait_until(|| written() > stopped_at + 2), "it stopped at {}", written());
    world.run(&["delete", "-f", "c"]).ok();
    assert!(!bundle.dir.join(".minirun-c").exists(), "the layer is left");
    assert!(!lower.join("tmp/count").exists(), "the image was written to");
}

fn a_network_namespace_of_others(world: &World) {
    let keeper = world.program(programs::find("unshare").expect("unshare"));
    let keeper =
        keeper.args(&["--net", "--uts", "sh", "-c", "echo ready; exec sleep 1000"]).spawn();
    keeper.wait_for("ready");
    let theirs = format!("/proc/{}/ns/net", keeper.pid().as_raw_nonzero());
    let bundle = counter(world, "c").join_namespace("network", &theirs);
    start(world, &bundle, "c");
    checkpoint(world, "c", &[]).ok();
    let stopped_at = count(&bundle);
    restore(world, &bundle, "c", &[]).ok();
    counts_on(&bundle, stopped_at);
    let inode = |file: &str| std::fs::read_link(file).expect("a namespace");
    let ours = format!("/proc/{}/ns/net", world.state("c")["pid"]);
    assert_eq!(inode(&ours), inode(&theirs));
    world.run(&["delete", "-f", "c"]).ok();
    keeper.signal(rustix::process::Signal::KILL);
    keeper.wait();
}

fn in_the_foreground(world: &World) {
    // Nothing is written before: CRIU wants the file that takes its place to be as long.
    let script = "trap 'echo bye; exit 7' TERM; : >/dev/shm/ready; while :; do sleep 0.05; done";
    let bundle = world.bundle("c").shell(script);
    let running = world.minirun(&["run", bundle.path()]).spawn();
    let is_ready = || world.run(&["exec", "c", "test", "-e", "/dev/shm/ready"]).status == 0;
    assert!(wait_until(is_ready));
    let before = mounts(world, "c");
    checkpoint(world, "c", &["--leave-running"]).ok();
    world.run(&["kill", "c", "KILL"]).ok();
    running.wait().exits(137);
    // Its first process would die with this command.
    restore(world, &bundle, "c", &[]).fails("without --detach");
    let images = images(world);
    let call = ["restore", "-b", bundle.path(), "--image-path", &images, "c"];
    let running = world.minirun(&call).spawn();
    assert!(wait_until(|| {
        let ran = world.run(&["state", "c"]);
        !running.is_alive() || (ran.status == 0 && ran.json()["status"] == "running")
    }));
    assert_eq!(mounts(world, "c"), before);
    running.signal(rustix::process::Signal::TERM);
    running.wait().exits(7).prints("bye\n");
    world.run(&["state", "c"]).fails("does not exist");
}

fn its_terminal(world: &World) {
    let script = "echo ready; while read word; do echo \"got $word\"; done";
    let bundle = world.bundle("c").shell(script).set("/process/terminal", json!(true));
    let socket = world.path("console");
    let path = socket.to_str().expect("UTF-8").to_owned();
    let listener = UnixListener::bind(&socket).expect("a socket");
    let creating = world.minirun(&["create", "-b", bundle.path(), "--console-socket", &path, "c"]);
    let creating = creating.spawn();
    let (_, first) = receive(&listener);
    creating.wait().ok();
    world.run(&["start", "c"]).ok();
    let mut terminal = std::fs::File::from(first);
    read_until(&mut terminal, "ready");
    checkpoint(world, "c", &["--shell-job"]).ok();
    drop(terminal);
    let images = images(world);
    let call = ["restore", "-d", "-b", bundle.path(), "--image-path", &images, "--shell-job"];
    let restoring = world.minirun(&call).args(&["--console-socket", &path, "c"]).spawn();
    let (_, second) = receive(&listener);
    restoring.wait().ok();
    let mut terminal = std::fs::File::from(second);
    std::io::Write::write_all(&mut terminal, b"hello\n").expect("type");
    read_until(&mut terminal, "got hello");
    world.run(&["delete", "-f", "c"]).ok();
}

fn read_until(terminal: &mut std::fs::File, words: &str) {
    let (mut seen, mut buffer) = (String::new(), [0; 256]);
    while !seen.contains(words) {
        let count = std::io::Read::read(terminal, &mut buffer).expect("read the terminal");
        assert!(count > 0, "{words:?} did not come: {seen:?}");
        seen += &String::from_utf8_lossy(&buffer[..count]);
    }
}

fn paused(world: &World) {
    let bundle = counter(world, "c");
    start(world, &bundle, "c");
    world.run(&["pause", "c"]).ok();
    checkpoint(world, "c", &["--leave-running"]).ok();
    assert_eq!(world.status("c"), "paused");
    world.run(&["resume", "c"]).ok();
    counts_on(&bundle, count(&bundle));
    world.run(&["delete", "-f", "c"]).ok();
    restore(world, &bundle, "c", &[]).ok();
    assert_eq!(world.status("c"), "running");
    world.run(&["delete", "-f", "c"]).ok();
}

fn hooks_see_it_come_back(world: &World) {
    let log = world.path("hooks");
    let hook = |name: &str| {
        let script = format!("cat >>{0}; echo \" {name}\" >>{0}", log.display());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
    };
    let bundle = counter(world, "c");
    start(world, &bundle, "c");
    checkpoint(world, "c", &[]).ok();
    let bundle = bundle.set("/hooks", json!({"prestart": hook("prestart")}));
    restore(world, &bundle, "c", &[]).ok();
    let said = std::fs::read_to_string(&log).expect("the hook ran");
    let state: serde_json::Value =
        serde_json::from_str(said.trim().trim_end_matches(" prestart")).expect("a state");
    assert_eq!(state["pid"], world.state("c")["pid"]);
    world.run(&["delete", "-f", "c"]).ok();
    // A hook that fails ends it all.
    let failing = json!({"prestart": [{"path": "/bin/false"}]});
    let bundle = bundle.set("/hooks", failing);
    restore(world, &bundle, "c", &[]).fails("run hook prestart /bin/false");
    world.run(&["state", "c"]).fails("does not exist");
}

fn groups_by_criu(world: &World) {
    let bundle = counter(world, "c");
    start(world, &bundle, "c");
    checkpoint(world, "c", &["--manage-cgroups-mode", "soft"]).ok();
    let stopped_at = count(&bundle);
    restore(world, &bundle, "c", &["--manage-cgroups-mode", "soft"]).ok();
    counts_on(&bundle, stopped_at);
    assert!(proc_file(world, "c", "cgroup").contains(&format!("{}/c", world.cgroup)));
    world.run(&["exec", "c", "cat", "/proc/1/cgroup"]).ok().prints("0::/\n");
    world.run(&["delete", "-f", "c"]).ok();
}

fn what_criu_refuses(world: &World) {
    let (theirs, _ours) = UnixStream::pair().expect("a pair of sockets");
    let bundle = counter(world, "c");
    world
        .minirun(&["create", "-b", bundle.path(), "c"])
        .input(std::os::fd::OwnedFd::from(theirs))
        .run()
        .ok();
    world.run(&["start", "c"]).ok();
    assert!(wait_until(|| count(&bundle) > 2));
    let ran = checkpoint(world, "c", &[]).fails("work with criu: dump failed");
    assert!(ran.errors.contains("Error (criu/"), "it does not say why: {}", ran.errors);
    assert!(ran.errors.contains("dump.log"), "{}", ran.errors);
    assert_eq!(world.status("c"), "running");
    counts_on(&bundle, count(&bundle));
    world.run(&["delete", "-f", "c"]).ok();
}

fn a_failed_restore_leaves_nothing(world: &World) {
    let bundle = counter(world, "c");
    start(world, &bundle, "c");
    checkpoint(world, "c", &[]).ok();
    let images = world.path("images");
    let core = std::fs::read_dir(&images)
        .expect("images")
        .flatten()
        .find(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with("core-")));
    std::fs::write(core.expect("an image of a process").path(), "broken").expect("break it");
    restore(world, &bundle, "c", &[]).fails("work with criu: restore failed");
    world.run(&["state", "c"]).fails("does not exist");
    world.run(&["list", "-q"]).ok().prints("");
}

fn mount_points_that_became_links(world: &World) {
    let outside = world.path("outside");
    std::fs::create_dir(&outside).expect("make it");
    let volume = world.path("volume");
    std::fs::create_dir(&volume).expect("make it");
    let bundle =
        counter(world, "c").mount("/volume", "bind", volume.to_str().expect("UTF-8"), &["bind"]);
    start(world, &bundle, "c");
    checkpoint(world, "c", &[]).ok();
    std::fs::remove_dir(bundle.rootfs("volume")).expect("it was made for the mount");
    let bundle = bundle.link("volume", &outside);
    restore(world, &bundle, "c", &[]).fails("was a mount point when the checkpoint was made");
    world.run(&["state", "c"]).fails("does not exist");
}

fn how_engines_ask(world: &World) {
    let help = world.run(&["checkpoint", "--help"]).ok().output;
    assert!(help.contains("--image-path") && help.contains("--leave-running"), "{help}");
    world.run(&["restore", "--help"]).ok();
    world.run(&["restore", "--lsm-mount-context"]).fails("flag needs an argument");
}

fn what_cannot_be(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    checkpoint(world, "c", &[]).fails("does not exist");
    restore(world, &bundle, "c", &["--lazy-pages"]).fails("--lazy-pages is not supported");
    world.run(&["create", "-b", bundle.path(), "c"]).ok();
    checkpoint(world, "c", &[]).fails("cannot checkpoint a container that is created");
    checkpoint(world, "c", &["--page-server", "localhost:7"]).fails("--page-server is not");
    checkpoint(world, "c", &["--parent-path", "/absolute"]).fails("relative to --image-path");
    assert_eq!(world.status("c"), "created");
    world.run(&["delete", "-f", "c"]).ok();
    if Need::Program("criu").is_met() {
        std::fs::create_dir(images(world)).expect("make it");
        restore(world, &bundle, "c", &[]).fails("not a checkpoint that minirun has made");
        world.run(&["state", "c"]).fails("does not exist");
    }
}

/// Where the program is not there, the container goes on.
fn without_criu(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    world.run(&["create", "-b", bundle.path(), "c"]).ok();
    world.run(&["start", "c"]).ok();
    let hidden = programs::find("criu").map(|path| path.display().to_string());
    let script = r#"test -z "$1" || mount --bind /dev/null "$1" || exit 9; shift; exec "$@""#;
    let (minirun, root) = (programs::minirun(), world.root());
    let ran = world
        .program(programs::find("unshare").expect("unshare"))
        .args(&["--mount", "sh", "-c", script, "sh", hidden.as_deref().unwrap_or_default()])
        .args(&[minirun.to_str().expect("UTF-8"), "--root", root.to_str().expect("UTF-8")])
        .args(&["checkpoint", "--image-path", &images(world), "c"])
        .run()
        .fails("criu: executable file not found");
    assert!(ran.errors.contains("install its package"), "{}", ran.errors);
    assert_eq!(world.status("c"), "running");
    world.run(&["delete", "-f", "c"]).ok();
}
