//! How each event changes the state.
//!
//! Total: an event about a slot or instance that is not there changes nothing, so any beginning
//! of a history, and any history with a hole, can be replayed.

use super::State;
use crate::action::Role;
use crate::event::{Change, Event};
use crate::instance::{Health, Instance, Phase};
use crate::name::{InstanceId, ServiceName, SlotId};
use crate::slot::{Slot, Standing};
use crate::spec::Project;
use crate::time::Mono;

impl State {
    /// Changes the state by one event. The only mutation there is.
    pub fn apply(&mut self, event: &Event) {
        self.clock = self.clock.max(event.at);
        self.next_deadline.forget();
        match &event.change {
            Change::Configured(project) => self.configure(project),
            Change::Scaled { service, replicas } => {
                self.control.entry(service.clone()).or_default().scaled = Some(*replicas);
            }
            Change::RestartWanted { service } => {
                self.control.entry(service.clone()).or_default().epoch += 1;
                self.forgive(service);
            }
            Change::Halted { service, halted } => {
                self.control.entry(service.clone()).or_default().halted = *halted;
            }
            Change::GoingDown => self.going_down = true,
            Change::HostSized(host) => self.host = *host,
            Change::Booted { boot } => self.booted(boot, event.at),
            Change::Renumbered { generation } => self.generation = *generation,
            Change::Acknowledged { generation } => {
                self.acknowledged = self.acknowledged.max(*generation).min(self.generation);
            }
            Change::Stray(id) => {
                self.name_used(id);
                self.strays.insert(id.clone());
            }
            Change::StrayGone(id) => {
                self.strays.remove(id);
            }
            change => match change.instance() {
                Some(id) => self.apply_to_instance(id, change, event.at),
                None => self.apply_to_slot(change, event.at),
            },
        }
    }

    /// A new desired state. What it changes of a service gets a clean slate.
    fn configure(&mut self, project: &Project) {
        self.going_down = false;
        for (name, service) in &project.services {
            let before = self.project.services.get(name);
            if before.is_none_or(|old| old.replicas != service.replicas)
                && let Some(control) = self.control.get_mut(name)
            {
                control.scaled = None;
            }
            if before.is_some_and(|old| old.revision != service.revision) {
                self.forgive(name);
            }
            let known = self.revisions.entry(name.clone()).or_default();
            known.insert(service.revision.clone(), service.clone());
        }
        self.control.retain(|name, _| project.services.contains_key(name));
        self.project = project.clone();
        let names: Vec<ServiceName> = self.revisions.keys().cloned().collect();
        names.iter().for_each(|name| self.forget_revisions(name));
    }

    /// Opens the service's slots, whatever they had come to.
    fn forgive(&mut self, service: &ServiceName) {
        let slots = self.slots.range_mut(service.slot(0)..=service.slot(u32::MAX));
        for (_, slot) in slots {
            slot.standing = Standing::Open;
            slot.history = Default::default();
        }
    }

    /// Drops the specifications of a service that nothing is made from any more.
    fn forget_revisions(&mut self, service: &ServiceName) {
        let wanted = self.project.services.get(service).map(|s| s.revision.clone());
        let slots = self.slots.range(service.slot(0)..=service.slot(u32::MAX));
        let used: Vec<_> = slots
            .flat_map(|(_, s)| &s.instances)
            .map(|i| i.revision.clone())
            .chain(wanted)
            .collect();
        if let Some(known) = self.revisions.get_mut(service) {
            known.retain(|revision, _| used.contains(revision));
            if known.is_empty() {
                self.revisions.remove(service);
            }
        }
    }

    /// The host has booted: instances died with the last boot, and times of its clock mean
    /// nothing in this one. Budgets stay, counted from now.
    fn booted(&mut self, boot: &str, at: Mono) {
        self.boot = boot.to_string();
        self.clock = at;
        self.acknowledged = 0;
        self.strays.clear();
        for slot in self.slots.values_mut() {
            slot.instances.clear();
            slot.started = false;
            slot.history.restarts.iter_mut().for_each(|restart| *restart = at);
            if matches!(slot.standing, Standing::BackOff { .. }) {
                slot.standing = Standing::Open;
            }
        }
    }

    fn apply_to_slot(&mut self, change: &Change, at: Mono) {
        let Some(id) = change.slot() else { return };
        match change {
            Change::SlotWanted(_) => {
                let slot = self.slots.entry(id.clone()).or_insert_with(|| Slot::new(id.clone()));
                slot.wanted = true;
            }
            Change::SlotRemoved(_) => {
                self.slots.remove(id);
                self.forget_revisions(&id.service);
            }
            Change::BackedOff { streak, futile, pause, until, .. } => {
                let policy = self.project.services.get(&id.service).map(|s| s.restart);
                if let Some(slot) = self.slots.get_mut(id) {
                    slot.history.record(
                        &policy.unwrap_or_default(),
                        (*streak, *futile),
                        *pause,
                        at,
                    );
                    slot.standing = Standing::BackOff { until: *until };
                }
            }
            _ => {
                if let Some(slot) = self.slots.get_mut(id) {
                    change_slot(slot, change);
                }
            }
        }
    }

    fn apply_to_instance(&mut self, id: &InstanceId, change: &Change, at: Mono) {
        match change {
            Change::Launching { revision, epoch, joined, .. } => {
                let mut instance = Instance::new(id.clone(), revision.clone(), *epoch, at);
                instance.joined.clone_from(joined);
                self.add(instance);
            }
            Change::Adopted { revision, joined, deadline, .. } => {
                let epoch = self.control(&id.slot.service).epoch;
                let mut instance = Instance::new(id.clone(), revision.clone(), epoch, at);
                instance.phase = Phase::Starting { deadline: *deadline };
                instance.joined.clone_from(joined);
                self.add(instance);
            }
            Change::Deleted(_) => {
                if let Some(slot) = self.slots.get_mut(&id.slot) {
                    slot.instances.retain(|instance| instance.id != *id);
                }
                self.forget_revisions(&id.slot.service);
            }
            _ => {
                if let Change::Rerouted { generation, .. } = change {
                    self.generation = self.generation.max(*generation);
                }
                let Some(slot) = self.slots.get_mut(&id.slot) else { return };
                slot.started |= matches!(change, Change::Launched { .. });
                if let Some(instance) = slot.instances.iter_mut().find(|i| i.id == *id) {
                    change_instance(instance, change, at);
                }
            }
        }
    }

    /// Puts an instance into its slot, which comes into being if it was lost.
    fn add(&mut self, instance: Instance) {
        self.name_used(&instance.id);
        let id: SlotId = instance.id.slot.clone();
        let slot = self.slots.entry(id.clone()).or_insert_with(|| Slot::new(id));
        slot.waiting = None;
        slot.started |= instance.phase != Phase::Launching;
        if let Standing::BackOff { .. } = slot.standing {
            slot.standing = Standing::Open;
        }
        slot.instances.push(instance);
    }

    /// No later instance gets this name.
    fn name_used(&mut self, id: &InstanceId) {
        let last = self.serials.entry(id.slot.clone()).or_default();
        *last = id.serial.max(*last);
    }
}

fn change_slot(slot: &mut Slot, change: &Change) {
    match change {
        Change::SlotUnwanted(_) => slot.wanted = false,
        Change::Waiting { obstacle, .. } => slot.waiting = Some(obstacle.clone()),
        Change::Failed(_) => slot.standing = Standing::Failed,
        Change::Completed(_) => slot.standing = Standing::Completed,
        Change::Reset(_) => {
            slot.standing = Standing::Open;
            slot.history = Default::default();
        }
        _ => {}
    }
}

fn change_instance(instance: &mut Instance, change: &Change, at: Mono) {
    let health = &mut instance.health;
    match change {
        Change::Launched { deadline, .. } => {
            enter(instance, Phase::Starting { deadline: *deadline }, at);
        }
        Change::BecameReady(_) => {
            *health = Health { live_failures: health.live_failures, ..Health::default() };
            instance.ready_at = instance.ready_at.or(Some(at));
            enter(instance, Phase::Ready, at);
        }
        Change::BecameUnready(_) => {
            health.ready_passes = 0;
            enter(instance, Phase::Unready, at);
        }
        Change::ProbeFailed { role: Role::Ready, .. } => {
            health.ready_failures = health.ready_failures.saturating_add(1);
            health.ready_passes = 0;
        }
        Change::ProbeFailed { role: Role::Live, .. } => {
            health.live_failures = health.live_failures.saturating_add(1);
        }
        Change::ProbePassed { role, .. } => {
            health.suspected = false;
            health.unprobed = false;
            match role {
                Role::Startup => {}
                Role::Live => health.live_failures = 0,
                Role::Ready => {
                    health.ready_failures = 0;
                    health.ready_passes = health.ready_passes.saturating_add(1);
                }
            }
        }
        Change::ProbeImpossible(_) => health.unprobed = true,
        Change::Suspected(_) => health.suspected = true,
        Change::Condemned(_) => instance.condemned = true,
        Change::Reprieved(_) => instance.condemned = false,
        Change::Drained(_) => instance.idle = true,
        Change::StopWanted { why, .. } => instance.stop_wanted = Some(*why),
        Change::Stopping { stage, until, why, .. } => {
            enter(instance, Phase::Stopping { stage: *stage, until: *until, why: *why }, at);
        }
        Change::Exited { cause, .. } => {
            let cause = cause.clone();
            enter(instance, Phase::Exited { cause, failed_deletes: 0, retry_at: None }, at);
        }
        Change::DeleteFailed { retry_at: retry, .. } => {
            if let Phase::Exited { failed_deletes, retry_at, .. } = &mut instance.phase {
                *failed_deletes = failed_deletes.saturating_add(1);
                *retry_at = Some(*retry);
            }
        }
        Change::DeleteRetried(_) => {
            if let Phase::Exited { retry_at, .. } = &mut instance.phase {
                *retry_at = None;
            }
        }
        Change::Rerouted { route, generation, .. } => {
            instance.route = *route;
            instance.idle = false;
            instance.route_generation = *generation;
        }
        _ => {}
    }
}

fn enter(instance: &mut Instance, phase: Phase, at: Mono) {
    instance.phase = phase;
    instance.since = at;
}
