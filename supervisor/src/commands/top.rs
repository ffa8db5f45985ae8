//! `minisup top`: what runs, what it uses and what happens, on one screen, each second.

use std::time::Duration;

use anyhow::Result;

use super::{events, project, ps, stats, table};
use crate::brain::api::{EventView, StateView};
use crate::clock;

/// Events shown.
const EVENTS: usize = 8;
/// Another screen without scrolling back into ours, and back again.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Shows until interrupted.
pub(crate) async fn run(named: Option<&str>) -> Result<()> {
    let client = project(named).await?;
    let mut latest: Vec<EventView> = Vec::new();
    let mut seen = 0;
    let mut before = None;
    print!("{ENTER}");
    let outcome = loop {
        let shown = async {
            let (view, look) = (client.state().await?, stats::Look::now(&client).await?);
            loop {
                let new = client.events(seen, None, false).await?;
                let Some(newest) = new.last() else { break };
                seen = newest.seq;
                latest.extend(new);
                latest.drain(..latest.len().saturating_sub(EVENTS));
            }
            print!(
                "{}",
                screen(
                    &client.layout.project,
                    &view,
                    &stats::rows(&look, before.as_ref()),
                    &latest
                )
            );
            std::io::Write::flush(&mut std::io::stdout())?;
            before = Some(look);
            anyhow::Ok(())
        };
        if let Err(error) = shown.await {
            break Err(error);
        }
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break Ok(()),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    };
    print!("{LEAVE}");
    outcome
}

/// The whole screen.
fn screen(project: &str, view: &StateView, used: &[Vec<String>], latest: &[EventView]) -> String {
    /// Columns of what is used that fit beside the state.
    const SHOWN: [usize; 7] = [1, 2, 3, 4, 5, 7, 8];
    let now = clock::now();
    let mut rows = Vec::new();
    for slot in view.state.slots() {
        let name = slot.instances.last().map(|instance| instance.id.to_string());
        let row = used.iter().find(|row| row.first() == name.as_ref());
        let mut cells = vec![slot.id.to_string(), ps::in_words(slot, now)];
        cells.push(slot.history.restarts.len().to_string());
        let cell = |at: &usize| row.and_then(|row| row.get(*at).cloned());
        cells.extend(SHOWN.iter().map(|at| cell(at).unwrap_or_else(|| "-".to_string())));
        rows.push(cells);
    }
    let ready = view.state.slots().filter(|slot| slot.is_ready()).count();
    let all = view.state.slots().count();
    let heading = ["SLOT", "STATE", "RESTARTS"].into_iter();
    let heading: Vec<&str> = heading.chain(SHOWN.map(|at| stats::HEADING[at])).collect();
    let mut text = format!("\x1b[H\x1b[J{project}: {ready} of {all} ready — Ctrl-C leaves\n\n");
    text.push_str(&table::text(&heading, &rows));
    text.push('\n');
    latest.iter().for_each(|event| text.push_str(&format!("{}\n", events::line(event))));
    text
}
