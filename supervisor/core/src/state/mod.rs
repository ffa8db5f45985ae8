//! The state: everything that a decision may depend on.
//!
//! Its fields are private to this module and [`State::apply`] is the only function that changes
//! them, so that the compiler, not a convention, keeps the history complete.

mod apply;
mod deadline;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::instance::{Instance, Phase, Route};
use crate::name::{InstanceId, Revision, ServiceName, SlotId};
use crate::restart::WORKED;
use crate::slot::{Slot, Standing};
use crate::spec::{Host, Project, Reserve, Service};
use crate::time::Mono;

/// What the supervisor knows and wants.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct State {
    clock: Mono,
    boot: String,
    host: Host,
    project: Project,
    going_down: bool,
    control: BTreeMap<ServiceName, Control>,
    revisions: BTreeMap<ServiceName, BTreeMap<Revision, Service>>,
    slots: BTreeMap<SlotId, Slot>,
    serials: BTreeMap<SlotId, u64>,
    strays: BTreeSet<InstanceId>,
    generation: u64,
    acknowledged: u64,
    #[serde(skip)]
    next_deadline: deadline::Memo,
}

/// What commands have changed about a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Control {
    /// Its number of replicas, if not the file's.
    pub scaled: Option<u32>,
    /// Counts restarts by command.
    pub epoch: u64,
    /// Whether it is stopped.
    pub halted: bool,
}

/// Who gets requests: what the data plane is told.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Routes {
    /// Counts changes; the data plane never goes back.
    pub generation: u64,
    /// Every routed service with the instances that have a route.
    pub services: BTreeMap<ServiceName, BTreeMap<InstanceId, Route>>,
}

impl State {
    /// The time of the latest event.
    pub fn clock(&self) -> Mono {
        self.clock
    }

    /// Which boot of the host the instances belong to.
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// The host's size.
    pub fn host(&self) -> Host {
        self.host
    }

    /// What the user wants.
    pub fn project(&self) -> &Project {
        &self.project
    }

    /// Whether everything is to stop.
    pub fn is_going_down(&self) -> bool {
        self.going_down
    }

    /// Whether everything has stopped and nothing is left.
    pub fn is_down(&self) -> bool {
        self.going_down && self.slots.is_empty()
    }

    /// The number of the latest routes.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The number of the routes the data plane follows.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// What commands have changed about a service.
    pub fn control(&self, service: &ServiceName) -> Control {
        self.control.get(service).copied().unwrap_or_default()
    }

    /// How many slots the service shall have now: none while it is stopped.
    pub fn replicas(&self, name: &ServiceName) -> u32 {
        if self.going_down || self.control(name).halted { 0 } else { self.scale(name) }
    }

    /// How many slots the service has when it is not stopped: the file's number, or the one that
    /// was asked for by command.
    pub fn scale(&self, name: &ServiceName) -> u32 {
        let file = self.project.services.get(name).map_or(0, |service| service.replicas);
        self.control(name).scaled.unwrap_or(file)
    }

    /// All slots in the order of their names.
    pub fn slots(&self) -> impl DoubleEndedIterator<Item = &Slot> {
        self.slots.values()
    }

    /// The slots of one service, by index.
    pub fn slots_of(&self, service: &ServiceName) -> impl DoubleEndedIterator<Item = &Slot> {
        self.slots.range(service.slot(0)..=service.slot(u32::MAX)).map(|(_, slot)| slot)
    }

    /// One slot.
    pub fn slot(&self, id: &SlotId) -> Option<&Slot> {
        self.slots.get(id)
    }

    /// All instances in the order of their slots.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.slots.values().flat_map(|slot| &slot.instances)
    }

    /// One instance.
    pub fn instance(&self, id: &InstanceId) -> Option<&Instance> {
        self.slot(&id.slot)?.instances.iter().find(|instance| instance.id == *id)
    }

    /// The specification an instance was made from: it is probed and stopped by the terms it
    /// started under, whatever the file says meanwhile.
    pub fn terms(&self, instance: &InstanceId) -> Option<&Service> {
        let revision = &self.instance(instance)?.revision;
        self.revisions.get(&instance.slot.service)?.get(revision)
    }

    /// Whether a container of that revision can still be looked after.
    pub fn knows(&self, service: &ServiceName, revision: &Revision) -> bool {
        self.revisions.get(service).is_some_and(|known| known.contains_key(revision))
    }

    /// Whether an instance is not what its service wants now, or not where.
    pub fn is_outdated(&self, instance: &Instance) -> bool {
        self.is_superseded(instance) || self.is_misplaced(instance)
    }

    /// Whether an instance is not what its service wants now.
    pub fn is_superseded(&self, instance: &Instance) -> bool {
        let name = &instance.id.slot.service;
        self.project.services.get(name).is_some_and(|service| {
            service.revision != instance.revision || self.control(name).epoch != instance.epoch
        })
    }

    /// Whether a slot has one instance that stays, and that is ready and what its service wants.
    pub fn is_as_wanted(&self, slot: &Slot) -> bool {
        let mut live = slot.live();
        let first = live.next().filter(|first| first.is_ready() && !self.is_outdated(first));
        first.is_some() && live.next().is_none()
    }

    /// When an instance that no probe can ask has run long enough to be trusted by an update.
    fn trial_ends(&self, instance: &Instance) -> Option<Mono> {
        let probes = &self.terms(&instance.id)?.probes;
        let unasked = probes.startup.is_none() && probes.ready.is_none();
        (unasked && instance.phase == Phase::Ready).then(|| instance.since + WORKED)
    }

    /// Whether it is too early to trust an instance that is ready by its own word alone.
    pub(crate) fn is_on_trial(&self, instance: &Instance, now: Mono) -> bool {
        self.trial_ends(instance).is_some_and(|end| now < end)
    }

    /// The name of the slot's next instance. Serial numbers outlive the slot: a late word about
    /// an instance must never be taken for one about its namesake.
    pub fn next_instance(&self, slot: &SlotId) -> InstanceId {
        slot.instance(self.serials.get(slot).copied().unwrap_or(0) + 1)
    }

    /// Containers that nobody wants and that are being destroyed.
    pub fn strays(&self) -> &BTreeSet<InstanceId> {
        &self.strays
    }

    /// Whether a stray is in the slot.
    pub fn has_stray(&self, slot: &SlotId) -> bool {
        self.strays.range(slot.instance(0)..=slot.instance(u64::MAX)).next().is_some()
    }

    /// What all containers whose process may exist have reserved. The specification of a stray
    /// may be lost; it counts like its service.
    pub fn reserved(&self) -> Reserve {
        let service = |id: &InstanceId| self.project.services.get(&id.slot.service);
        let strays = self.strays.iter().filter_map(service).map(|service| service.reserve);
        let held = self.instances().filter(|instance| instance.occupies());
        let held = held.filter_map(|instance| self.terms(&instance.id)).map(|terms| terms.reserve);
        held.chain(strays).fold(Reserve::default(), Reserve::plus)
    }

    /// The first moment after `now` when something happens without any news: when to send the
    /// next `Tick`. What is overdue already waits for news, not for time.
    pub fn next_deadline(&self, now: Mono) -> Option<Mono> {
        let next = self.next_deadline.after(now, || self.find_deadline(now));
        debug_assert_eq!(next, self.find_deadline(now), "the deadline that was remembered");
        next
    }

    fn find_deadline(&self, now: Mono) -> Option<Mono> {
        let pauses =
            self.slots.values().filter(|slot| slot.wanted).filter_map(|slot| match slot.standing {
                Standing::BackOff { until } => Some(until),
                _ => None,
            });
        // Only who is new may be on trial, and most are not.
        let new = self.instances().filter(|instance| instance.since + WORKED > now);
        self.instances()
            .filter_map(Instance::deadline)
            .chain(new.filter_map(|instance| self.trial_ends(instance)))
            .chain(pauses)
            .filter(|deadline| *deadline > now)
            .min()
    }

    /// What the data plane shall be told.
    pub fn routes(&self) -> Routes {
        let mut services = BTreeMap::new();
        for (name, service) in &self.project.services {
            if service.routed {
                services.insert(name.clone(), BTreeMap::new());
            }
        }
        for instance in self.instances().filter(|instance| instance.route != Route::Absent) {
            services
                .entry(instance.id.slot.service.clone())
                .or_insert_with(BTreeMap::new)
                .insert(instance.id.clone(), instance.route);
        }
        Routes { generation: self.generation, services }
    }

    /// Whether nothing is left to do: every wanted slot is filled with what is wanted, has ended,
    /// or has failed; no other instance and no unacknowledged route is left.
    pub fn is_settled(&self) -> bool {
        let settled = |slot: &Slot| match (slot.wanted, slot.instances.as_slice()) {
            (true, []) => matches!(slot.standing, Standing::Failed | Standing::Completed),
            (true, [only]) => {
                only.phase == Phase::Ready && !self.is_outdated(only) && !only.condemned
            }
            _ => false,
        };
        self.strays.is_empty()
            && self.slots.values().all(settled)
            && self.acknowledged == self.generation
    }
}
