//! `cargo xtask storm footprint`: what a supervisor costs the host, by the number of replicas.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Storm;

const ROLES: [&str; 3] = ["keeper", "brain", "plane"];
/// How long is listened to what the processes use while nothing but probes happens.
const QUIET: Duration = Duration::from_secs(20);

/// Starts 3, 30, 300 and 1000 replicas, each probed every second, and prints a row of a table
/// for each; then how long it takes to end them all.
pub(super) fn measure(storm: &Storm) -> Result<()> {
    println!(
        "| replicas | ready after | resident (proportional share) | share per replica \
              | processor, idle |\n|---|---|---|---|---|"
    );
    let mut first = None;
    for replicas in [3_u32, 30, 300, 1000] {
        let begun = Instant::now();
        storm.up(&replicas.to_string(), &["--health-interval", "1s"])?;
        let ready = begun.elapsed().as_secs_f64();
        std::thread::sleep(Duration::from_secs(5));
        let before = ticks(storm)?;
        std::thread::sleep(QUIET);
        // proc_pid_stat(5): a hundred ticks are a second.
        let busy = f64::from(u32::try_from(ticks(storm)? - before)?) / QUIET.as_secs_f64();
        let (resident, share) = memory(storm)?;
        let (least, few) = *first.get_or_insert((share, replicas));
        let each = match replicas - few {
            0 => "–".to_string(),
            more => format!("{} KiB", share.saturating_sub(least) / u64::from(more)),
        };
        let [resident, share] = [resident, share].map(mebibytes);
        println!("| {replicas} | {ready:.2} s | {resident} ({share}) | {each} | {busy:.2} % |");
    }
    let begun = Instant::now();
    storm.minisup(&["down"])?;
    println!("down: {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// The processor time of all three processes so far, in ticks.
fn ticks(storm: &Storm) -> Result<u64> {
    let mut sum = 0;
    for pid in pids(storm)? {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // After the name, which may hold anything: state is field 3, times are 14 and 15.
        let (_, fields) = stat.rsplit_once(')').context("a line of /proc/PID/stat")?;
        for field in fields.split_whitespace().skip(11).take(2) {
            sum += field.parse::<u64>()?;
        }
    }
    Ok(sum)
}

/// What each of the three processes has in memory, in words.
pub(super) fn resident(storm: &Storm) -> Result<String> {
    let mut words = Vec::new();
    for (role, pid) in ROLES.iter().zip(pids(storm)?) {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        words.push(format!("{role} {}", line.context("a line of /proc/PID/status")?.trim()));
    }
    Ok(words.join(", "))
}

/// Resident memory of all three processes, and their proportional share of it, in KiB.
fn memory(storm: &Storm) -> Result<(u64, u64)> {
    let (mut resident, mut share) = (0, 0);
    for pid in pids(storm)? {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        for line in rollup.lines() {
            let mut words = line.split_whitespace();
            let sum = match words.next() {
                Some("Rss:") => &mut resident,
                Some("Pss:") => &mut share,
                _ => continue,
            };
            *sum += words.next().context("a line of smaps_rollup")?.parse::<u64>()?;
        }
    }
    Ok((resident, share))
}

fn pids(storm: &Storm) -> Result<Vec<String>> {
    let pid = |role| storm.role(role).with_context(|| format!("the {role} does not run"));
    ROLES.into_iter().map(pid).collect()
}

fn mebibytes(kibibytes: u64) -> String {
    format!("{}.{} MiB", kibibytes / 1024, kibibytes % 1024 * 10 / 1024)
}
