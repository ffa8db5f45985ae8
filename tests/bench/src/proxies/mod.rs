//! minisup's data plane beside nginx and HAProxy: the same answers, the same client, in turns.
//!
//! ```text
//!   wrk ─▶ proxy ─▶ two responders (this program), in containers for minisup, bare for the others
//! ```
//!
//! Each proxy has one worker or thread. A round measures every proxy once, so that what else the
//! machine does falls on all of them; medians of the rounds are printed, with the processor time
//! that the proxy itself took per request, which depends least on the neighbours.

mod peers;
pub(crate) mod respond;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use peers::Proxy;

/// What is to be measured.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    /// How long wrk asks a proxy, each time.
    pub(crate) seconds: u32,
    /// Connections at the same time.
    pub(crate) connections: Vec<u32>,
    /// The kinds of traffic: bytes over TCP, or HTTP.
    pub(crate) tcp: Vec<bool>,
}

/// What one run of wrk found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Run {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    /// The proxy's own processor time for a request, in microseconds.
    cpu_us: f64,
    /// Answers that were none.
    failed: u64,
}

/// Measures and prints, in a directory that is removed afterwards.
pub(crate) fn run(minisup: &Path, plan: &Plan) -> Result<()> {
    let dir = std::env::temp_dir().join(format!("bench-proxies-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let result = peers::start_all(minisup, &dir).and_then(|proxies| {
        let measured = measure(&proxies, plan)?;
        print(&proxies, &measured);
        Ok(())
    });
    std::fs::remove_dir_all(&dir).context("remove the directory of the measurement")?;
    result
}

type Measured = BTreeMap<(bool, u32, usize), Vec<Run>>;

fn measure(proxies: &[Proxy], plan: &Plan) -> Result<Measured> {
    let mut measured = Measured::new();
    for round in 0..plan.rounds {
        for &tcp in &plan.tcp {
            for &connections in &plan.connections {
                // Each round begins with another, for whoever comes first finds the machine colder.
                for turn in 0..proxies.len() {
                    let which = (turn + round) % proxies.len();
                    let run = once(&proxies[which], tcp, connections, plan.seconds)?;
                    measured.entry((tcp, connections, which)).or_default().push(run);
                }
            }
        }
        eprintln!("round {} of {}", round + 1, plan.rounds);
    }
    Ok(measured)
}

fn once(proxy: &Proxy, tcp: bool, connections: u32, seconds: u32) -> Result<Run> {
    let port = if tcp { proxy.tcp_port } else { proxy.http_port };
    let before = proxy.cpu_us()?;
    let output = Command::new("wrk")
        .args(["-t1", "--latency", "-c", &connections.to_string(), "-d", &seconds.to_string()])
        .arg(format!("http://127.0.0.1:{port}/"))
        .output()
        .context("wrk, from the package of that name")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (mut run, requests) = understand(&text).with_context(|| format!("wrk said {text}"))?;
    run.cpu_us = (proxy.cpu_us()? - before) / requests.max(1.0);
    Ok(run)
}

/// Reads what wrk prints.
fn understand(text: &str) -> Result<(Run, f64)> {
    let mut run = Run::default();
    let mut requests = 0.0;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["50%", time] => run.p50_us = micros(time)?,
            ["99%", time] => run.p99_us = micros(time)?,
            ["Requests/sec:", rate] => run.per_second = rate.parse()?,
            [count, "requests", "in", ..] => requests = count.parse()?,
            ["Non-2xx", .., count] => run.failed += count.parse::<u64>()?,
            ["Socket", "errors:", ..] => {
                let numbers =
                    words.iter().filter_map(|w| w.trim_end_matches(',').parse::<u64>().ok());
                run.failed += numbers.sum::<u64>();
            }
            _ => {}
        }
    }
    if run.per_second == 0.0 {
        bail!("no rate in it");
    }
    Ok((run, requests))
}

/// `1.23ms` in microseconds.
fn micros(text: &str) -> Result<f64> {
    let units = [("us", 1.0), ("ms", 1000.0), ("s", 1_000_000.0)];
    let unit = units.iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, size)));
    let (number, size) = unit.with_context(|| format!("{text} is no time"))?;
    Ok(number.parse::<f64>()? * size)
}

fn median(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn print(proxies: &[Proxy], measured: &Measured) {
    println!(
        "| kind | connections | proxy | requests/s | minisup's share | p50 µs | p99 µs | CPU µs | failed |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for ((tcp, connections, which), runs) in measured {
        let rate = |runs: &[Run]| median(runs, |run| run.per_second);
        let ours = measured.get(&(*tcp, *connections, 0)).map_or(0.0, |runs| rate(runs));
        println!(
            "| {} | {connections} | {} | {:.0} | {:.2} | {:.0} | {:.0} | {:.1} | {} |",
            if *tcp { "TCP" } else { "HTTP" },
            proxies[*which].name,
            rate(runs),
            ours / rate(runs),
            median(runs, |run| run.p50_us),
            median(runs, |run| run.p99_us),
            median(runs, |run| run.cpu_us),
            runs.iter().map(|run| run.failed).sum::<u64>(),
        );
    }
    for proxy in proxies {
        println!("{}: {} KiB resident at most", proxy.name, proxy.peak_kib());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_prints_is_understood() {
        let text = "Running 3s test @ http://127.0.0.1:1/\n  Latency Distribution\n     50%  512.00us\n\
                    \x20    75%    1.00ms\n     99%    2.50ms\n  1000 requests in 3.00s, 1MB read\n\
                    \x20 Socket errors: connect 0, read 1, write 0, timeout 2\n\
                    \x20 Non-2xx or 3xx responses: 4\nRequests/sec:  333.33\n";
        let (run, requests) = understand(text).unwrap();
        let expected =
            Run { per_second: 333.33, p50_us: 512.0, p99_us: 2500.0, cpu_us: 0.0, failed: 7 };
        assert_eq!((run, requests), (expected, 1000.0));
        assert!(understand("unable to connect").is_err());
    }
}
