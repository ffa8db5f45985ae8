//! A container's construction, told while it happens.
//!
//! Both sides of a construction keep a [`Journal`]. It names the step that is being done (for
//! errors, and for the report of an init that was killed), and, only when someone listens, times
//! it and collects its syscalls. Off, a step costs one store.

mod narrator;

use std::time::Instant;

use linux::shared::SharedNumber;
use serde::{Deserialize, Serialize};

pub(crate) use narrator::Narrator;

use crate::container::handshake::{Line, Message};
use crate::error::{Cause, Failure};
use crate::steps::Step;

/// Who did a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// The process that a person or an engine started.
    Parent,
    /// The process that becomes the container's first.
    Init,
}

/// One step that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Who did it.
    pub who: Actor,
    /// Which step.
    pub step: Step,
    /// What it was done to.
    pub object: String,
    /// How long it took.
    pub micros: u64,
    /// The syscalls, like lines of strace.
    pub calls: Vec<String>,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl Record {
    /// A copy whose calls are cut to about `limit` bytes, with a line that says so.
    pub(crate) fn cut_to(&self, limit: usize) -> Self {
        let mut copy = self.clone();
        let mut left = limit;
        let fitting = copy.calls.iter().take_while(|call| {
            left = left.saturating_sub(call.len() + 8);
            left > 0
        });
        let count = fitting.count();
        if count < copy.calls.len() {
            let more = copy.calls.len() - count;
            copy.calls.truncate(count);
            copy.calls.push(format!("… {more} more"));
        }
        copy
    }
}

/// Where the records of a journal go.
enum Listener<'a> {
    Nobody,
    Creator(&'a Line),
    Person(&'a mut Narrator),
}

/// The steps of one side.
pub(crate) struct Journal<'a> {
    who: Actor,
    current: Option<SharedNumber>,
    listener: Listener<'a>,
}

impl std::fmt::Debug for Journal<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("who", &self.who).finish_non_exhaustive()
    }
}

impl<'a> Journal<'a> {
    /// The parent's side; `narrator` listens when there is one.
    pub(crate) fn parent(narrator: Option<&'a mut Narrator>) -> Self {
        let listener = narrator.map_or(Listener::Nobody, Listener::Person);
        if !matches!(listener, Listener::Nobody) {
            linux::trace::start();
        }
        Self { who: Actor::Parent, current: None, listener }
    }

    /// Init's side; it tells its creator when tracing is on.
    pub(crate) fn init(line: &'a Line, current: SharedNumber) -> Self {
        let _ = linux::trace::take();
        let listener =
            if linux::trace::is_on() { Listener::Creator(line) } else { Listener::Nobody };
        Self { who: Actor::Init, current: Some(current), listener }
    }

    /// Does one step.
    pub(crate) fn step<T, E: Into<Cause>>(
        &mut self,
        step: Step,
        object: impl Fn() -> String,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, Failure> {
        let begun = match self.listener {
            Listener::Nobody => None,
            _ => Some(Instant::now()),
        };
        let result = self.named(step, &object, work);
        if let Some(begun) = begun {
            let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            let failed = result.as_ref().err().map(|failure| failure.cause.clone());
            let calls = linux::trace::take();
            self.tell(Record { who: self.who, step, object: object(), micros, calls, failed });
        }
        result
    }

    /// Does something that is worth naming in an error and not worth telling.
    pub(crate) fn quietly<T, E: Into<Cause>>(
        &mut self,
        step: Step,
        object: impl Fn() -> String,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, Failure> {
        let result = self.named(step, object, work);
        let _ = linux::trace::take();
        result
    }

    /// Does something, under a name that a failure or a sudden death will be told by.
    fn named<T, E: Into<Cause>>(
        &self,
        step: Step,
        object: impl Fn() -> String,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, Failure> {
        if let Some(current) = self.current {
            current.set(step as u32);
        }
        work().map_err(|cause| {
            let Cause { text, errno, remedy } = cause.into();
            Failure { step, object: object(), cause: text, errno, remedy }
        })
    }

    /// Passes on what the other side has told.
    pub(crate) fn tell(&mut self, record: Record) {
        match &mut self.listener {
            Listener::Nobody => {}
            // A creator that is gone listens no more; that is no reason to fail.
            Listener::Creator(line) => drop(line.say(&Message::Told(record))),
            Listener::Person(narrator) => narrator.tell(&record),
        }
        // Telling is not part of any step.
        let _ = linux::trace::take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_is_named() {
        let mut journal = Journal::parent(None);
        let failure = journal
            .step(Step::Mounts, || "proc at /proc".into(), || Err::<(), _>(Cause::new("no")))
            .unwrap_err();
        assert_eq!(failure.to_string(), "mount proc at /proc: no");
    }

    #[test]
    fn long_recordings_are_cut_and_say_so() {
        let calls = (0..100).map(|n| format!("call number {n}")).collect();
        let record = Record {
            who: Actor::Init,
            step: Step::Mounts,
            object: String::new(),
            micros: 1,
            calls,
            failed: None,
        };
        let cut = record.cut_to(200);
        assert!(cut.calls.len() < 20);
        assert!(cut.calls.last().unwrap().starts_with("… "));
    }
}
