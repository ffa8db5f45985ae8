//! `minisup stats`: what every replica uses, at once.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::{project, table};
use crate::brain::api::views::StatsView;
use crate::brain::traffic::TrafficView;
use crate::client::Client;
use crate::plane::histogram;
use crate::plane::protocol::Traffic;

/// The heading of [`rows`].
pub(super) const HEADING: [&str; 11] = [
    "INSTANCE",
    "CPU",
    "MEMORY",
    "LIMIT",
    "PIDS",
    "PRESSURE C/M/I",
    "REQUESTS",
    "REQ/S",
    "P50/P95/P99",
    "NET IN/OUT",
    "BLOCK IN/OUT",
];

/// What is known at one moment.
#[derive(Debug, Serialize)]
pub(super) struct Look {
    stats: Vec<StatsView>,
    /// `None` when no data plane answers.
    traffic: Option<TrafficView>,
    #[serde(skip)]
    at: Instant,
}

/// Prints one line for each instance; on a terminal again each second, until interrupted.
pub(crate) async fn run(named: Option<&str>, once: bool, json: bool) -> Result<()> {
    let client = project(named).await?;
    let mut before = None;
    loop {
        let look = Look::now(&client).await?;
        if json {
            println!("{}", serde_json::to_string(&look)?);
        } else {
            if !once && std::io::stdout().is_terminal() {
                print!("\x1b[H\x1b[J"); // from the top, and clear what was there
            }
            table::print(&HEADING, &rows(&look, before.as_ref()));
        }
        if once || (!json && !std::io::stdout().is_terminal()) {
            return Ok(());
        }
        before = Some(look);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

impl Look {
    /// Looks now.
    pub(super) async fn now(client: &Client) -> Result<Look> {
        let stats = client.get("/v1/stats").await?;
        // A data plane that is being started again has nothing to tell.
        let traffic = client.get("/v1/traffic").await.ok();
        Ok(Look { stats, traffic, at: Instant::now() })
    }

    fn traffic(&self, instance: &str) -> Option<&Traffic> {
        self.traffic.as_ref()?.instances.get(instance)
    }
}

/// One row for each instance. Requests per second need an earlier look.
pub(super) fn rows(look: &Look, before: Option<&Look>) -> Vec<Vec<String>> {
    look.stats.iter().map(|view| row(view, look, before)).collect()
}

fn row(view: &StatsView, look: &Look, before: Option<&Look>) -> Vec<String> {
    let latest = &view.latest;
    let dash = || "-".to_string();
    let pair = |a: u64, b: u64| format!("{} / {}", size(a), size(b));
    let traffic = look.traffic(&view.instance);
    let rate = traffic.zip(before).and_then(|(now, before)| {
        let old = before.traffic(&view.instance)?.requests;
        let seconds = look.at.duration_since(before.at).as_secs_f64();
        // A new data plane counts from nothing.
        Some(now.requests.checked_sub(old)? as f64 / seconds.max(0.001))
    });
    vec![
        view.instance.clone(),
        view.cpu_percent.map_or_else(dash, |percent| format!("{percent:.1}%")),
        size(latest.memory_bytes),
        latest.limit_bytes.map_or_else(dash, |limit| {
            let share = latest.memory_bytes as f64 * 100.0 / limit.max(1) as f64;
            format!("{} ({share:.0}%)", size(limit))
        }),
        latest.pids.to_string(),
        latest
            .pressure
            .map_or_else(dash, |psi| format!("{:.0}/{:.0}/{:.0}%", psi.cpu, psi.memory, psi.io)),
        traffic.map_or_else(dash, |traffic| traffic.requests.to_string()),
        rate.map_or_else(dash, |rate| format!("{rate:.0}")),
        traffic.and_then(times).unwrap_or_else(dash),
        pair(latest.received_bytes, latest.sent_bytes),
        pair(latest.read_bytes, latest.written_bytes),
    ]
}

/// The times to the first byte that half, 95 and 99 of a hundred answers keep, in milliseconds.
fn times(traffic: &Traffic) -> Option<String> {
    let ms = |permille| {
        let us = histogram::quantile(&traffic.latency_us, permille)?;
        Some(format!("{:.1}", us as f64 / 1000.0))
    };
    Some(format!("{}/{}/{} ms", ms(500)?, ms(950)?, ms(990)?))
}

/// A number of bytes for people.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 || value >= 100.0 {
        format!("{value:.0} {name}")
    } else {
        format!("{value:.1} {name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brain::meter::Sample;
    use std::collections::BTreeMap;

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(512 << 20), "512 MiB");
    }

    fn look(requests: Option<u64>, at: Instant) -> Look {
        let latest = Sample { memory_bytes: 64 << 20, pids: 3, ..Sample::default() };
        let instance = "web.1.1".to_string();
        let stats = vec![StatsView { instance: instance.clone(), cpu_percent: None, latest }];
        let traffic = requests.map(|requests| {
            let counted = Traffic { requests, ..Traffic::default() };
            let instances = BTreeMap::from([(instance, counted)]);
            TrafficView { instances, services: BTreeMap::new() }
        });
        Look { stats, traffic, at }
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        let now = Instant::now();
        let mut seen = look(None, now);
        let known = ["-", "64.0 MiB", "-", "3", "-", "-", "-", "-"];
        assert_eq!(rows(&seen, None)[0][1..9], known);
        seen.stats[0].latest.limit_bytes = Some(128 << 20);
        seen.stats[0].cpu_percent = Some(12.34);
        assert_eq!(rows(&seen, None)[0][1..4], ["12.3%", "64.0 MiB", "128 MiB (50%)"]);
    }

    #[test]
    fn a_rate_is_the_difference_of_two_looks() {
        let begin = Instant::now();
        let later = begin + Duration::from_secs(2);
        let (before, now) = (look(Some(100), begin), look(Some(300), later));
        assert_eq!(rows(&now, Some(&before))[0][6..8], ["300", "100"]);
        assert_eq!(rows(&before, Some(&now))[0][6..8], ["100", "-"], "it counts anew");
    }
}
