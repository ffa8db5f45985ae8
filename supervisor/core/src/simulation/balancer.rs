//! A data plane: follows routes, acknowledges them, and has requests in flight.

use std::collections::BTreeMap;

use super::random::Random;
use crate::input::Followed;
use crate::instance::Route;
use crate::name::InstanceId;
use crate::state::Routes;
use crate::time::Mono;

/// The data plane as it really is.
#[derive(Clone, Debug, Default)]
pub(super) struct Balancer {
    /// Whether its process is there.
    pub(super) up: bool,
    /// Until when it does not react.
    pub(super) hung_until: Mono,
    pub(super) generation: u64,
    pub(super) routes: BTreeMap<InstanceId, Route>,
    /// When the last request in flight at an instance will be answered.
    pub(super) busy_until: BTreeMap<InstanceId, Mono>,
}

impl Balancer {
    /// Follows new routes. False if they are older than those it has.
    pub(super) fn follow(&mut self, random: &mut Random, routes: &Routes, now: Mono) -> bool {
        if routes.generation < self.generation {
            return false;
        }
        self.generation = routes.generation;
        let before = std::mem::take(&mut self.routes);
        self.routes = routes.services.values().flatten().map(|(id, r)| (id.clone(), *r)).collect();
        for (id, route) in &self.routes {
            let was = before.get(id).copied().unwrap_or(Route::Absent);
            if *route == Route::Draining && was != Route::Draining {
                let longest = if random.percent(10) { 60_000 } else { 2000 };
                self.busy_until.insert(id.clone(), now + random.span(0, longest));
            }
        }
        let routes = &self.routes;
        self.busy_until.retain(|id, _| routes.contains_key(id));
        true
    }

    /// Whether it gives new requests to the instance.
    pub(super) fn sends_to(&self, id: &InstanceId) -> bool {
        self.up
            && matches!(self.routes.get(id), Some(Route::Active | Route::Suspect | Route::Failing))
    }

    /// What it says of itself when asked.
    pub(super) fn followed(&self) -> Followed {
        Followed { generation: self.generation, routes: self.routes.clone() }
    }

    /// The draining instances and when each has nothing in flight any more.
    pub(super) fn draining(&self) -> Vec<(InstanceId, Mono)> {
        let drains = self.routes.iter().filter(|(_, route)| **route == Route::Draining);
        let until = |id: &InstanceId| self.busy_until.get(id).copied().unwrap_or(Mono::BOOT);
        drains.map(|(id, _)| (id.clone(), until(id))).collect()
    }

    /// Its process dies, and with it every connection.
    pub(super) fn die(&mut self) {
        *self = Balancer::default();
    }
}
