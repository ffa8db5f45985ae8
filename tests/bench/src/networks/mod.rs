//! What a network costs a start: minirun's bridge beside those of Podman (netavark) and Docker.
//!
//! ```text
//! cargo run --release -p bench -- --networks 20
//! ```
//! Every engine starts the same program that does nothing, once with loopback only and once on its
//! bridge, in turns and in the same run; the difference is what the network costs. All of it happens
//! in network and mount namespaces of its own, Docker's daemon included, so the host keeps its
//! interfaces, its rules and its settings. An engine that cannot run here is named with its own
//! words; the guest of the profile docker has all of them.

mod engines;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::work::Workshop;
use engines::Engine;

/// What makes the namespaces a host: minirun and the engines keep what they know below these.
const HOST: &str = "mount -t tmpfs run /run && mount -t tmpfs lib /var/lib && \
                    ip link set lo up && exec \"$@\"";

/// Goes into the namespaces and measures there.
pub(crate) fn run(minirun: &Path, rounds: usize, pause: Duration) -> Result<()> {
    let mut inside = Command::new("unshare");
    inside.args(["--net", "--mount", "--propagation", "private", "sh", "-c", HOST, "sh"]);
    inside.arg(std::env::current_exe()?).args(["--networks", &rounds.to_string()]);
    inside.args(["--pause-ms", &pause.as_millis().to_string(), "--minirun"]).arg(minirun);
    // Only comes back when it fails.
    Err(inside.arg("--inside").exec()).context("run unshare (package util-linux)")
}

/// The figures of one engine, in microseconds.
#[derive(Debug, Default)]
struct Times {
    without: Vec<u64>,
    with: Vec<u64>,
}

/// Measures, on a host that may be changed.
pub(crate) fn measure(minirun: &Path, rounds: usize, pause: Duration) -> Result<()> {
    let workshop = Workshop::open(minirun)?;
    let (engines, _daemon) = engines::find(minirun, &workshop)?;
    let mut all: Vec<Times> = engines.iter().map(|_| Times::default()).collect();
    for _ in 0..rounds {
        for (engine, times) in engines.iter().zip(&mut all) {
            std::thread::sleep(pause);
            times.without.push(timed(engine, false)?);
            std::thread::sleep(pause);
            times.with.push(timed(engine, true)?);
        }
    }
    println!(
        "\n{:<16}{:>12}{:>12}{:>12}{:>12}",
        "ms, median", "loopback", "bridge", "difference", "min"
    );
    for (engine, times) in engines.iter().zip(&mut all) {
        times.without.sort_unstable();
        times.with.sort_unstable();
        let ms = |micros: f64| format!("{:.2}", micros / 1000.0);
        let middle = |times: &[u64]| times.get(times.len() / 2).map_or(0.0, |time| *time as f64);
        let least = |times: &[u64]| times.first().map_or(0.0, |time| *time as f64);
        let (without, with) = (middle(&times.without), middle(&times.with));
        let least = least(&times.with) - least(&times.without);
        println!(
            "{:<16}{:>12}{:>12}{:>12}{:>12}",
            engine.name,
            ms(without),
            ms(with),
            ms(with - without),
            ms(least)
        );
    }
    println!("min: the difference of the two fastest; {rounds} rounds");
    Ok(())
}

fn timed(engine: &Engine, network: bool) -> Result<u64> {
    let begun = Instant::now();
    call(&mut engine.command(network)).with_context(|| engine.name.clone())?;
    Ok(u64::try_from(begun.elapsed().as_micros())?)
}

/// Runs a command, and gives what it said when it fails.
fn call(command: &mut Command) -> Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!("{}: {}", output.status, said.trim().lines().last().unwrap_or_default())
}
