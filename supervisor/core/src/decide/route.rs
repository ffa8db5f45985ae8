//! Who gets requests.
//!
//! | instance                              | route    |
//! |---------------------------------------|----------|
//! | ready                                 | active   |
//! | ready, but traffic casts doubt on it  | suspect: only when no active one is left |
//! | ready, but a probe has failed          | failing: as suspect; requests leave it |
//! | unready or stopping, if it was routed | draining |
//! | anything else                         | absent   |
//!
//! Doubt is not applied when it falls on more than half of the ready instances (Envoy's panic
//! threshold): then the cause is probably shared, and turning traffic to the rest would only
//! bring the rest down. An instance whose probes have settled the matter stays where it is.

use std::collections::BTreeMap;

use crate::event::{Change, Rule};
use crate::guard::Guard;
use crate::instance::{Instance, Phase, Route};
use crate::name::{InstanceId, ServiceName};
use crate::step::Step;

impl Step<'_> {
    pub(super) fn route(&mut self) {
        let calm = self.calm_services();
        let changes: Vec<(InstanceId, Route)> = self
            .state
            .instances()
            .map(|instance| (instance, self.route_of(instance, &calm)))
            .filter(|(instance, route)| instance.route != *route)
            .map(|(instance, route)| (instance.id.clone(), route))
            .collect();
        for (instance, route) in changes {
            let generation = self.state.generation() + u64::from(!self.renumbered);
            self.renumbered = true;
            let evidence = match route {
                Route::Absent => "it is gone",
                Route::Active => "it is ready",
                Route::Suspect => "it is in doubt, and others are not",
                Route::Failing => "a probe has failed, and others are not in doubt",
                Route::Draining => "it gets nothing new and finishes what it has",
            };
            self.emit(Change::Rerouted { instance, route, generation }, Rule::Routing, evidence);
        }
    }

    /// The services in which at least half of the ready instances are beyond doubt.
    fn calm_services(&self) -> BTreeMap<ServiceName, bool> {
        let mut counts: BTreeMap<&ServiceName, (usize, usize)> = BTreeMap::new();
        for instance in self.state.instances().filter(|instance| instance.is_ready()) {
            let (ready, sound) = counts.entry(&instance.id.slot.service).or_default();
            *ready += 1;
            *sound += usize::from(!instance.health.is_doubtful());
        }
        let calm = |(ready, sound): (usize, usize)| sound * 2 >= ready;
        counts.into_iter().map(|(name, count)| (name.clone(), calm(count))).collect()
    }

    fn route_of(&self, instance: &Instance, calm: &BTreeMap<ServiceName, bool>) -> Route {
        let service = &instance.id.slot.service;
        if !self.state.terms(&instance.id).is_some_and(|terms| terms.routed) {
            return Route::Absent;
        }
        let was_routed = instance.route != Route::Absent;
        match instance.phase {
            Phase::Ready if instance.condemned => Route::Failing,
            Phase::Ready if instance.health.is_doubtful() && calm.get(service) == Some(&true) => {
                if instance.health.has_failed() {
                    Route::Failing
                } else {
                    Route::Suspect
                }
            }
            Phase::Ready => Route::Active,
            Phase::Unready | Phase::Stopping { .. } if was_routed => Route::Draining,
            Phase::Starting { .. } if !self.guards.hold(Guard::RouteReady) => Route::Active,
            _ => Route::Absent,
        }
    }
}
