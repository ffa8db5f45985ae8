//! What minirun may cost, where no clock decides: the size of the program, what it is made of, how
//! many system calls and page faults a run takes, how much memory it needs.
//!
//! The bounds are generous; the figures are printed, so that a change shows before it hurts.

use crate::call::{Call, wait_until};
use crate::needs::Need;
use crate::world::World;
use crate::{Test, programs, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("size_of_the_program", size_of_the_program).needs(Need::ReleaseBuild),
        test("crates", crates).needs(Need::Program("cargo")).needs(Need::Workspace),
        test("system_calls_of_a_run", system_calls_of_a_run).needs(Need::Program("strace")),
        test("system_calls_of_create_start_delete", system_calls_of_create_start_delete)
            .needs(Need::Program("strace"))
            .needs(Need::ReleaseBuild),
        test("memory_of_a_run", memory_of_a_run).needs(Need::ReleaseBuild),
        test("nothing_is_loaded", nothing_is_loaded),
    ]
}

#[track_caller]
fn within(what: &str, figure: u64, bound: u64) {
    eprintln!("budget: {what}: {figure} (at most {bound})");
    assert!(figure <= bound, "{what}: {figure} is more than {bound}");
}

fn size_of_the_program(_: &World) {
    let size = std::fs::metadata(programs::minirun()).expect("minirun").len();
    within("bytes of the program", size, 3_500_000);
}

fn crates(world: &World) {
    let manifest = programs::source().expect("the source").join("Cargo.toml");
    let ran = world
        .program(programs::find("cargo").expect("cargo"))
        .args(&["tree", "--offline", "--quiet", "--package", "minirun", "--edges", "normal"])
        .args(&["--prefix", "none", "--manifest-path", manifest.to_str().expect("UTF-8")])
        .run()
        .exits(0);
    let names: std::collections::BTreeSet<_> =
        ran.output.lines().filter_map(|line| line.split(' ').next()).collect();
    within("crates of minirun", names.len() as u64, 68);
}

/// Where there is a tree for each controller, each wants its own.
fn by_version(v2: u64, v1: u64) -> u64 {
    if Need::CgroupV2.is_met() { v2 } else { v1 }
}

/// The first container below a group enables the controllers there; the next one finds it done.
fn system_calls_of_a_run(world: &World) {
    let counts = ["first", "next"].map(|id| {
        let bundle = world.bundle(id).args(&["/bin/probe", "exit", "0"]);
        traced(world, id, &["run", bundle.path()]).run().exits(0);
        calls_of_minirun(world, id)
    });
    within("system calls until the first program runs", counts[0], by_version(450, 800));
    within("system calls until the next program runs", counts[1], by_version(400, 750));
}

/// minirun under strace, which writes to the file `log` of the test.
fn traced(world: &World, log: &str, arguments: &[&str]) -> Call {
    let log = world.path(&format!("strace-{log}"));
    let (minirun, root) = (programs::minirun(), world.root());
    world
        .program(programs::find("strace").expect("strace"))
        .args(&["-f", "-qq", "-o", log.to_str().expect("UTF-8")])
        .args(&[minirun.to_str().expect("UTF-8"), "--root", root.to_str().expect("UTF-8")])
        .args(arguments)
}

/// How many calls a trace holds, up to the program of the container: what it does is its own
/// business.
fn calls_of_minirun(world: &World, log: &str) -> u64 {
    let trace = std::fs::read_to_string(world.path(&format!("strace-{log}"))).expect("a trace");
    let ours = trace.lines().take_while(|line| !line.contains("execve(\"/bin/probe\""));
    ours.filter(|line| line.contains('(') && !line.contains(" resumed>")).count() as u64
}

/// What an engine makes of a container: three programs, and init between them.
fn system_calls_of_create_start_delete(world: &World) {
    let counts = ["first", "next"].map(|id| life(world, id));
    within("system calls of the first create, start, delete", counts[0], by_version(480, 850));
    within("system calls of the next create, start, delete", counts[1], by_version(430, 800));
}

fn life(world: &World, id: &str) -> u64 {
    let bundle = world.bundle(id).args(&["/bin/probe", "exit", "0"]);
    let log = |verb: &str| format!("{id}-{verb}");
    // strace stays until the end of init, which it also watches.
    let create = ["create", "-b", bundle.path(), id];
    let creating = traced(world, &log("create"), &create).spawn();
    assert!(wait_until(|| world.run(&["state", id]).output.contains("\"created\"")));
    traced(world, &log("start"), &["start", id]).run().ok();
    creating.wait().ok();
    assert!(wait_until(|| world.status(id) == "stopped"));
    traced(world, &log("delete"), &["delete", id]).run().ok();
    let counts = ["create", "start", "delete"].map(|verb| calls_of_minirun(world, &log(verb)));
    let [create, start, delete] = counts;
    eprintln!("budget: {id}: create {create}, start {start}, delete {delete}");
    counts.iter().sum()
}

fn memory_of_a_run(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    let running = world.minirun(&["run", bundle.path()]).spawn();
    running.wait_for("waiting");
    let pid = running.pid().as_raw_nonzero().get();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    world.run(&["kill", "c", "KILL"]).ok();
    running.wait().exits(137);
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    within("peak memory in KiB", peak.expect("a peak"), 4096);
    // After the command in parentheses: state is field 3, minor faults are field 10.
    let fields = stat.rsplit_once(") ").expect("a command").1.split(' ');
    let faults = fields.clone().nth(7).and_then(|field| field.parse().ok());
    within("page faults of the parent", faults.expect("a number"), 600);
}

fn nothing_is_loaded(_: &World) {
    let program = std::fs::read(programs::minirun()).expect("minirun");
    let interpreter = program.windows(8).any(|bytes| bytes == b"/ld-linu");
    assert!(!interpreter, "minirun is not static");
}
