//! Who should get the next request.
//!
//! By default two at random, the better of them (power of two choices): nearly as even as looking
//! at all, and no herd runs to the same one. Better is: less `latency × (in flight + 1)`, the
//! latency being a peak-sensitive moving average, so that a replica that becomes slow loses
//! traffic with its first slow answer.
//!
//! First come active instances that neither rest after a refusal nor are put out for their
//! answers; then active ones; suspects only if no active one is left. If too few are good (the
//! panic threshold) the cause is probably shared, and all active ones are used.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use minisup_core::instance::Route;
use minisup_core::name::InstanceId;

use super::backend::Backend;
use crate::balance::{Algorithm, Balance};

/// Chance, and the place of round robin.
#[derive(Debug)]
pub(crate) struct Dice {
    state: Cell<u64>,
    turn: Cell<usize>,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice { state: Cell::new(seed | 1), turn: Cell::new(0) }
    }

    /// A number below `end` (xorshift; balancing needs no better one).
    fn roll(&self, end: usize) -> usize {
        let mut x = self.state.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.state.set(x);
        usize::try_from(x % (end.max(1) as u64)).unwrap_or(0)
    }

    /// True with that probability.
    fn chance(&self, probability: f64) -> bool {
        const FINE: usize = 1 << 16;
        (self.roll(FINE) as f64) < probability * FINE as f64
    }
}

/// The instance for the next request, none of `tried`.
pub(crate) fn pick(
    backends: &[Rc<Backend>],
    rules: &Balance,
    dice: &Dice,
    tried: &[InstanceId],
    now: Instant,
) -> Option<Rc<Backend>> {
    let open = |b: &Backend| !b.is_full(rules.max_inflight) && !tried.contains(&b.id);
    let active = |b: &Backend| b.route.get() == Route::Active && open(b);
    let good = |b: &Backend| active(b) && !b.rests(now) && !b.is_ejected(now);
    let suspect = |b: &Backend| matches!(b.route.get(), Route::Suspect | Route::Failing) && open(b);
    let of = |wanted: &dyn Fn(&Backend) -> bool| choose(backends, wanted, rules, dice, now);
    if panics(backends, rules, now) { None } else { of(&good) }
        .or_else(|| of(&active))
        .or_else(|| of(&suspect))
}

/// Whether fewer of the active ones are good than the threshold says.
fn panics(backends: &[Rc<Backend>], rules: &Balance, now: Instant) -> bool {
    let active = |b: &&Rc<Backend>| b.route.get() == Route::Active;
    let (mut all, mut ejected) = (0u64, 0u64);
    for backend in backends.iter().filter(active) {
        all += 1;
        ejected += u64::from(backend.is_ejected(now));
    }
    ejected > 0 && (all - ejected) * 1000 < all * u64::from(rules.panic_permille)
}

fn choose(
    backends: &[Rc<Backend>],
    wanted: &dyn Fn(&Backend) -> bool,
    rules: &Balance,
    dice: &Dice,
    now: Instant,
) -> Option<Rc<Backend>> {
    let candidates = || backends.iter().filter(|backend| wanted(backend));
    let count = candidates().count();
    let warmth = |b: &Backend| b.warmth(rules.slow_start_ms, now);
    let nth = |place: usize| candidates().nth(place % count.max(1));
    let chosen = match rules.algorithm {
        _ if count < 2 => candidates().next()?,
        Algorithm::P2cEwma => {
            let first = dice.roll(count);
            let second = first + 1 + dice.roll(count - 1);
            let (a, b) = (nth(first)?, nth(second)?);
            if a.cost(now) / warmth(a) <= b.cost(now) / warmth(b) { a } else { b }
        }
        Algorithm::RoundRobin => {
            let turn = || {
                dice.turn.set(dice.turn.get().wrapping_add(1));
                nth(dice.turn.get())
            };
            // One that warms up lets others go first now and then.
            let willing = (0..count).find_map(|_| turn().filter(|b| dice.chance(warmth(b))));
            willing.or_else(turn)?
        }
        Algorithm::LeastConnections => {
            let load = |b: &Backend| f64::from(b.in_flight() + 1) / warmth(b);
            // From a random place on, so that equal ones share.
            let start = dice.roll(count);
            let turned = candidates().skip(start).chain(candidates().take(start));
            turned.min_by(|a, b| load(a).total_cmp(&load(b)))?
        }
    };
    Some(Rc::clone(chosen))
}

#[cfg(test)]
mod tests;
