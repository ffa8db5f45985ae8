//! Decisions: one file per rule. Each looks at the whole state and writes down what follows; the
//! turn repeats them until none has anything to add.

mod joined;
mod launch;
mod replace;
mod route;
mod slots;
mod stop;

use crate::step::Step;

impl Step<'_> {
    /// One round of all rules. Stops come before launches, so that what is freed in a turn can be
    /// used in it; routes come last, so that they are told the result.
    pub(crate) fn decide(&mut self) {
        self.deadlines();
        self.follow_replicas();
        self.stop_orphans();
        self.replace();
        self.advance_stops();
        self.fill_vacant_slots();
        self.route();
    }
}
