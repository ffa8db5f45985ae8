//! The decision core of minisup: what to do about a set of services, and why.
//!
//! ```text
//!                     ┌──────────────────────────────────────────────┐
//!    Input, Mono ───▶ │ step:  take the news   →  decide, until      │ ───▶ events  (history)
//!                     │        (facts)            nothing is left    │ ───▶ actions (requests)
//!                     └──────────────┬───────────────────────────────┘
//!                                    ▼
//!                     apply(event): the only way the state changes
//! ```
//!
//! * **Pure**: no I/O, no clock, no threads, no randomness; `serde` is the only dependency. The
//!   same inputs at the same times give the same events and actions, bit for bit.
//! * **Level-triggered**: an input only reports a fact. Decisions come from the whole state, so
//!   a lost or repeated input costs time, not correctness.
//! * **Explained**: each event carries the rule that made it and what the rule saw.
//!
//! Where to read: [`spec`] is what is wanted, [`slot`] and [`instance`] draw the two state
//! machines, [`joined`] says who is in whose namespaces, [`event`] is the vocabulary of the
//! history, `take` turns news into facts, `decide` is one file per rule, [`guard`] lists what must
//! never happen, and [`simulation`] tries to make it happen.

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod action;
mod decide;
pub mod event;
pub mod guard;
pub mod input;
pub mod instance;
pub mod joined;
pub mod name;
pub mod restart;
#[cfg(test)]
mod scenario;
pub mod simulation;
pub mod slot;
pub mod spec;
pub mod state;
mod step;
#[cfg(test)]
mod story;
mod take;
pub mod time;

pub use step::{Turn, step};
