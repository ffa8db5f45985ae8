//! `up` in the foreground: what happens, what is printed, and how it stands.
//!
//! Events and logs scroll by; on a terminal the last line is the project's standing, drawn again
//! with each look. Ctrl-C stops the project.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

use crate::brain::api::{EventView, StateView};
use crate::brain::traffic::TrafficView;
use crate::client::Client;
use crate::clock;
use crate::commands::logs::Reader;
use crate::commands::{down, events, ps};
use crate::layout::Layout;

/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Back to the beginning of the line, which is cleared.
const AGAIN: &str = "\r\x1b[K";

/// Shows events and logs until somebody presses Ctrl-C; then everything is stopped.
pub(super) async fn foreground(client: &Client, mut seen: i64) -> Result<()> {
    let is_terminal = std::io::stdout().is_terminal();
    let mut reader = Reader::default();
    reader.read(&client.layout, None); // what was there before is not shown again
    let mut requests = Requests::default();
    let services = client.state().await.map(|view| view.stack.services).unwrap_or_default();
    let silent: BTreeSet<String> =
        services.into_iter().filter(|(_, spec)| !spec.attach).map(|(name, _)| name).collect();
    let mut stop = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            _ = stop.recv() => break,
            () = tokio::time::sleep(LOOK) => {}
        }
        let mut out = String::new();
        match client.events(seen, None, false).await {
            Ok(new) => {
                seen = new.last().map_or(seen, |event| event.seq);
                new.iter().filter(|event| is_news(event)).for_each(|event| {
                    out.push_str(&format!("{}\n", events::line(event)));
                });
            }
            Err(_) if Layout::projects().contains(&client.layout.project) => {} // starting again
            Err(_) => return Ok(()), // somebody said down
        }
        for line in reader.read(&client.layout, None) {
            if silent.contains(line.instance.slot.service.as_str()) {
                continue;
            }
            out.push_str(&format!("{line}\n"));
        }
        if is_terminal && let Ok(view) = client.state().await {
            let rate = requests.look(client).await;
            out = format!("{AGAIN}{out}{}", standing(&view, rate));
        }
        print!("{out}");
        std::io::stdout().flush()?;
    }
    if is_terminal {
        print!("{AGAIN}");
    }
    eprintln!("stopping {}", client.layout.project);
    down::run(Some(&client.layout.project), false).await
}

/// Routine is left out: who waits for news does not wait for acknowledgements.
fn is_news(view: &EventView) -> bool {
    use minisup_core::event::Change;
    !matches!(
        view.event.change,
        Change::Acknowledged { .. } | Change::Renumbered { .. } | Change::Deleted(_)
    )
}

/// Requests per second, from counts a second apart.
#[derive(Default)]
struct Requests {
    last: Option<(Instant, u64)>,
    rate: Option<f64>,
}

impl Requests {
    async fn look(&mut self, client: &Client) -> Option<f64> {
        if self.last.is_some_and(|(at, _)| at.elapsed() < Duration::from_secs(1)) {
            return self.rate;
        }
        let traffic: Option<TrafficView> = client.get("/v1/traffic").await.ok();
        let now = traffic.map(|view| view.services.values().map(|one| one.requests).sum::<u64>());
        self.rate = now.zip(self.last).and_then(|(now, (at, before))| {
            Some(now.checked_sub(before)? as f64 / at.elapsed().as_secs_f64())
        });
        self.last = now.map(|now| (Instant::now(), now));
        self.rate
    }
}

/// One line: how many are ready of each service, the requests, and what the first that is not
/// ready waits for.
fn standing(view: &StateView, rate: Option<f64>) -> String {
    let mut parts = Vec::new();
    for name in view.stack.services.keys() {
        let key = name.as_str().into();
        let ready = view.state.slots_of(&key).filter(|slot| slot.is_ready()).count();
        parts.push(format!("{name} {ready}/{}", view.state.replicas(&key)));
    }
    parts.extend(rate.map(|rate| format!("{rate:.0} requests/s")));
    let late = view.state.slots().find(|s| !view.state.is_as_wanted(s) && !s.has_ended());
    if let Some(slot) = late {
        parts.push(format!("{} {}", slot.id, ps::in_words(slot, clock::now())));
    }
    let mut line = format!("── {} ", parts.join(" · "));
    // One that wraps could not be drawn over.
    if line.chars().count() > 79 {
        line = line.chars().take(78).chain(['…']).collect();
    }
    line
}
