//! `minisup events`: what happened, and why.

use anyhow::Result;
use minisup_core::event::Change;

use super::project;
use crate::brain::api::EventView;
use crate::brain::log::rfc3339;

/// Prints the history, oldest first; with `follow`, as it goes on.
pub(crate) async fn run(
    named: Option<&str>,
    slot: Option<&str>,
    follow: bool,
    json: bool,
) -> Result<()> {
    let client = project(named).await?;
    let mut after = 0;
    loop {
        let events = client.events(after, slot, follow).await?;
        for event in &events {
            after = event.seq;
            if json {
                println!("{}", serde_json::to_string(event)?);
            } else {
                println!("{}", line(event));
            }
        }
        if events.is_empty() {
            return Ok(());
        }
    }
}

/// One event for people: when, about whom, what, and why.
pub(crate) fn line(view: &EventView) -> String {
    let change = &view.event.change;
    let who = match (change.instance(), change.slot()) {
        (Some(instance), _) => instance.to_string(),
        (None, Some(slot)) => slot.to_string(),
        (None, None) => "-".to_string(),
    };
    let reason = &view.event.reason;
    let rule = match serde_json::to_value(reason.rule) {
        Ok(serde_json::Value::String(name)) => name.replace('-', " "),
        _ => String::new(),
    };
    let time = rfc3339(view.wall_ms);
    format!("{time}  {who:14}  {:18}  {rule}: {}", verb(change), reason.evidence)
}

/// The name of a change, as JSON has it.
fn verb(change: &Change) -> String {
    match serde_json::to_value(change) {
        Ok(serde_json::Value::String(name)) => name,
        Ok(serde_json::Value::Object(map)) => map.keys().next().cloned().unwrap_or_default(),
        _ => String::new(),
    }
}
