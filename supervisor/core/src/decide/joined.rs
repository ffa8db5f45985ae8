//! Instances in the namespaces of others: which to launch into, and when to leave.

use std::collections::BTreeSet;

use crate::event::Rule;
use crate::guard::Guard;
use crate::instance::StopWhy;
use crate::name::{InstanceId, SlotId};
use crate::step::Step;

impl Step<'_> {
    /// Those whose namespaces an instance of the slot is to be put into.
    ///
    /// # Errors
    /// The first slot in which nothing runs that could be joined.
    pub(super) fn owners(&self, slot: &SlotId) -> Result<BTreeSet<InstanceId>, SlotId> {
        let service = self.state.project().services.get(&slot.service);
        let joins = service.into_iter().flat_map(|service| &service.joins);
        let owner = |joined| match self.state.owner(slot, joined) {
            Some(owner) => Ok(owner.id.clone()),
            None => Err(self.state.owning_slot(slot, joined)),
        };
        joins.map(owner).collect()
    }

    /// Stops whoever is in the namespaces of one that has ended or is about to, and in turn whoever
    /// is in theirs.
    pub(super) fn stop_orphans(&mut self) {
        if !self.guards.hold(Guard::Orphans) {
            return;
        }
        loop {
            let before = self.turn.events.len();
            let live = self.state.instances().filter(|instance| instance.is_live());
            let orphans: Vec<(InstanceId, InstanceId)> = live
                .filter_map(|one| Some((one.id.clone(), self.state.lost_owner(one)?.clone())))
                .collect();
            for (id, owner) in orphans {
                let evidence = format!("it is in the namespaces of {owner}, which does not stay");
                self.begin_stop(&id, StopWhy::Orphaned, Rule::Joined, &evidence);
            }
            if self.turn.events.len() == before {
                return;
            }
        }
    }
}
