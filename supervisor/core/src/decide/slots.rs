//! As many slots as replicas: new ones at the end, surplus ones emptied from the end.

use crate::event::{Change, Rule};
use crate::guard::Guard;
use crate::instance::{Instance, StopWhy};
use crate::name::{InstanceId, ServiceName, SlotId};
use crate::slot::Slot;
use crate::step::Step;

impl Step<'_> {
    pub(super) fn follow_replicas(&mut self) {
        let services: Vec<ServiceName> = self.state.project().services.keys().cloned().collect();
        for service in services {
            let replicas = self.state.replicas(&service);
            for index in 1..=replicas {
                let slot = service.slot(index);
                if self.state.slot(&slot).is_none_or(|slot| !slot.wanted) {
                    let evidence = format!("{replicas} replicas are wanted");
                    self.emit(Change::SlotWanted(slot), Rule::Replicas, evidence);
                }
            }
        }
        let surplus: Vec<SlotId> =
            self.state.slots().filter(|s| self.is_surplus(s)).map(id).collect();
        for slot in surplus {
            let replicas = self.state.replicas(&slot.service);
            let evidence = format!("{replicas} replicas are wanted");
            self.emit(Change::SlotUnwanted(slot), Rule::Replicas, evidence);
        }
        self.empty_unwanted();
    }

    fn is_surplus(&self, slot: &Slot) -> bool {
        slot.wanted && slot.id.index > self.state.replicas(&slot.id.service)
    }

    /// Stops what runs in unwanted slots, and removes the slots that are empty.
    fn empty_unwanted(&mut self) {
        let unwanted: Vec<SlotId> = self.state.slots().filter(|s| !s.wanted).map(id).collect();
        for slot in unwanted.into_iter().rev() {
            let Some(found) = self.state.slot(&slot) else { continue };
            if found.instances.is_empty() {
                let evidence = "nothing is left in it";
                self.emit(Change::SlotRemoved(slot), Rule::Replicas, evidence);
                continue;
            }
            let live: Vec<InstanceId> = found.live().map(|instance| instance.id.clone()).collect();
            for instance in live {
                self.stop_unwanted(&instance);
            }
        }
    }

    fn stop_unwanted(&mut self, id: &InstanceId) {
        let service = &id.slot.service;
        let (why, clear) = if self.state.is_going_down() {
            let alone = !self.has_dependents(service);
            (StopWhy::Down, self.guards.clear(Guard::ReverseOrder, alone))
        } else {
            (StopWhy::Unwanted, self.may_take_out(id))
        };
        if clear {
            self.begin_stop(id, why, Rule::Replicas, "its slot is not wanted any more");
        }
    }

    /// Whether something that needs the service still runs.
    fn has_dependents(&self, service: &ServiceName) -> bool {
        let needs = |name: &ServiceName| {
            let found = self.state.project().services.get(name);
            found.is_some_and(|found| found.needs.contains_key(service))
        };
        self.state.instances().any(|other| other.occupies() && needs(&other.id.slot.service))
    }

    /// The floor: whether an instance may be taken out of service by our own choice. One that is
    /// not ready serves nobody; a ready one must leave enough others.
    pub(super) fn may_take_out(&self, id: &InstanceId) -> bool {
        let service = &id.slot.service;
        let Some(spec) = self.state.project().services.get(service) else { return true };
        if !self.state.instance(id).is_some_and(Instance::is_ready)
            || self.state.replicas(service) == 0
        {
            return true;
        }
        let others = |slot: &&Slot| slot.live().any(|other| other.is_ready() && other.id != *id);
        let left = self.state.slots_of(service).filter(others).count();
        let due = self.state.slots_of(service).filter(|slot| slot.wanted && !slot.has_ended());
        let floor = due.count().saturating_sub(spec.parallelism as usize);
        self.guards.clear(Guard::Floor, left >= floor)
    }
}

fn id(slot: &Slot) -> SlotId {
    slot.id.clone()
}
