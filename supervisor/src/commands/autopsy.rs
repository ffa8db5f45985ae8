//! `minisup autopsy`: what is known of the last instance of a slot that died.

use std::fs;

use anyhow::{Context, Result, bail};
use minisup_core::name::{InstanceId, SlotId};

use super::stats::size;
use super::{events, explain, logs, project, table};
use crate::brain::autopsy::Autopsy;
use crate::brain::log::rfc3339;

/// Log lines shown.
const LINES: usize = 20;
/// Seconds of use shown.
const SECONDS: usize = 10;

/// Tells how an instance died; of a slot, the latest that did.
pub(crate) async fn run(named: Option<&str>, whom: &str) -> Result<()> {
    let client = project(named).await?;
    let instance = match (whom.parse::<InstanceId>(), whom.parse::<SlotId>()) {
        (Ok(instance), _) => instance,
        (_, Ok(slot)) => {
            latest(&client.layout.logs(), &slot).with_context(|| nothing_kept(&slot))?
        }
        _ => bail!("{whom} is neither a slot (web.1) nor an instance (web.1.3)"),
    };
    let file = client.layout.autopsy(&instance.to_string());
    let text = fs::read(&file).with_context(|| format!("nothing is kept of {instance}"))?;
    let found: Autopsy = serde_json::from_slice(&text).context("its file cannot be understood")?;
    let lived = minisup_core::time::Span::from_ms(found.lived_ms);
    println!("{instance} of revision {}: {}", found.revision, found.cause);
    println!("at {}, after {lived}", rfc3339(found.wall_ms));
    println!("\nits last seconds:");
    use_of(&found);
    println!("\nthe host: {} available", size(found.host_available_bytes));
    for line in &found.host_pressure {
        println!("  {line}");
    }
    println!("\nits history:");
    for event in explain::all(&client, &instance.slot.to_string()).await? {
        if event.event.change.instance() == Some(&instance) {
            println!("  {}", events::line(&event));
        }
    }
    println!("\nits last words:");
    let lines = logs::Reader::default().read(&client.layout, Some(&instance.to_string()));
    let surplus = lines.len().saturating_sub(LINES);
    lines.iter().skip(surplus).for_each(|line| println!("  {}", line.text));
    Ok(())
}

/// One that could not be started has not died, and left nothing but a reason.
fn nothing_kept(slot: &SlotId) -> String {
    format!(
        "no instance of {slot} has died, as far as is kept; `minisup explain {slot}` tells what has \
         happened to it"
    )
}

/// What it used, second by second.
fn use_of(found: &Autopsy) {
    let surplus = found.samples.len().saturating_sub(SECONDS + 1);
    let last = found.samples.last().map_or(0, |sample| sample.at_ms);
    let mut rows = Vec::new();
    for pair in found.samples.windows(2).skip(surplus.saturating_sub(1)) {
        let [before, after] = pair else { continue };
        let passed = after.at_ms.saturating_sub(before.at_ms).max(1) as f64;
        let cpu = after.cpu_us.saturating_sub(before.cpu_us) as f64 / (passed * 10.0);
        let pressure = after
            .pressure
            .map_or("-".into(), |psi| format!("{:.0}/{:.0}/{:.0}%", psi.cpu, psi.memory, psi.io));
        rows.push(vec![
            format!("-{:.1} s", (last - after.at_ms) as f64 / 1000.0),
            format!("{cpu:.0}%"),
            size(after.memory_bytes),
            after.limit_bytes.map_or("-".into(), size),
            after.pids.to_string(),
            pressure,
        ]);
    }
    table::print(&["BEFORE", "CPU", "MEMORY", "LIMIT", "PIDS", "PRESSURE C/M/I"], &rows);
}

/// The newest instance of a slot that something is kept of.
fn latest(dir: &std::path::Path, slot: &SlotId) -> Option<InstanceId> {
    let files = fs::read_dir(dir).ok()?.flatten();
    let dead = files.filter_map(|file| {
        let name = file.file_name().into_string().ok()?;
        name.strip_suffix(".autopsy.json")?.parse::<InstanceId>().ok()
    });
    dead.filter(|instance| instance.slot == *slot).max_by_key(|instance| instance.serial)
}
