//! How many retries a service may have: a share of its requests, so that retries cannot multiply
//! the load that made them necessary.
//!
//! Counted over ten seconds, in slots of one. Some are always allowed: as many as there are
//! requests in flight (all replicas may be killed at once, and each request is repeated once), and
//! ten a second besides.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

/// The seconds over which is counted.
const SLOTS: usize = 10;
/// Retries that are allowed in them whatever the load.
const FLOOR: u64 = 100;

/// The requests and retries of the last ten seconds.
#[derive(Debug)]
pub(crate) struct Budget {
    slots: RefCell<[(u64, u64); SLOTS]>,
    current: Cell<usize>,
    /// When the current slot ends.
    until: Cell<Instant>,
}

impl Budget {
    pub(crate) fn new(now: Instant) -> Budget {
        let until = Cell::new(now + Duration::from_secs(1));
        Budget { slots: RefCell::default(), current: Cell::new(0), until }
    }

    /// Empties the slots whose time has come.
    fn advance(&self, now: Instant) {
        for _ in 0..SLOTS {
            if now < self.until.get() {
                return;
            }
            self.current.set((self.current.get() + 1) % SLOTS);
            self.slots.borrow_mut()[self.current.get()] = (0, 0);
            self.until.set(self.until.get() + Duration::from_secs(1));
        }
        // After a long silence everything is empty, and time goes on from here.
        self.until.set(self.until.get().max(now + Duration::from_secs(1)));
    }

    /// A request has come.
    pub(crate) fn request(&self, now: Instant) {
        self.advance(now);
        self.slots.borrow_mut()[self.current.get()].0 += 1;
    }

    /// Whether a request may be repeated; if so it is counted.
    pub(crate) fn retry(&self, now: Instant, permille: u32, in_flight: u32) -> bool {
        self.advance(now);
        let mut slots = self.slots.borrow_mut();
        let (requests, retries) =
            slots.iter().fold((0, 0), |sum, slot| (sum.0 + slot.0, sum.1 + slot.1));
        let allowed = FLOOR + u64::from(in_flight) + requests * u64::from(permille) / 1000;
        let may = retries < allowed;
        slots[self.current.get()].1 += u64::from(may);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_requests_and_time_forgives() {
        let begin = Instant::now();
        let budget = Budget::new(begin);
        (0..1000).for_each(|_| budget.request(begin));
        let allowed = (0..1000).filter(|_| budget.retry(begin, 200, 50)).count();
        assert_eq!(allowed, 100 + 50 + 200);
        let later = begin + Duration::from_secs(5);
        assert!(!budget.retry(later, 200, 50), "ten seconds have not passed");
        let much_later = begin + Duration::from_secs(3600);
        let allowed = (0..1000).filter(|_| budget.retry(much_later, 200, 0)).count();
        assert_eq!(allowed, 100);
    }
}
