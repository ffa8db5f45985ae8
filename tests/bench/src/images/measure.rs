//! What a command costs: the clock, the processors, the memory.

use crate::contender::Contender;
use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};
use std::process::{Command, Stdio};
use std::time::Instant;

/// One measurement.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) wall_ms: u64,
    /// How much longer a process worked that the command left in the background.
    pub(crate) background_ms: u64,
    /// User and system time of all processes, those in the background as well.
    pub(crate) processor_ms: u64,
    /// The largest process, in KiB.
    pub(crate) peak_kib: i64,
}

/// Runs a command in a process of its own, which asks the kernel: it keeps one maximum for all
/// children of a process. `has_background`: the command leaves a process behind that ends.
pub(crate) fn cost(command: &Command, has_background: bool) -> Result<Sample> {
    let mut asked = Command::new(std::env::current_exe()?);
    if has_background {
        asked.arg("--with-background");
    }
    asked.arg("--cost-of").arg(command.get_program()).args(command.get_args());
    let output = asked.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("{command:?}: {}", output.status);
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The inner half of [`cost`].
pub(crate) fn print_cost(command: &[String], has_background: bool) -> Result<()> {
    // What loses its parent becomes ours.
    linux::prctl::set_child_subreaper(has_background)?;
    let (program, arguments) = command.split_first().context("no command")?;
    let mut child = Command::new(program);
    child.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    let begin = Instant::now();
    let status = child.status().with_context(|| format!("start {program}"))?;
    let wall_ms = u64::try_from(begin.elapsed().as_millis())?;
    if !status.success() {
        bail!("{status}");
    }
    if has_background {
        while nix::sys::wait::wait().is_ok() {}
    }
    let background_ms = u64::try_from(begin.elapsed().as_millis())? - wall_ms;
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let processor = usage.user_time().num_milliseconds() + usage.system_time().num_milliseconds();
    let processor_ms = u64::try_from(processor)?;
    let sample = Sample { wall_ms, background_ms, processor_ms, peak_kib: usage.max_rss() };
    println!("{}", serde_json::to_string(&sample)?);
    Ok(())
}

/// The medians as a table, with the ratio of the clocks to rootfs-tools.
pub(crate) fn table(measured: &[(Contender, Vec<Sample>)]) -> String {
    let median = |samples: &[Sample], of: fn(&Sample) -> u64| {
        let mut values: Vec<_> = samples.iter().map(of).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    let wall = |samples: &[Sample]| median(samples, |sample| sample.wall_ms);
    let ours = measured.iter().find(|(contender, _)| *contender == Contender::RootfsTools);
    let ours = ours.map(|(_, samples)| wall(samples)).filter(|wall| *wall > 0);
    let mut text = format!(
        "{:<28}{:>10}{:>10}{:>10}{:>12}{:>10}\n",
        "", "median s", "least s", "ratio", "processor s", "peak MB"
    );
    for (contender, samples) in measured {
        let least = samples.iter().map(|sample| sample.wall_ms).min().unwrap_or_default();
        let seconds = |ms: u64| format!("{}.{:02}", ms / 1000, ms % 1000 / 10);
        let ratio = |ours| format!("{:.2}", wall(samples) as f64 / ours as f64);
        let peak = samples.iter().map(|sample| sample.peak_kib).max().unwrap_or_default();
        text += &format!(
            "{:<28}{:>10}{:>10}{:>10}{:>12}{:>10.1}\n",
            contender.name(),
            seconds(wall(samples)),
            seconds(least),
            ours.map_or_else(String::new, |ours: u64| ratio(ours)),
            seconds(median(samples, |sample| sample.processor_ms)),
            peak as f64 / 1024.0,
        );
    }
    text
}
