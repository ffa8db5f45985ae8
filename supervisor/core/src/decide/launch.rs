//! Filling slots: a vacant one gets an instance, an unhealthy or outdated one gets a second.
//!
//! Before a launch, in this order: the slot may be filled at all (its pause is over, its budget
//! is not used up), it is not full of remains, its dependencies are met (first start only: a
//! crash must not wait for somebody else's health), those whose namespaces it joins run, and the
//! host has room. Whatever is missing is written down once, so that `explain` can say what a slot
//! waits for. A slot that waits never keeps another from starting.

use crate::action::Action;
use crate::event::{Change, Obstacle, Rule};
use crate::guard::Guard;
use crate::instance::{Instance, Phase};
use crate::name::{ServiceName, SlotId};
use crate::slot::{Slot, Standing};
use crate::spec::{Condition, Need, Reserve};
use crate::step::Step;

/// How many dead containers of a slot may be left undeleted before it waits for that.
const REMAINS: usize = 8;

impl Step<'_> {
    pub(super) fn fill_vacant_slots(&mut self) {
        let vacant: Vec<SlotId> =
            self.state.slots().filter(|slot| self.is_vacant(slot)).map(|s| s.id.clone()).collect();
        for slot in vacant {
            match self.obstacle(&slot) {
                None => self.launch(&slot, Rule::Vacant, "the slot is vacant"),
                Some(obstacle) => self.wait(&slot, obstacle),
            }
        }
    }

    fn wait(&mut self, id: &SlotId, obstacle: Obstacle) {
        if self.state.slot(id).is_some_and(|slot| slot.waiting.as_ref() != Some(&obstacle)) {
            let evidence = obstacle.to_string();
            self.emit(Change::Waiting { slot: id.clone(), obstacle }, Rule::Admission, evidence);
        }
    }

    /// Whether the slot shall be filled now and nothing is in it. With one instance still
    /// stopping it is not vacant: the new one would be the second.
    fn is_vacant(&self, slot: &Slot) -> bool {
        let empty = slot.instances.iter().all(|instance| !instance.occupies());
        slot.wanted
            && self.is_open(slot)
            && self.guards.clear(Guard::StopFirst, empty)
            && slot.current().is_none()
    }

    /// Whether the slot may be filled now as far as its own history is concerned.
    pub(super) fn is_open(&self, slot: &Slot) -> bool {
        match slot.standing {
            Standing::Open => true,
            Standing::BackOff { until } => self.guards.clear(Guard::BackOff, until <= self.now),
            Standing::Failed => !self.guards.hold(Guard::Budget),
            Standing::Completed => false,
        }
    }

    /// Starts an instance in the slot, made from what the service is now.
    pub(super) fn launch(&mut self, id: &SlotId, rule: Rule, evidence: &str) {
        let Some(service) = self.state.project().services.get(&id.service) else { return };
        let instance = self.state.next_instance(id);
        let revision = service.revision.clone();
        let epoch = self.state.control(&id.service).epoch;
        let joined = self.owners(id).unwrap_or_default();
        let change = Change::Launching {
            instance: instance.clone(),
            revision: revision.clone(),
            epoch,
            joined: joined.clone(),
        };
        self.emit(change, rule, evidence);
        self.act(Action::Launch { instance, revision, joined });
    }

    /// What keeps the slot from being filled now.
    fn obstacle(&self, id: &SlotId) -> Option<Obstacle> {
        let slot = self.state.slot(id)?;
        let service = self.state.project().services.get(&id.service)?;
        if slot.instances.len() >= REMAINS {
            return Some(Obstacle::Undeleted);
        }
        if self.state.has_stray(id) {
            return Some(Obstacle::Stray);
        }
        if !slot.started
            && let Some(obstacle) = self.unmet_need(&id.service)
            && self.guards.hold(Guard::Dependencies)
        {
            return Some(obstacle);
        }
        if let Err(missing) = self.owners(id)
            && self.guards.hold(Guard::OwnersFirst)
        {
            return Some(Obstacle::Namespaces(missing));
        }
        let room = self.state.reserved().plus(service.reserve).fits(self.state.host());
        if !self.guards.clear(Guard::Room, room) {
            return Some(Obstacle::NoRoom);
        }
        None
    }

    fn unmet_need(&self, service: &ServiceName) -> Option<Obstacle> {
        let needs = &self.state.project().services.get(service)?.needs;
        needs.iter().find_map(|(on, need)| self.unmet(on, need))
    }

    /// Why a dependency is not met, `None` if it is. One that is not required is also met when it
    /// is absent or has failed for good.
    fn unmet(&self, on: &ServiceName, need: &Need) -> Option<Obstacle> {
        if !self.state.project().services.contains_key(on) {
            return need.required.then(|| Obstacle::DependencyFailed(on.clone()));
        }
        let mut slots = self.state.slots_of(on).filter(|slot| slot.wanted).peekable();
        if slots.peek().is_none() {
            return Some(Obstacle::Dependency(on.clone()));
        }
        for slot in slots {
            let completed = slot.standing == Standing::Completed;
            let met = match need.condition {
                Condition::Started => slot.started,
                Condition::Healthy => slot.is_ready() || completed,
                Condition::Completed => completed,
            };
            if met {
                continue;
            }
            if !slot.is_failed() {
                return Some(Obstacle::Dependency(on.clone()));
            }
            if need.required {
                return Some(Obstacle::DependencyFailed(on.clone()));
            }
        }
        None
    }

    /// Whether the host has room for a second instance in the slot while every other slot keeps
    /// the room for its one.
    pub(super) fn has_room_for_second(&self, id: &SlotId) -> bool {
        let Some(service) = self.state.project().services.get(&id.service) else { return false };
        if self.state.has_stray(id) {
            return false;
        }
        let committed = self.state.slots().fold(Reserve::default(), |sum, slot| {
            let occupied = slot.instances.iter().filter(|instance| instance.occupies()).count();
            let count = occupied.max(usize::from(slot.wanted && !slot.has_ended()));
            let reserve = self.state.project().services.get(&slot.id.service).map(|s| s.reserve);
            let reserve = reserve.or_else(|| self.reserve_of_first(slot)).unwrap_or_default();
            sum.plus(reserve.times(u32::try_from(count).unwrap_or(u32::MAX)))
        });
        let now = self.state.reserved().plus(service.reserve).fits(self.state.host());
        now && committed.plus(service.reserve).fits(self.state.host())
    }

    fn reserve_of_first(&self, slot: &Slot) -> Option<Reserve> {
        Some(self.state.terms(&slot.instances.first()?.id)?.reserve)
    }
}

impl Slot {
    /// Whether nothing will be started in it again by itself.
    pub fn has_ended(&self) -> bool {
        matches!(self.standing, Standing::Failed | Standing::Completed)
    }

    /// Whether a stop is under way in it.
    pub(crate) fn is_emptying(&self) -> bool {
        let stops = |i: &Instance| {
            matches!(i.phase, Phase::Stopping { .. }) || i.stop_wanted.is_some() && i.occupies()
        };
        self.instances.iter().any(stops)
    }
}
