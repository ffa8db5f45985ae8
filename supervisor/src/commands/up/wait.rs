//! `up --wait`: until every replica is ready and what it should be, or until it is clear which is
//! not, and why.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use minisup_core::event::Change;
use minisup_core::slot::Slot;

use crate::brain::api::{EventView, StateView};
use crate::client::Client;
use crate::clock;
use crate::commands::ps;

/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until everything is as wanted.
///
/// # Errors
/// A slot has failed for good, or `limit` has passed: each slot that is not ready, with the last
/// reason that was recorded. What was started goes on.
pub(super) async fn until_ready(client: &Client, limit: Duration) -> Result<()> {
    let begun = Instant::now();
    loop {
        let view = client.state().await?;
        let is_late = |slot: &&Slot| !slot.has_ended() && !view.state.is_as_wanted(slot);
        let waiting: Vec<&Slot> = view.state.slots().filter(is_late).collect();
        let hopeless: Vec<&Slot> = view.state.slots().filter(|slot| slot.is_failed()).collect();
        if !hopeless.is_empty() {
            bail!("{}", complaint(client, &view, &hopeless, "for good").await);
        }
        if waiting.is_empty() && view.state.acknowledged() == view.state.generation() {
            return Ok(());
        }
        if begun.elapsed() >= limit {
            let after = format!("after {limit:?}");
            if waiting.is_empty() {
                bail!("the data plane does not follow {after}; `minisup doctor` looks into it");
            }
            bail!("{}", complaint(client, &view, &waiting, &after).await);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Names the slots and what the history says about each.
async fn complaint(client: &Client, view: &StateView, slots: &[&Slot], after: &str) -> String {
    let all = view.state.slots().count();
    let (count, what) = (slots.len(), shortcoming(slots));
    let mut text = format!("{count} of {all} replicas are not {what} {after}:");
    for slot in slots.iter().take(10) {
        let events = client.events(0, Some(&slot.id.to_string()), false).await.unwrap_or_default();
        let now = ps::in_words(slot, clock::now());
        let why = last_reason(&events).map(|why| format!(": {why}")).unwrap_or_default();
        text.push_str(&format!("\n  {}: {now}{why}", slot.id));
    }
    if slots.len() > 10 {
        text.push_str(&format!("\n  and {} more", slots.len() - 10));
    }
    let (project, first) = (&client.layout.project, slots.first());
    let first = first.map(|slot| slot.id.to_string()).unwrap_or_default();
    text.push_str(&format!(
        "\nit goes on in the background; `minisup -P {project} explain {first}` says more, \
         `minisup -P {project} down` ends it"
    ));
    text
}

/// What slots are not. Where an update stands still the old instances are ready.
fn shortcoming(slots: &[&Slot]) -> &'static str {
    if slots.iter().all(|slot| slot.is_ready()) { "updated" } else { "ready" }
}

/// The newest evidence that speaks against a slot.
fn last_reason(events: &[EventView]) -> Option<&str> {
    let speaks = |event: &&EventView| {
        matches!(
            event.event.change,
            Change::ProbeFailed { .. }
                | Change::ProbeImpossible(_)
                | Change::Exited { .. }
                | Change::BackedOff { .. }
                | Change::Waiting { .. }
                | Change::Failed(_)
        )
    };
    let found = events.iter().rev().find(speaks)?;
    Some(found.event.reason.evidence.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use minisup_core::event::{Event, Reason, Rule};
    use minisup_core::name::ServiceName;
    use minisup_core::time::Mono;

    #[test]
    fn the_newest_thing_that_speaks_against_a_slot_is_told() {
        let slot = ServiceName::from("web").slot(1);
        let view = |seq, change, evidence: &str| EventView {
            seq,
            wall_ms: 0,
            event: Event {
                at: Mono::from_ms(1),
                change,
                reason: Reason { rule: Rule::Probe, evidence: evidence.to_string() },
            },
        };
        let events = [
            view(1, Change::Failed(slot.clone()), "old"),
            view(2, Change::ProbeImpossible(slot.instance(1)), "new"),
            view(3, Change::SlotWanted(slot), "beside the point"),
        ];
        assert_eq!(last_reason(&events), Some("new"));
        assert_eq!(last_reason(&events[2..]), None);
    }
}
