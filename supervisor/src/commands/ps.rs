//! `minisup ps`: every slot and its instances.

use anyhow::Result;
use minisup_core::instance::{Instance, Phase};
use minisup_core::slot::{Slot, Standing};
use minisup_core::time::Mono;

use super::{project, table};
use crate::clock;

/// Prints one line per instance, and one per slot without any.
pub(crate) async fn run(named: Option<&str>, service: Option<&str>) -> Result<()> {
    let client = project(named).await?;
    let view = client.state().await?;
    let now = clock::now();
    let mut rows = Vec::new();
    for slot in view.state.slots() {
        if service.is_some_and(|name| name != slot.id.service.as_str()) {
            continue;
        }
        if slot.instances.is_empty() {
            rows.push(row(slot, "-", standing(slot, now), ""));
        }
        for instance in &slot.instances {
            let pid = view.pids.get(&instance.id.to_string()).map(ToString::to_string);
            let pid = pid.unwrap_or_else(|| "-".to_string());
            rows.push(row(slot, &pid, phase(instance, now), &instance.id.to_string()));
        }
    }
    table::print(&["SLOT", "INSTANCE", "DESIRED", "STATE", "RESTARTS", "PID"], &rows);
    Ok(())
}

fn row(slot: &Slot, pid: &str, state: String, instance: &str) -> Vec<String> {
    let desired = if slot.wanted { "running" } else { "removed" };
    let restarts = slot.history.restarts.len().to_string();
    let instance = if instance.is_empty() { "-" } else { instance };
    vec![slot.id.to_string(), instance.into(), desired.into(), state, restarts, pid.into()]
}

/// What is the matter with a slot, in words.
pub(super) fn in_words(slot: &Slot, now: Mono) -> String {
    match slot.instances.last() {
        Some(instance) => phase(instance, now),
        None => standing(slot, now),
    }
}

fn standing(slot: &Slot, now: Mono) -> String {
    match slot.standing {
        Standing::Failed => "failed: its restart budget is used up".to_string(),
        Standing::Completed => "completed".to_string(),
        Standing::BackOff { until } if until > now => format!("restart in {}", until.since(now)),
        _ => match &slot.waiting {
            Some(obstacle) => obstacle.to_string(),
            None => "vacant".to_string(),
        },
    }
}

fn phase(instance: &Instance, now: Mono) -> String {
    let since = now.since(instance.since);
    let doubt = if instance.condemned {
        ", unhealthy"
    } else if instance.health.is_doubtful() {
        ", in doubt"
    } else {
        ""
    };
    match &instance.phase {
        Phase::Launching => format!("launching for {since}"),
        Phase::Starting { .. } => format!("starting for {since}"),
        Phase::Ready => format!("ready for {since}{doubt}"),
        Phase::Unready => format!("unready for {since}"),
        Phase::Stopping { stage, why, .. } => format!("stopping ({stage:?}, {why}) for {since}"),
        Phase::Exited { cause, .. } => format!("{cause}, {since} ago"),
    }
}
