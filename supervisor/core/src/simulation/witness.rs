//! The witness: checks after every step what must never happen.
//!
//! It has its own view. Where it can it looks at the world's truth, not at the core's state, and
//! it counts for itself, so that an error in the core is not repeated in the check.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::balancer::Balancer;
use super::world::{Body, World};
use crate::event::{Change, Event, Rule};
use crate::instance::{Phase, Route, StopStage, StopWhy};
use crate::name::{InstanceId, ServiceName, SlotId};
use crate::slot::{Slot, Standing};
use crate::spec::{Condition, Host, Order, Service};
use crate::state::State;
use crate::time::{Mono, Span};

/// What must hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Invariant {
    /// Applying the events gives the state; the state's text form gives it again.
    Replay,
    /// Every event says why.
    Reason,
    /// Never two processes of a stop-first slot, never three of any.
    Slot,
    /// The memory promised to running containers never exceeds the host's.
    Memory,
    /// Only what has answered a probe is given requests.
    RoutedReady,
    /// The number of the routes never goes back.
    Generation,
    /// No stop signal while the data plane still sends requests there.
    Drained,
    /// By our own choice never fewer ready than replicas less parallelism.
    Floor,
    /// An old instance stays until its replacement has answered.
    Handover,
    /// Restarts keep their pauses.
    Pause,
    /// Restarts keep their budget.
    Budget,
    /// The first start comes after the dependencies.
    Dependencies,
    /// Who joins namespaces joins those of one that runs, stays with it as long as it is in place,
    /// and no longer.
    Joined,
    /// Dependents end before what they depend on.
    ReverseOrder,
    /// After the faults: everything wanted runs, nothing else does.
    Settles,
    /// After `down`: nothing is left.
    LeavesNothing,
}

/// A broken invariant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// How.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.invariant, self.detail)
    }
}

pub(super) type Checked = Result<(), Violation>;

fn demand(holds: bool, invariant: Invariant, detail: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Violation { invariant, detail: detail() }) }
}

/// What the witness remembers.
#[derive(Clone, Debug, Default)]
pub(super) struct Witness {
    /// When each stop began.
    stops: BTreeMap<InstanceId, Mono>,
    /// The failures of each slot.
    failures: BTreeMap<SlotId, Failures>,
}

/// The failures of one slot.
#[derive(Clone, Copy, Debug)]
struct Failures {
    /// In a row.
    row: u32,
    /// Those before which the instance had not been ready for a second.
    futile: u32,
    /// When the last one was.
    last: Mono,
}

impl Witness {
    /// Some history was lost: what was counted may no longer be known to the core.
    pub(super) fn forget(&mut self) {
        self.failures.clear();
    }

    /// Checks one event against the state before it.
    pub(super) fn event(&mut self, before: &State, event: &Event, world: &World) -> Checked {
        let evidence = &event.reason.evidence;
        demand(!evidence.is_empty(), Invariant::Reason, || format!("{:?}", event.change))?;
        match &event.change {
            Change::Launching { instance, joined, .. } => {
                self.launching(before, instance, event.at)?;
                joins(before, instance, joined)?;
            }
            Change::Stopping { instance, why, .. } => {
                let begins = before.instance(instance).is_some_and(|i| i.is_running());
                if begins {
                    self.stops.insert(instance.clone(), event.at);
                    floor(before, instance, *why)?;
                    handover(before, instance, event, world)?;
                }
            }
            Change::Rerouted {
                instance,
                route: Route::Active | Route::Suspect | Route::Failing,
                ..
            } => {
                let proved = world.bodies.get(instance).is_some_and(|body| body.proved);
                let gone = !world.bodies.contains_key(instance);
                demand(proved || gone, Invariant::RoutedReady, || {
                    format!("{instance} is routed and has never answered a probe")
                })?;
            }
            Change::Exited { instance, .. } => self.exited(before, instance, event.at),
            Change::Configured(_) | Change::Booted { .. } | Change::RestartWanted { .. } => {
                self.failures.clear();
            }
            Change::Reset(slot) | Change::SlotRemoved(slot) => {
                self.failures.remove(slot);
            }
            _ => {}
        }
        Ok(())
    }

    fn exited(&mut self, before: &State, id: &InstanceId, at: Mono) {
        let Some(instance) = before.instance(id) else { return };
        let why = match instance.phase {
            Phase::Stopping { why, .. } => Some(why),
            _ => instance.stop_wanted,
        };
        let newer = before.slot(&id.slot).is_some_and(|slot| slot.live().any(|i| i.id > *id));
        let lost = why.is_none() && instance.joined.iter().any(|owner| !stays(before, owner));
        if newer || lost || !why.is_none_or(StopWhy::is_failure) {
            return;
        }
        let ready_for = |least| instance.ready_at.is_some_and(|r| at.since(r) >= least);
        let none = Failures { row: 0, futile: 0, last: at };
        let before = *self.failures.entry(id.slot.clone()).or_insert(none);
        let before = if ready_for(Span::from_secs(10)) { none } else { before };
        let futile = before.futile + u32::from(!ready_for(Span::from_secs(1)));
        let failures = Failures { row: before.row + 1, futile: futile.max(1), last: at };
        self.failures.insert(id.slot.clone(), failures);
    }

    fn launching(&self, before: &State, id: &InstanceId, at: Mono) -> Checked {
        let Some(service) = before.project().services.get(&id.slot.service) else {
            return demand(false, Invariant::Slot, || format!("{id} belongs to no service"));
        };
        if let Some(Failures { row, futile, last }) = self.failures.get(&id.slot).copied() {
            let budget = service.restart.max_attempts.unwrap_or(u32::MAX);
            demand(row <= budget, Invariant::Budget, || {
                format!("{id} is restart {row} in a row, the budget is {budget}")
            })?;
            let base = 100u64.saturating_mul(1 << futile.saturating_sub(2).min(20)).min(30_000);
            let least = if futile < 2 { 0 } else { base * 3 / 4 };
            let least = least.max(service.restart.delay.ms());
            let waited = at.since(last).ms();
            demand(waited >= least, Invariant::Pause, || {
                format!("{id} follows failure {futile} after {waited}ms, not {least}ms")
            })?;
        }
        let first = before.slot(&id.slot).is_some_and(|slot| !slot.started);
        if first { dependencies(before, service, id) } else { Ok(()) }
    }

    /// Checks the launch of a container against everything that exists.
    pub(super) fn launch(
        &self,
        world: &World,
        (id, joined): (&InstanceId, &BTreeSet<InstanceId>),
        terms: &Service,
        (order, moves): (Order, Order),
        host: Host,
    ) -> Checked {
        let others = world.bodies.iter();
        let others: Vec<(&InstanceId, &Body)> = others
            .filter(|(other, body)| other.slot == id.slot && *other != id && body.exists())
            .collect();
        let apart = others.iter().all(|(_, body)| body.joined != *joined);
        let order = if apart { moves } else { order };
        let limit = if order == Order::StopFirst { 0 } else { 1 };
        let others: Vec<String> = others.iter().map(|(other, _)| other.to_string()).collect();
        demand(others.len() <= limit, Invariant::Slot, || {
            format!("{id} is started beside {}", others.join(", "))
        })?;
        let own = world.bodies.get(id).filter(|body| body.exists()).map_or(0, |b| b.memory_bytes);
        let used = world.memory_in_use() - own + terms.reserve.memory_bytes;
        demand(used <= host.memory_bytes, Invariant::Memory, || {
            format!("{id} brings the promises to {used} of {} bytes", host.memory_bytes)
        })
    }

    /// Checks the delivery of a stop signal.
    pub(super) fn signal(
        &self,
        state: &State,
        world: &World,
        balancer: &Balancer,
        id: &InstanceId,
        now: Mono,
    ) -> Checked {
        let began = self.stops.get(id).copied().unwrap_or(Mono::BOOT);
        let patient = now.since(began) < Span::from_secs(5);
        demand(!(patient && balancer.sends_to(id)), Invariant::Drained, || {
            format!("{id} gets its stop signal while requests are sent to it")
        })?;
        let Some(Phase::Stopping { why: StopWhy::Down, stage: StopStage::Signal, .. }) =
            state.instance(id).map(|instance| &instance.phase)
        else {
            return Ok(());
        };
        if !state.is_going_down() {
            return Ok(()); // somebody has thought better of it
        }
        let dependent = |other: &InstanceId| {
            let spec = state.project().services.get(&other.slot.service);
            spec.is_some_and(|spec| spec.needs.contains_key(&id.slot.service))
        };
        let alive = world.running().into_iter().find(dependent);
        demand(alive.is_none(), Invariant::ReverseOrder, || {
            format!("{id} is stopped while {alive:?} depends on it")
        })
    }
}

fn dependencies(before: &State, service: &Service, id: &InstanceId) -> Checked {
    for (on, need) in &service.needs {
        let met = |slot: &Slot| match need.condition {
            Condition::Started => slot.started,
            Condition::Healthy => slot.is_ready() || slot.standing == Standing::Completed,
            Condition::Completed => slot.standing == Standing::Completed,
        };
        let slots: Vec<&Slot> = before.slots_of(on).filter(|slot| slot.wanted).collect();
        let absent = !before.project().services.contains_key(on);
        let fine = |slot: &&Slot| met(slot) || (!need.required && slot.is_failed());
        let all = !slots.is_empty() && slots.iter().all(fine);
        demand(all || (absent && !need.required), Invariant::Dependencies, || {
            format!("{id} is started before {on} is {:?}", need.condition)
        })?;
    }
    Ok(())
}

/// Checks that an instance is put into namespaces of the right slots, in which something runs.
fn joins(before: &State, id: &InstanceId, joined: &BTreeSet<InstanceId>) -> Checked {
    let service = before.project().services.get(&id.slot.service);
    for name in service.into_iter().flat_map(|service| &service.joins) {
        let replicas = before.replicas(name);
        let index = if id.slot.index <= replicas { id.slot.index } else { 1 };
        let of_it = joined.iter().find(|owner| owner.slot == name.slot(index));
        let runs = of_it.and_then(|owner| before.instance(owner)).is_some_and(|o| o.is_running());
        demand(runs, Invariant::Joined, || {
            format!("{id} joins {joined:?}, and {name}.{index} has nobody else who runs")
        })?;
    }
    Ok(())
}

/// Checks that an instance does not go while the one whose namespaces it is in, and which another
/// is to replace, may still answer requests by it.
fn stayed(before: &State, id: &InstanceId) -> Checked {
    let Some(instance) = before.instance(id).filter(|one| !one.joined.is_empty()) else {
        return Ok(());
    };
    let of_new = before.slot(&id.slot).and_then(Slot::current).map(|new| &new.joined);
    let all_stay = instance.joined.iter().all(|owner| stays(before, owner));
    let same_slots = of_new.is_some_and(|new| {
        new.iter().map(|owner| &owner.slot).eq(instance.joined.iter().map(|owner| &owner.slot))
    });
    let same = of_new == Some(&instance.joined);
    demand(same || !all_stay || !same_slots, Invariant::Joined, || {
        format!("{id} leaves {:?}, which still serve", instance.joined)
    })
}

/// Whether an instance has not ended, and has not been told to.
fn stays(state: &State, id: &InstanceId) -> bool {
    state.instance(id).is_some_and(|instance| match instance.phase {
        Phase::Stopping { stage, .. } => stage < StopStage::Signal,
        _ => instance.occupies(),
    })
}

/// Checks after a turn that nobody goes on in the namespaces of one that has ended.
pub(super) fn nobody_left_behind(state: &State) -> Checked {
    for instance in state.instances().filter(|instance| instance.is_live()) {
        let lost = instance.joined.iter().find(|owner| !stays(state, owner));
        demand(lost.is_none(), Invariant::Joined, || {
            format!("{} goes on in the namespaces of {lost:?}", instance.id)
        })?;
    }
    Ok(())
}

fn floor(before: &State, id: &InstanceId, why: StopWhy) -> Checked {
    let name: &ServiceName = &id.slot.service;
    let ready = before.instance(id).is_some_and(|instance| instance.is_ready());
    let Some(service) = before.project().services.get(name) else { return Ok(()) };
    let chosen = matches!(why, StopWhy::Unwanted | StopWhy::Replaced | StopWhy::Superfluous);
    if !ready || !chosen || before.replicas(name) == 0 {
        return Ok(());
    }
    let slot = before.slot(&id.slot);
    if slot.is_some_and(|slot| slot.live().any(|other| other.is_ready() && other.id != *id)) {
        return Ok(()); // its replacement serves in its place
    }
    let (mut serving, mut due) = (0, 0);
    for slot in before.slots_of(name) {
        serving += usize::from(slot.live().any(|other| other.is_ready() && other.id != *id));
        let ended = matches!(slot.standing, Standing::Failed | Standing::Completed);
        due += usize::from(slot.wanted && !ended);
    }
    demand(serving + service.parallelism as usize >= due, Invariant::Floor, || {
        format!("stopping {id} ({why}) leaves {serving} ready of {due}")
    })
}

fn handover(before: &State, id: &InstanceId, event: &Event, world: &World) -> Checked {
    let Change::Stopping { why: StopWhy::Replaced | StopWhy::Unhealthy, .. } = event.change else {
        return Ok(());
    };
    if event.reason.rule != Rule::Handover {
        return Ok(());
    }
    stayed(before, id)?;
    let newest = before.slot(&id.slot).and_then(Slot::current).filter(|new| new.id != *id);
    let answered = newest.is_some_and(|new| {
        new.is_ready() && world.bodies.get(&new.id).is_none_or(|body| body.proved)
    });
    demand(answered, Invariant::Handover, || {
        format!("{id} makes way for {:?}, which is not ready", newest.map(|n| n.id.to_string()))
    })
}

/// Whether what was wanted has come true: in the state, in the world and at the data plane.
pub(super) fn settled(state: &State, world: &World, balancer: &Balancer, now: Mono) -> Checked {
    let unsettled = |detail: String| Err(Violation { invariant: Invariant::Settles, detail });
    for slot in state.slots() {
        if excused(state, slot) {
            continue;
        }
        let [only] = slot.instances.as_slice() else {
            if slot.instances.is_empty() && slot.has_ended() {
                continue;
            }
            let count = slot.instances.len();
            return unsettled(format!("{} has {count} instances, {:?}", slot.id, slot.waiting));
        };
        if !only.is_ready() || state.is_outdated(only) || only.condemned || !slot.wanted {
            return unsettled(format!("{} is {:?}", only.id, only.phase));
        }
        let Some(body) = world.bodies.get(&only.id).filter(|body| body.answers(now)) else {
            return unsettled(format!("{} is thought ready and does not answer", only.id));
        };
        if !world.can_be_joined(&body.joined) {
            return unsettled(format!("{} is in the namespaces of nobody", only.id));
        }
    }
    if let Some(stray) = world.bodies.keys().find(|id| state.instance(id).is_none()) {
        return unsettled(format!("{stray} belongs to nobody"));
    }
    let routes: BTreeMap<InstanceId, Route> =
        state.routes().services.into_values().flatten().collect();
    if balancer.routes != routes || state.acknowledged() != state.generation() {
        return unsettled("the data plane follows other routes".to_string());
    }
    Ok(())
}

/// Whether a slot may stay empty: it, or something it needs, has used up its budget.
fn excused(state: &State, slot: &Slot) -> bool {
    let failed = |name: &ServiceName| state.slots_of(name).any(Slot::is_failed);
    let mut seen = vec![slot.id.service.clone()];
    let mut next = 0;
    while let Some(name) = seen.get(next).cloned() {
        if failed(&name) {
            return true;
        }
        let needs = state.project().services.get(&name).map(|s| s.needs.keys().cloned());
        for needed in needs.into_iter().flatten() {
            if !seen.contains(&needed) {
                seen.push(needed);
            }
        }
        next += 1;
    }
    false
}
