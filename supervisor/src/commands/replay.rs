//! `minisup replay`: lives through a recorded history again.
//!
//! The history is the state: events are the only way in which it changes. So whoever has the file
//! can see any moment of a project on another machine, without a container in sight. The source is
//! a `history.db` or the lines of `minisup events --json`.

use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use minisup_core::event::{Change, Event};
use minisup_core::instance::Phase;
use minisup_core::state::State;
use minisup_core::time::Mono;

use super::{events, ps, table};
use crate::brain::api::EventView;
use crate::store::Store;

/// What every database of SQLite begins with.
const SQLITE: &[u8] = b"SQLite format 3\0";

/// Replays the history in `file` up to event number `until`, and shows what there was then.
///
/// # Errors
/// The file cannot be read, or an event does not fit what came before it.
pub(crate) fn run(file: &Path, until: Option<i64>, trace: bool) -> Result<()> {
    let history = read(file)?;
    let first = history.events.first().map_or(0, |event| event.seq);
    if history.events.is_empty() {
        bail!("{} holds no events", file.display());
    }
    let mut state = history.state;
    let mut sums = Sums::default();
    for view in history.events.iter().take_while(|view| until.is_none_or(|end| view.seq <= end)) {
        check(&state, &view.event).with_context(|| format!("event {}", view.seq))?;
        state.apply(&view.event);
        sums.add(&view.event.change);
        sums.last = view.seq;
        if trace {
            println!("{:6}  {}", view.seq, events::line(view));
        }
    }
    println!(
        "events {first} to {}: {} launches, {} exits, {} probes failed, {} replacements for health",
        sums.last, sums.launches, sums.exits, sums.probes, sums.condemned
    );
    if history.is_partial {
        println!(
            "the earlier history was forgotten; what there was before it comes from a snapshot"
        );
    }
    show(&state);
    Ok(())
}

/// What a history holds.
struct History {
    /// The state before the first event.
    state: State,
    events: Vec<EventView>,
    is_partial: bool,
}

#[derive(Default)]
struct Sums {
    last: i64,
    launches: u64,
    exits: u64,
    probes: u64,
    condemned: u64,
}

impl Sums {
    fn add(&mut self, change: &Change) {
        match change {
            Change::Launching { .. } => self.launches += 1,
            Change::Exited { .. } => self.exits += 1,
            Change::ProbeFailed { .. } => self.probes += 1,
            Change::Condemned(_) => self.condemned += 1,
            _ => {}
        }
    }
}

fn read(file: &Path) -> Result<History> {
    let mut begin = [0; 16];
    let mut open =
        fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let length = open.read(&mut begin)?;
    if begin.get(..length) == Some(SQLITE) {
        return stored(file);
    }
    let text = fs::read_to_string(file)
        .with_context(|| format!("{} is neither a history.db nor text", file.display()))?;
    let mut events: Vec<EventView> = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let event = serde_json::from_str(line)
            .with_context(|| format!("{}:{}: not an event", file.display(), number + 1))?;
        events.push(event);
    }
    Ok(History { state: State::default(), events, is_partial: false })
}

/// A database is replayed from its beginning if that is still there, else from its snapshot.
fn stored(file: &Path) -> Result<History> {
    let store = Store::open_to_read(file)?;
    let mut events: Vec<EventView> = Vec::new();
    let oldest = store.after(0, None)?.first().map_or(0, |stored| stored.seq);
    let (mut last, state) = match oldest {
        0 | 1 => (0, State::default()),
        _ => store.snapshot()?,
    };
    let is_partial = last > 0;
    loop {
        let more = store.after(last, None)?;
        let Some(newest) = more.last() else { break };
        last = newest.seq;
        events.extend(more.into_iter().map(EventView::from));
    }
    Ok(History { state, events, is_partial })
}

/// Whether an event can follow. A history that was cut or edited shows here.
fn check(state: &State, event: &Event) -> Result<()> {
    let Some(instance) = event.change.instance() else { return Ok(()) };
    let known = state.instance(instance);
    match (&event.change, known) {
        (Change::Launching { .. } | Change::Adopted { .. }, Some(_)) => {
            bail!("{instance} is there already")
        }
        (Change::Launching { .. } | Change::Adopted { .. }, None) => Ok(()),
        (Change::Stray(_) | Change::StrayGone(_), _) => Ok(()),
        (_, None) => bail!("{instance} is not known"),
        (Change::BecameReady(_), Some(known)) if matches!(known.phase, Phase::Exited { .. }) => {
            bail!("{instance} has exited and cannot become ready")
        }
        (_, Some(_)) => Ok(()),
    }
}

/// What there is at the end.
fn show(state: &State) {
    let now: Mono = state.clock();
    let mut rows = Vec::new();
    for slot in state.slots() {
        rows.push(vec![
            slot.id.to_string(),
            ps::in_words(slot, now),
            slot.history.restarts.len().to_string(),
        ]);
    }
    table::print(&["SLOT", "STATE", "RESTARTS"], &rows);
}

#[cfg(test)]
mod tests {
    use super::*;
    use minisup_core::event::{Reason, Rule};
    use minisup_core::name::ServiceName;

    fn event(change: Change) -> Event {
        let reason = Reason { rule: Rule::Observed, evidence: "a test".to_string() };
        Event { at: Mono::from_ms(1), change, reason }
    }

    #[test]
    fn an_event_that_cannot_follow_is_refused() {
        let instance = ServiceName::from("web").slot(1).instance(1);
        let ready = event(Change::BecameReady(instance.clone()));
        assert!(check(&State::default(), &ready).is_err());
        let launching = event(Change::Launching {
            instance: instance.clone(),
            revision: "r".into(),
            epoch: 0,
            joined: Default::default(),
        });
        assert!(check(&State::default(), &launching).is_ok());
        let mut state = State::default();
        state.apply(&event(Change::SlotWanted(instance.slot.clone())));
        state.apply(&launching);
        assert!(check(&state, &launching).is_err());
        assert!(check(&state, &ready).is_ok());
    }

    #[test]
    fn lines_that_are_no_events_are_named() {
        let file = std::env::temp_dir().join(format!("minisup-replay-{}", std::process::id()));
        fs::write(&file, "\n{\"seq\": 1}\n").unwrap();
        let error = format!("{:#}", read(&file).map(|_| ()).unwrap_err());
        assert!(error.contains(":2: not an event"), "{error}");
        fs::remove_file(&file).unwrap();
    }
}
