//! Replacing: an unhealthy instance (heal) or one of an old revision (update) makes way for a new
//! one.
//!
//! ```text
//!   start-first     old ████████████████▒▒▒        ▒ draining, stopping
//!                   new       ░░░░░░░░███████      ░ starting
//!   stop-first      old ████████▒▒▒
//!                   new            ░░░░░░░░███
//! ```
//!
//! Start-first needs a second reservation for a moment; when the host has no room for it, or a
//! volume allows one writer, the old one goes first. An outdated instance that is not ready makes
//! way at once: it serves nobody. Two limits keep a bad day from becoming worse: an update takes
//! out `parallelism` slots at a time and stands still while they do not come back, and healing
//! replaces at most half of a service at a time, so that a shared fault (a database that is away)
//! does not become a restart storm. An instance that no probe can ask is ready when it has started;
//! an update trusts it a second later.

use crate::event::Rule;
use crate::guard::Guard;
use crate::instance::{Instance, Phase, StopWhy};
use crate::name::{InstanceId, ServiceName, SlotId};
use crate::slot::{Slot, Standing};
use crate::spec::{Order, Service};
use crate::step::Step;

impl Step<'_> {
    pub(super) fn replace(&mut self) {
        let slots: Vec<SlotId> =
            self.state.slots().filter(|slot| slot.wanted).map(|slot| slot.id.clone()).collect();
        for slot in slots {
            self.replace_in(&slot);
        }
    }

    fn replace_in(&mut self, id: &SlotId) {
        let Some(slot) = self.state.slot(id) else { return };
        let live: Vec<Instance> = slot.live().cloned().collect();
        match live.as_slice() {
            [] => {}
            [rest @ .., _] if slot.standing == Standing::Completed => {
                for old in rest.iter().chain(live.last()) {
                    let evidence = "the slot has done its work";
                    self.begin_stop(&old.id, StopWhy::Superfluous, Rule::Handover, evidence);
                }
            }
            [only] => self.replace_one(only),
            [old, .., new] => self.hand_over(old, new),
        }
    }

    /// Two are there: one of them goes as soon as it is clear which.
    fn hand_over(&mut self, old: &Instance, new: &Instance) {
        if self.state.is_outdated(new) {
            let evidence = "it was outdated before it was ready";
            self.begin_stop(&new.id, StopWhy::Superfluous, Rule::Update, evidence);
        } else if new.condemned && new.phase == Phase::Unready {
            let evidence = "it became unhealthy before it was ready";
            self.begin_stop(&new.id, StopWhy::Unhealthy, Rule::Heal, evidence);
        } else if self.guards.clear(Guard::ReadyBeforeHandover, new.is_ready())
            && self.guards.clear(Guard::StaysWithOwner, !self.state.serves_owner(old, new))
            && !self.must_wait(old, new)
        {
            let why = if old.condemned { StopWhy::Unhealthy } else { StopWhy::Replaced };
            let evidence = format!("{} is ready in its place", new.id);
            self.begin_stop(&old.id, why, Rule::Handover, &evidence);
        } else if !old.condemned && !self.state.is_outdated(old) {
            let evidence = format!("{} has recovered", old.id);
            self.begin_stop(&new.id, StopWhy::Superfluous, Rule::Handover, &evidence);
        }
    }

    /// Whether an update waits because nobody can say yet that the new one works. What is broken
    /// itself is worth no wait.
    fn must_wait(&self, old: &Instance, new: &Instance) -> bool {
        self.state.is_superseded(old)
            && old.is_ready()
            && !old.condemned
            && self.state.is_on_trial(new, self.now)
    }

    /// One is there: it stays, or its replacement begins.
    fn replace_one(&mut self, only: &Instance) {
        let name = only.id.slot.service.clone();
        let outdated = self.state.is_outdated(only);
        let Some(service) = self.state.project().services.get(&name).cloned() else { return };
        let emptying = self.state.slot(&only.id.slot).is_some_and(Slot::is_emptying);
        if emptying || !(only.condemned || outdated) {
            return;
        }
        if outdated && !only.is_ready() && only.phase != Phase::Unready {
            let evidence = "it is outdated and was never ready";
            return self.begin_stop(&only.id, StopWhy::Replaced, Rule::Update, evidence);
        }
        if only.condemned {
            if self.guards.hold(Guard::Heal) {
                self.heal(only, &name, &service);
            }
        } else {
            self.update(only, &name, &service);
        }
    }

    fn heal(&mut self, only: &Instance, name: &ServiceName, service: &Service) {
        let healing = self.state.slots_of(name).filter(|slot| is_healing(slot)).count();
        let replicas = self.state.replicas(name);
        let limit = replicas.div_ceil(2).max(service.parallelism) as usize;
        if healing < limit {
            let rule = Rule::Heal;
            self.begin_replacement(&only.id, service.order, StopWhy::Unhealthy, rule, "unhealthy");
        }
    }

    fn update(&mut self, only: &Instance, name: &ServiceName, service: &Service) {
        let slot = &only.id.slot;
        let on_trial =
            |slot: &Slot| slot.live().any(|instance| self.state.is_on_trial(instance, self.now));
        let in_change = |other: &&Slot| {
            other.wanted && other.id != *slot && (is_in_change(other) || on_trial(other))
        };
        let changing = self.state.slots_of(name).filter(in_change).count();
        // Whoever has to follow another keeps that one's pace.
        if changing < service.parallelism as usize || self.state.is_misplaced(only) {
            let (order, rule, reason) = match self.state.is_superseded(only) {
                true => (service.order, Rule::Update, "outdated"),
                false => (service.moves, Rule::Joined, "not where it should be"),
            };
            self.begin_replacement(&only.id, order, StopWhy::Replaced, rule, reason);
        }
    }

    /// Starts the second instance, or stops the first. When the slot's pause is not over, or it
    /// has been given up, an instance that still runs is better than none.
    fn begin_replacement(
        &mut self,
        id: &InstanceId,
        order: Order,
        why: StopWhy,
        rule: Rule,
        reason: &str,
    ) {
        let open = self.state.slot(&id.slot).is_some_and(|slot| self.is_open(slot));
        if !open || self.owners(&id.slot).is_err() {
            return;
        }
        let start_first = order == Order::StartFirst || !self.guards.hold(Guard::StopFirst);
        if start_first && self.has_room_for_second(&id.slot) {
            let evidence = format!("{id} is {reason}; its replacement starts first");
            return self.launch(&id.slot, rule, &evidence);
        }
        if why == StopWhy::Unhealthy || self.may_take_out(id) {
            let evidence = match order {
                Order::StartFirst => "the host has no room for a second instance",
                Order::StopFirst => "the slot may never have two instances",
            };
            self.begin_stop(id, why, rule, evidence);
        }
    }
}

/// Whether an unhealthy instance of the slot is being replaced.
fn is_healing(slot: &Slot) -> bool {
    let unhealthy = |instance: &Instance| {
        matches!(instance.phase, Phase::Stopping { why: StopWhy::Unhealthy, .. })
    };
    let second = slot.live().count() > 1 && slot.live().any(|instance| instance.condemned);
    second || slot.instances.iter().any(unhealthy)
}

/// Whether the slot is in the middle of something: an update takes no further one out meanwhile.
fn is_in_change(slot: &Slot) -> bool {
    slot.standing != Standing::Completed
        && (slot.live().count() > 1 || slot.is_emptying() || !slot.is_ready())
}
