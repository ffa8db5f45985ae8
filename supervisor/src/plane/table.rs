//! Who can be given a request, and who should.
//!
//! Two at random, the better of them (power of two choices): nearly as even as looking at all,
//! and no herd runs to the same one. Better is: less `latency × (in flight + 1)`, the latency
//! being a peak-sensitive moving average that rises at once and falls over ten seconds, so that
//! a replica that becomes slow loses traffic with its first slow answer.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use minisup_core::input::{Evidence, Followed};
use minisup_core::instance::Route;
use minisup_core::name::InstanceId;
use minisup_core::state::Routes;
use tokio::sync::{Notify, mpsc};

use super::http::Pool;
use super::protocol::Report;

/// What is assumed of an instance that has answered nothing yet, in seconds.
const FIRST_LATENCY: f64 = 0.005;
/// How fast a slow answer is forgotten, in seconds.
const DECAY: f64 = 10.0;
/// How long an instance rests that refused a connection.
const REST: Duration = Duration::from_millis(200);
/// The least time between two doubts about the same instance.
const DOUBT_AGAIN: Duration = Duration::from_millis(500);

/// One instance, as the data plane sees it.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) id: InstanceId,
    pub(crate) namespace: OwnedFd,
    pub(crate) route: Cell<Route>,
    /// Idle HTTP connections to it.
    pub(crate) pool: Pool,
    in_flight: Cell<u32>,
    latency: Cell<f64>,
    measured: Cell<Instant>,
    rests_until: Cell<Option<Instant>>,
    doubted: Cell<Option<Instant>>,
    reports: mpsc::UnboundedSender<Report>,
}

/// One service.
#[derive(Debug, Default)]
pub(crate) struct Service {
    backends: RefCell<Vec<Rc<Backend>>>,
    /// Wakes whoever waits for an instance, or for the end of one.
    pub(crate) changed: Notify,
}

/// Everything.
#[derive(Debug)]
pub(crate) struct Table {
    services: RefCell<BTreeMap<String, Rc<Service>>>,
    known: RefCell<BTreeMap<InstanceId, Rc<Backend>>>,
    generation: Cell<u64>,
    reports: mpsc::UnboundedSender<Report>,
    dice: Cell<u64>,
}

impl Table {
    pub(crate) fn new(reports: mpsc::UnboundedSender<Report>) -> Table {
        Table {
            services: RefCell::default(),
            known: RefCell::default(),
            generation: Cell::new(0),
            reports,
            dice: Cell::new(0x9e37_79b9_7f4a_7c15 ^ u64::from(std::process::id())),
        }
    }

    /// The service of that name, which may still be without instances.
    pub(crate) fn service(&self, name: &str) -> Rc<Service> {
        self.services.borrow_mut().entry(name.to_string()).or_default().clone()
    }

    /// An instance can be reached from now on.
    pub(crate) fn add_endpoint(&self, id: InstanceId, namespace: OwnedFd) {
        let backend = Backend {
            id: id.clone(),
            namespace,
            route: Cell::new(Route::Absent),
            pool: Pool::default(),
            in_flight: Cell::new(0),
            latency: Cell::new(FIRST_LATENCY),
            measured: Cell::new(Instant::now()),
            rests_until: Cell::new(None),
            doubted: Cell::new(None),
            reports: self.reports.clone(),
        };
        self.known.borrow_mut().insert(id, Rc::new(backend));
    }

    /// Follows new routes and says so. Older ones than those in force are ignored.
    pub(crate) fn follow(&self, routes: &Routes) {
        if routes.generation < self.generation.get() {
            return;
        }
        self.generation.set(routes.generation);
        let all: BTreeMap<&InstanceId, Route> =
            routes.services.values().flatten().map(|(id, route)| (id, *route)).collect();
        self.known.borrow_mut().retain(|id, backend| {
            backend.route.set(all.get(id).copied().unwrap_or(Route::Absent));
            if backend.route.get() != Route::Active {
                backend.pool.clear();
            }
            all.contains_key(id)
        });
        for (name, routed) in &routes.services {
            let known = self.known.borrow();
            let backends = routed.keys().filter_map(|id| known.get(id).cloned()).collect();
            let service = self.service(name.as_str());
            service.backends.replace(backends);
        }
        for (name, service) in self.services.borrow().iter() {
            if !routes.services.keys().any(|routed| routed.as_str() == name) {
                service.backends.borrow_mut().clear();
            }
            service.changed.notify_waiters();
        }
        let generation = routes.generation;
        let _ = self.reports.send(Report::Acknowledged { generation });
        for backend in self.known.borrow().values() {
            backend.tell_if_idle();
        }
    }

    /// What this data plane does, for a brain that asks.
    pub(crate) fn followed(&self) -> Followed {
        let known = self.known.borrow();
        let routes = known.values().map(|backend| (backend.id.clone(), backend.route.get()));
        Followed { generation: self.generation.get(), routes: routes.collect() }
    }

    /// The instances that can be reached.
    pub(crate) fn endpoints(&self) -> Vec<InstanceId> {
        self.known.borrow().keys().cloned().collect()
    }

    /// A number below `end` (xorshift; balancing needs no better one).
    fn roll(&self, end: usize) -> usize {
        let mut x = self.dice.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.dice.set(x);
        usize::try_from(x % (end.max(1) as u64)).unwrap_or(0)
    }

    /// The instance that should get the next request, none of `tried`. Active ones come first,
    /// those that rest after a refusal last of them; suspects only if no active one is left.
    pub(crate) fn pick(&self, service: &Service, tried: &[InstanceId]) -> Option<Rc<Backend>> {
        let backends = service.backends.borrow();
        let now = Instant::now();
        let fresh = |b: &&Rc<Backend>| !tried.contains(&b.id);
        let active = |b: &&Rc<Backend>| b.route.get() == Route::Active;
        let awake = |b: &&Rc<Backend>| b.rests_until.get().is_none_or(|until| until <= now);
        let choice = |candidates: Vec<&Rc<Backend>>| self.better_of_two(&candidates);
        choice(backends.iter().filter(fresh).filter(active).filter(awake).collect())
            .or_else(|| choice(backends.iter().filter(fresh).filter(active).collect()))
            .or_else(|| {
                let suspect = |b: &&Rc<Backend>| b.route.get() == Route::Suspect;
                choice(backends.iter().filter(fresh).filter(suspect).collect())
            })
    }

    fn better_of_two(&self, candidates: &[&Rc<Backend>]) -> Option<Rc<Backend>> {
        let count = candidates.len();
        if count < 2 {
            return candidates.first().map(|only| Rc::clone(only));
        }
        let first = self.roll(count);
        let second = (first + 1 + self.roll(count - 1)) % count;
        let (a, b) = (candidates.get(first)?, candidates.get(second)?);
        let winner = if a.cost() <= b.cost() { a } else { b };
        Some(Rc::clone(winner))
    }
}

impl Backend {
    fn cost(&self) -> f64 {
        self.latency.get() * f64::from(self.in_flight.get() + 1)
    }

    /// Notes how long an answer took.
    pub(crate) fn measure(&self, took: Duration) {
        let (old, new) = (self.latency.get(), took.as_secs_f64());
        let weight = (-self.measured.get().elapsed().as_secs_f64() / DECAY).exp();
        self.measured.set(Instant::now());
        let average = if new > old { new } else { old * weight + new * (1.0 - weight) };
        self.latency.set(average.max(1e-6));
    }

    /// It refused a connection: others come first for a moment.
    pub(crate) fn rest(&self) {
        self.rests_until.set(Some(Instant::now() + REST));
    }

    /// Tells the brain that something is wrong with it.
    pub(crate) fn doubt(&self, evidence: Evidence) {
        let now = Instant::now();
        if self.doubted.get().is_none_or(|last| now - last >= DOUBT_AGAIN) {
            self.doubted.set(Some(now));
            let instance = self.id.clone();
            let _ = self.reports.send(Report::Doubted { instance, evidence });
        }
    }

    fn tell_if_idle(&self) {
        if self.route.get() == Route::Draining && self.in_flight.get() == 0 {
            let _ = self.reports.send(Report::Idle { instance: self.id.clone() });
        }
    }
}

/// One request or connection under way at an instance.
#[derive(Debug)]
pub(crate) struct InFlight(pub(crate) Rc<Backend>);

impl InFlight {
    pub(crate) fn at(backend: &Rc<Backend>) -> InFlight {
        backend.in_flight.set(backend.in_flight.get() + 1);
        InFlight(backend.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get().saturating_sub(1));
        self.0.tell_if_idle();
    }
}
