//! A simulated world for the core: thousands of bad days from seeds.
//!
//! ```text
//!    seed ─▶ scenario: a project, a host, the weather
//!
//!    ┌── world ───────────────┐   inputs (late, lost, repeated)   ┌── core ────────┐
//!    │ containers: crash,     │ ────────────────────────────────▶ │ step(…)        │
//!    │ freeze, fall ill, are  │                                   │                │
//!    │ stubborn; the runtime  │ ◀──────────────────────────────── │ killed between │
//!    │ fails; the host boots; │   actions (some never arrive)     │ any two actions│
//!    │ the data plane hangs   │                                   │ its history    │
//!    └──────────┬─────────────┘                                   │ torn at the end│
//!               └───────▶ witness: safety after each step ◀───────┴────────────────┘
//! ```
//!
//! Time is a number, so half an hour passes in milliseconds. After the storm the faults stop, and
//! what was wanted must come true within bounds (liveness); after `down` nothing may be left. A
//! violation names its seed, and the seed replays the whole day, event for event.

mod balancer;
mod fault;
mod perform;
mod random;
mod run;
mod scenario;
mod witness;
mod world;

use std::fmt;

use crate::guard::Guards;
pub use witness::{Invariant, Violation};

/// How a simulated day went.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// How many inputs the core took.
    pub steps: u64,
    /// How many events it wrote.
    pub events: u64,
    /// How often the supervisor was killed.
    pub brain_deaths: u64,
    /// How often the end of its history was lost as well.
    pub torn: u64,
    /// How many containers were started.
    pub launches: u64,
    /// A hash of the whole history: equal histories, equal digests.
    pub digest: u64,
}

/// A day on which an invariant broke.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The seed that replays it.
    pub seed: u64,
    /// The simulated time, in milliseconds.
    pub at_ms: u64,
    /// What broke.
    pub violation: Violation,
    /// What happened before, the latest last; empty unless asked for.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        let Failure { seed, at_ms, violation, .. } = self;
        write!(
            f,
            "seed {seed} at {at_ms}ms: {violation}\nreplay: minisup simulate --seed {seed} --trace"
        )
    }
}

/// Simulates the day of `seed`. With `trace`, a failure carries its last thousand lines.
///
/// # Errors
/// The first broken invariant.
pub fn simulate(seed: u64, trace: bool) -> Result<Summary, Box<Failure>> {
    run::Run::new(seed, Guards::default(), trace).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::Guard;

    /// Seeds of an ordinary test run; `MINISUP_SEEDS=N` in the environment asks for more.
    fn seeds() -> u64 {
        std::env::var("MINISUP_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2000)
    }

    #[test]
    fn no_seed_breaks_an_invariant() {
        let mut total = Summary::default();
        for seed in 0..seeds() {
            match simulate(seed, false) {
                Ok(day) => {
                    total.steps += day.steps;
                    total.events += day.events;
                    total.brain_deaths += day.brain_deaths;
                    total.torn += day.torn;
                    total.launches += day.launches;
                }
                Err(_) => panic!("{}", simulate(seed, true).unwrap_err()),
            }
        }
        println!("{total:?}");
        assert!(total.brain_deaths > seeds() && total.torn > 0, "the weather was too good");
    }

    #[test]
    fn a_seed_replays_itself() {
        for seed in 0..20 {
            assert_eq!(simulate(seed, false), simulate(seed, true));
        }
    }

    /// Breaks one rule of the core on purpose and says how many days it takes the witness to see
    /// the invariant broken that the rule protects.
    fn days_until_seen(guard: Guard, invariant: Invariant) -> Option<u64> {
        (0..20_000).find(|seed| {
            let day = run::Run::new(*seed, Guards::without(guard), false).finish();
            day.is_err_and(|failure| failure.violation.invariant == invariant)
        })
    }

    #[test]
    fn every_broken_rule_is_noticed() {
        use Guard as G;
        use Invariant as I;
        for (guard, invariant) in [
            (G::AcknowledgedBeforeSignal, I::Drained),
            (G::BackOff, I::Pause),
            (G::Budget, I::Budget),
            (G::Floor, I::Floor),
            (G::ReadyBeforeHandover, I::Handover),
            (G::StopFirst, I::Slot),
            (G::Room, I::Memory),
            (G::Dependencies, I::Dependencies),
            (G::OwnersFirst, I::Joined),
            (G::Orphans, I::Joined),
            (G::StaysWithOwner, I::Joined),
            (G::ReverseOrder, I::ReverseOrder),
            (G::RouteReady, I::RoutedReady),
            (G::Strays, I::Settles),
            (G::DeleteAgain, I::Settles),
            (G::KillAfterGrace, I::Settles),
            (G::Heal, I::Settles),
        ] {
            let days = days_until_seen(guard, invariant);
            println!("without {guard:?}: {invariant:?} breaks on day {days:?}");
            assert!(days.is_some(), "{invariant:?} never broke without {guard:?}");
        }
    }
}
