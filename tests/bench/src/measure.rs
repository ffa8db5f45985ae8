//! Measuring: in turns, with pauses, and what a clock does not show.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;

use crate::peers::Peer;
use crate::work::{Operation, Workshop};

/// The figures of one peer for one operation.
#[derive(Debug, Serialize)]
pub(crate) struct Measurement {
    pub(crate) operation: &'static str,
    pub(crate) peer: &'static str,
    pub(crate) version: String,
    pub(crate) runs: usize,
    pub(crate) min_us: u64,
    pub(crate) median_us: u64,
    pub(crate) p90_us: u64,
    pub(crate) p99_us: u64,
    /// The largest process, KiB.
    pub(crate) peak_kib: Option<i64>,
    /// Of all processes; `None` without strace.
    pub(crate) syscalls: Option<u64>,
}

/// Measures every peer `runs` times, one after the other in each round.
pub(crate) fn in_turns(
    workshop: &Workshop,
    operation: Operation,
    peers: &[&Peer],
    runs: usize,
    pause: Duration,
) -> Result<Vec<Measurement>> {
    for peer in peers {
        workshop.prepare(operation, peer)?;
    }
    let mut times: Vec<Vec<u64>> = vec![Vec::new(); peers.len()];
    for _ in 0..runs {
        for (peer, times) in peers.iter().zip(&mut times) {
            std::thread::sleep(pause);
            let took = workshop.once(operation, peer).with_context(|| peer.name)?;
            times.push(u64::try_from(took.as_micros())?);
        }
    }
    let mut measured = Vec::new();
    for (peer, mut times) in peers.iter().zip(times) {
        times.sort_unstable();
        measured.push(Measurement {
            operation: operation.name(),
            peer: peer.name,
            version: peer.version.clone(),
            runs,
            min_us: percentile(&times, 0),
            median_us: percentile(&times, 50),
            p90_us: percentile(&times, 90),
            p99_us: percentile(&times, 99),
            peak_kib: workshop.typical(operation, peer).map(peak).transpose()?,
            syscalls: workshop.typical(operation, peer).and_then(syscalls),
        });
    }
    for peer in peers {
        workshop.clean_up(operation, peer)?;
    }
    Ok(measured)
}

/// The value below which `percent` of the sorted `times` are.
fn percentile(times: &[u64], percent: usize) -> u64 {
    let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(index).copied().unwrap_or(0)
}

/// The peak memory of a command, asked of a process of its own: the kernel keeps one maximum for
/// all children of a process.
fn peak(command: Command) -> Result<i64> {
    let mut asked = Command::new(std::env::current_exe()?);
    asked.arg("--peak-of").arg(command.get_program()).args(command.get_args());
    let output = asked.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("{command:?}: {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
}

/// The inner half of [`peak`].
pub(crate) fn print_peak(command: &[String]) -> Result<()> {
    let (program, arguments) = command.split_first().context("no command")?;
    let mut child = Command::new(program);
    child.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    let status = child.status()?;
    if !status.success() {
        bail!("{status}");
    }
    println!("{}", getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss());
    Ok(())
}

/// How many system calls a command and its children make.
fn syscalls(command: Command) -> Option<u64> {
    let log = std::env::temp_dir().join(format!("minirun-bench-strace-{}", std::process::id()));
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-o"]).arg(&log).arg("--");
    traced.arg(command.get_program()).args(command.get_args());
    traced.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = traced.status().ok()?;
    let text = std::fs::read_to_string(&log).ok()?;
    drop(std::fs::remove_file(&log));
    let is_call = |line: &&str| line.contains('(') && !line.contains(" resumed>");
    status.success().then(|| text.lines().filter(is_call).count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&times, 0), 1);
        assert_eq!(percentile(&times, 50), 51);
        assert_eq!(percentile(&times, 99), 100);
        assert_eq!(percentile(&[7], 99), 7);
        assert_eq!(percentile(&[], 50), 0);
    }
}
