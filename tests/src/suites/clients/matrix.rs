//! Each operation with each runtime, and what came of it.

use std::path::Path;

use super::operations::{Operation, SHELL};
use crate::call::Ran;
use crate::world::World;

/// What minirun is compared with.
const PEERS: [&str; 2] = ["runc", "crun"];

/// How long one operation may take, in seconds: a busy host's emulated guest needs ten of them to
/// start three containers, and a call is given up after 180.
const SECONDS: &str = "150";

/// How an engine is called with one of the runtimes.
pub(super) struct Client {
    /// Its client: `$E`.
    pub(super) engine: String,
    /// Chooses the runtime and no network: `$R`. Networks cost an engine more than containers.
    pub(super) isolated: String,
    /// Chooses the runtime: `$NET`.
    pub(super) networked: String,
    /// Removes containers by force.
    pub(super) remove: String,
}

/// Runs every operation with every runtime; the rows in which minirun is behind are the failure.
///
/// What minirun does right needs no comparison, so the others are asked only where it fails, or
/// when somebody wants the whole table (`MINIRUN_TESTS_ALL`). `MINIRUN_TESTS_OPERATION` leaves the
/// operations whose names hold its text, or one of several between `|`.
pub(super) fn compare(
    world: &World,
    engine: &str,
    operations: &[Operation],
    client: impl Fn(&str) -> Client,
) {
    let all = std::env::var_os("MINIRUN_TESTS_ALL").is_some();
    let wanted = std::env::var("MINIRUN_TESTS_OPERATION").unwrap_or_default();
    let wanted =
        |operation: &&Operation| wanted.split('|').any(|part| operation.name.contains(part));
    // A row is printed when it is known, and why somebody fails beside it: the whole table may take
    // an hour.
    println!("\n| {engine} | runc | crun | minirun |\n|---|---|---|---|");
    let mut behind = Vec::new();
    for (index, operation) in operations.iter().filter(wanted).enumerate() {
        let name = operation.name;
        let attempt = |runtime: &str| {
            let dir = world.path(&format!("{index}-{runtime}"));
            attempt(world, &dir, operation, &format!("n{index}{runtime}"), &client(runtime))
        };
        let ours = attempt("minirun");
        if ours.is_ok() && !all {
            println!("| {name} | | | yes |");
            continue;
        }
        let others = PEERS.map(attempt);
        let [runc, crun] = others.each_ref().map(mark);
        println!("| {name} | {runc} | {crun} | {} |", mark(&ours));
        for (peer, other) in PEERS.iter().zip(&others) {
            if let Err(reason) = other {
                eprintln!("{name}, {peer}: {reason}");
            }
        }
        if let Err(reason) = ours {
            let reason = format!("{name}, minirun: {reason}");
            eprintln!("{reason}");
            if others.iter().any(Result::is_ok) {
                behind.push(reason);
            }
        }
    }
    assert!(behind.is_empty(), "minirun is behind:\n{}", behind.join("\n"));
}

fn mark(outcome: &Result<(), String>) -> &'static str {
    if outcome.is_ok() { "yes" } else { "no" }
}

/// One operation with one runtime; what was wrong with it.
fn attempt(
    world: &World,
    dir: &Path,
    operation: &Operation,
    container: &str,
    client: &Client,
) -> Result<(), String> {
    std::fs::create_dir(dir).expect("make a directory");
    let shell = |lines: &str| -> Ran {
        world
            .program("/usr/bin/timeout")
            .args(&["-k", "10", SECONDS, "/bin/sh", "-c", &format!("{SHELL}\n{lines}")])
            .directory(dir)
            .env("E", &client.engine)
            .env("R", &client.isolated)
            .env("NET", &client.networked)
            .env("RM", &client.remove)
            .env("N", container)
            .env("I", super::engines::IMAGE_OF_CONTAINERD)
            .run()
    };
    let ran = shell(&operation.lines);
    // A client costs a second in a guest: what has no name removes itself.
    if ["$N", "up ", "$(pod)"].iter().any(|named| operation.lines.contains(named)) {
        shell("$RM $N $N-2 >/dev/null 2>&1");
    }
    let expected = operation.expected.replace("$N", container);
    if ran.output.trim_end() == expected {
        return Ok(());
    }
    let hung = if ran.status == 124 { "it hung; " } else { "" };
    Err(format!("{hung}printed {:?} for {expected:?}: {}", ran.output, ran.errors.trim()))
}
