//! One turn: take the news, decide until nothing is left to decide, hand back what happened.

use crate::action::Action;
use crate::event::{Change, Event, Reason, Rule};
use crate::guard::Guards;
use crate::input::Input;
use crate::state::State;
use crate::time::Mono;

/// More rounds than any turn needs; reaching it means two rules undo each other.
const ROUNDS: usize = 1000;

/// The outcome of one turn.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Turn {
    /// What changed, already applied, in order. To be stored before the actions are carried out.
    pub events: Vec<Event>,
    /// What to do.
    pub actions: Vec<Action>,
    /// Why a command was refused.
    pub refused: Option<String>,
}

/// Takes one piece of news at the time `now` and decides what follows.
///
/// Total and deterministic: any input is answered in any state. The state afterwards is the state
/// before plus [`State::apply`] of every event returned, and nothing else.
pub fn step(state: &mut State, input: &Input, now: Mono) -> Turn {
    step_guarded(state, input, now, Guards::default())
}

/// [`step`] with some guards perhaps switched off.
pub(crate) fn step_guarded(state: &mut State, input: &Input, now: Mono, guards: Guards) -> Turn {
    let reboot = matches!(input, Input::Observed(seen) if seen.boot != state.boot());
    let now = if reboot { now } else { now.max(state.clock()) };
    let due = state.next_deadline(state.clock()).is_some_and(|deadline| deadline <= now);
    let mut step = Step { state, now, guards, renumbered: false, turn: Turn::default() };
    step.take(input);
    if due || !step.turn.events.is_empty() {
        step.settle();
    }
    if step.renumbered {
        let generation = step.state.generation();
        step.act(Action::PublishRoutes { generation });
    }
    step.turn
}

/// A turn in the making.
pub(crate) struct Step<'a> {
    /// The state; readable by all, changed only by [`Step::emit`].
    pub(crate) state: &'a mut State,
    pub(crate) now: Mono,
    pub(crate) guards: Guards,
    /// The routes have a new number in this turn already.
    pub(crate) renumbered: bool,
    pub(crate) turn: Turn,
}

impl Step<'_> {
    /// Writes an event down and applies it.
    pub(crate) fn emit(&mut self, change: Change, rule: Rule, evidence: impl Into<String>) {
        let reason = Reason { rule, evidence: evidence.into() };
        debug_assert!(!reason.evidence.is_empty(), "{change:?} without evidence");
        let event = Event { at: self.now, change, reason };
        self.state.apply(&event);
        self.turn.events.push(event);
    }

    /// Asks for something to be done.
    pub(crate) fn act(&mut self, action: Action) {
        self.turn.actions.push(action);
    }

    /// Decides, round after round, until a round changes nothing.
    fn settle(&mut self) {
        for _ in 0..ROUNDS {
            let before = self.turn.events.len();
            self.decide();
            if self.turn.events.len() == before {
                return;
            }
        }
        debug_assert!(false, "two rules undo each other: {:?}", self.turn.events.last());
    }
}
