//! `minisup stats`: what every replica uses, at once.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Result;

use super::{project, table};
use crate::brain::api::views::StatsView;
use crate::client::Client;

/// The heading of [`rows`].
pub(super) const HEADING: [&str; 8] =
    ["INSTANCE", "CPU", "MEMORY", "LIMIT", "PIDS", "NET IN/OUT", "BLOCK IN/OUT", "PRESSURE C/M/I"];

/// Prints one line for each instance; on a terminal again each second, until interrupted.
pub(crate) async fn run(named: Option<&str>, once: bool, json: bool) -> Result<()> {
    let client = project(named).await?;
    loop {
        let stats = client.stats().await?;
        if json {
            println!("{}", serde_json::to_string(&stats)?);
        } else {
            if !once && std::io::stdout().is_terminal() {
                print!("\x1b[H\x1b[J"); // from the top, and clear what was there
            }
            table::print(&HEADING, &rows(&stats));
        }
        if once || (!json && !std::io::stdout().is_terminal()) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// One row for each instance.
pub(super) fn rows(stats: &[StatsView]) -> Vec<Vec<String>> {
    stats.iter().map(row).collect()
}

fn row(view: &StatsView) -> Vec<String> {
    let latest = &view.latest;
    let percent = |value: f64| format!("{value:.1}%");
    let pair = |a: u64, b: u64| format!("{} / {}", size(a), size(b));
    vec![
        view.instance.clone(),
        view.cpu_percent.map_or("-".into(), percent),
        size(latest.memory_bytes),
        latest.limit_bytes.map_or("-".into(), |limit| {
            let share = latest.memory_bytes as f64 * 100.0 / limit.max(1) as f64;
            format!("{} ({share:.0}%)", size(limit))
        }),
        latest.pids.to_string(),
        pair(latest.received_bytes, latest.sent_bytes),
        pair(latest.read_bytes, latest.written_bytes),
        latest
            .pressure
            .map_or("-".into(), |psi| format!("{:.0}/{:.0}/{:.0}%", psi.cpu, psi.memory, psi.io)),
    ]
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

impl Client {
    /// What every running instance uses.
    pub(crate) async fn stats(&self) -> Result<Vec<StatsView>> {
        self.get("/v1/stats").await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brain::meter::Sample;

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(512 << 20), "512 MiB");
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        let latest = Sample { memory_bytes: 64 << 20, pids: 3, ..Sample::default() };
        let mut view = StatsView { instance: "web.1.1".into(), cpu_percent: None, latest };
        assert_eq!(row(&view)[1..5], ["-", "64.0 MiB", "-", "3"]);
        view.latest.limit_bytes = Some(128 << 20);
        view.cpu_percent = Some(12.34);
        assert_eq!(row(&view)[1..4], ["12.3%", "64.0 MiB", "128 MiB (50%)"]);
    }
}
