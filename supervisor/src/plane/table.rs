//! Which services there are, by what rules, and with which instances.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use minisup_core::input::Followed;
use minisup_core::instance::Route;
use minisup_core::name::InstanceId;
use minisup_core::state::Routes;
use tokio::sync::{Notify, mpsc};
use tokio_rustls::rustls::ServerConfig;

use super::access_log::AccessLog;
use super::backend::Backend;
use super::budget::Budget;
use super::choice::{self, Dice};
use super::protocol::{Report, Traffic};
use super::tls;
use crate::balance::Balance;
use crate::discovery::doors::Replicas;
use crate::discovery::listening;

/// Instances in one report, so that it fits a message.
const REPORTED: usize = 32;

/// One service.
#[derive(Debug)]
pub(crate) struct Service {
    backends: RefCell<Vec<Rc<Backend>>>,
    rules: RefCell<Rc<Balance>>,
    log: RefCell<Option<Rc<AccessLog>>>,
    tls: RefCell<Option<Arc<ServerConfig>>>,
    dice: Dice,
    pub(crate) budget: Budget,
    /// Wakes whoever waits for an instance, or for the end of one.
    pub(crate) changed: Notify,
    /// How many wait for an instance.
    pub(crate) waiting: Cell<u32>,
}

impl Service {
    fn new(name: &str) -> Service {
        let seed = name.bytes().fold(u64::from(std::process::id()), |seed, byte| {
            (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Service {
            backends: RefCell::default(),
            rules: RefCell::default(),
            log: RefCell::default(),
            tls: RefCell::default(),
            dice: Dice::new(seed),
            budget: Budget::new(Instant::now()),
            changed: Notify::new(),
            waiting: Cell::new(0),
        }
    }

    /// The rules in force.
    pub(crate) fn rules(&self) -> Rc<Balance> {
        self.rules.borrow().clone()
    }

    /// What speaks TLS with its clients, if they have to.
    pub(crate) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.borrow().clone()
    }

    /// Where its requests are written down, if they are.
    pub(crate) fn log(&self) -> Option<Rc<AccessLog>> {
        self.log.borrow().clone()
    }

    /// The instance that should get the next request, none of `tried`.
    pub(crate) fn pick(&self, tried: &[InstanceId], now: Instant) -> Option<Rc<Backend>> {
        choice::pick(&self.backends.borrow(), &self.rules.borrow(), &self.dice, tried, now)
    }

    /// The requests in flight at all of its instances.
    pub(crate) fn in_flight(&self) -> u32 {
        self.backends.borrow().iter().map(|backend| backend.in_flight()).sum()
    }

    /// The slots of the instances that get requests, and where they are in a network; all of them
    /// if none is fit for requests.
    fn ready(&self, network: &str) -> Vec<(u32, Ipv4Addr)> {
        let backends = self.backends.borrow();
        let of = |wanted: &dyn Fn(Route) -> bool| -> Vec<(u32, Ipv4Addr)> {
            let routed = backends.iter().filter(|backend| wanted(backend.route.get()));
            let at = |backend: &Rc<Backend>| backend.addresses.get(network).copied();
            routed.filter_map(|backend| Some((backend.id.slot.index, at(backend)?))).collect()
        };
        let active = of(&|route| route == Route::Active);
        if active.is_empty() { of(&|_| true) } else { active }
    }

    /// Whether one more instance may be put out.
    pub(crate) fn may_eject(&self, now: Instant) -> bool {
        let backends = self.backends.borrow();
        let ejected = backends.iter().filter(|backend| backend.is_ejected(now)).count() as u64;
        let active = backends.iter().filter(|b| b.route.get() == Route::Active).count() as u64;
        let most = active * u64::from(self.rules.borrow().outlier_max_permille) / 1000;
        ejected < most
    }

    /// A request has left an instance: one that waits for room may go.
    pub(crate) fn left(&self) {
        if self.waiting.get() > 0 {
            self.changed.notify_one();
        }
    }
}

impl Replicas for Table {
    fn ready(&self, service: &str, network: &str) -> Vec<(u32, Ipv4Addr)> {
        let service = self.services.borrow().get(service).cloned();
        service.map_or_else(Vec::new, |service| service.ready(network))
    }

    fn listening(&self, service: &str) -> BTreeSet<u16> {
        let service = self.services.borrow().get(service).cloned();
        let backends = service.iter().flat_map(|service| service.backends.borrow().clone());
        let one = backends.min_by_key(|backend| backend.route.get() != Route::Active);
        let ports = one.and_then(|backend| listening::ports(backend.namespace.as_fd()).ok());
        ports.unwrap_or_default()
    }
}

/// Everything.
#[derive(Debug)]
pub(crate) struct Table {
    services: RefCell<BTreeMap<String, Rc<Service>>>,
    known: RefCell<BTreeMap<InstanceId, Rc<Backend>>>,
    generation: Cell<u64>,
    /// The directory of access logs.
    logs: PathBuf,
    reports: mpsc::UnboundedSender<Report>,
}

impl Table {
    pub(crate) fn new(reports: mpsc::UnboundedSender<Report>, logs: PathBuf) -> Table {
        Table {
            services: RefCell::default(),
            known: RefCell::default(),
            generation: Cell::new(0),
            logs,
            reports,
        }
    }

    /// The service of that name, which may still be without instances.
    pub(crate) fn service(&self, name: &str) -> Rc<Service> {
        let mut services = self.services.borrow_mut();
        if let Some(service) = services.get(name) {
            return service.clone();
        }
        let service = Rc::new(Service::new(name));
        services.insert(name.to_string(), service.clone());
        service
    }

    /// Other rules for a service.
    pub(crate) fn rule(&self, name: &str, rules: Balance) {
        let service = self.service(name);
        let mut log = service.log.borrow_mut();
        if !rules.access_log {
            *log = None;
        } else if log.is_none() {
            *log = Some(AccessLog::open(self.logs.join(format!("{name}.access.log"))));
        }
        // Without a usable certificate nobody is served: plain text would be worse.
        let made = rules.tls.as_ref().map(tls::configure).transpose();
        service.tls.replace(made.unwrap_or_else(|error| {
            eprintln!("minisup plane: {name}: no TLS: {error:#}");
            None
        }));
        service.rules.replace(Rc::new(rules));
    }

    /// An instance can be reached from now on.
    pub(crate) fn add_endpoint(
        &self,
        id: InstanceId,
        namespace: OwnedFd,
        addresses: BTreeMap<String, Ipv4Addr>,
    ) {
        let service = self.service(id.slot.service.as_str());
        let backend = Backend::new(id.clone(), namespace, addresses, service, self.reports.clone());
        self.known.borrow_mut().insert(id, Rc::new(backend));
    }

    /// Follows new routes and says so. Older ones than those in force are ignored.
    pub(crate) fn follow(&self, routes: &Routes) {
        if routes.generation < self.generation.get() {
            return;
        }
        self.generation.set(routes.generation);
        let now = Instant::now();
        let all: BTreeMap<&InstanceId, Route> =
            routes.services.values().flatten().map(|(id, route)| (id, *route)).collect();
        self.known.borrow_mut().retain(|id, backend| {
            backend.follow(all.get(id).copied().unwrap_or(Route::Absent), now);
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
        }
        self.wake_all();
        let generation = routes.generation;
        let _ = self.reports.send(Report::Acknowledged { generation });
        for backend in self.known.borrow().values() {
            backend.tell_if_idle();
        }
    }

    /// Has everybody who waits for something look again.
    pub(crate) fn wake_all(&self) {
        self.services.borrow().values().for_each(|service| service.changed.notify_waiters());
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

    /// An instance that can be reached.
    #[cfg(test)]
    pub(crate) fn backend(&self, id: &InstanceId) -> Option<Rc<Backend>> {
        self.known.borrow().get(id).cloned()
    }

    /// Tells what has been counted, from behind `after` on.
    pub(crate) fn tell_traffic(&self, after: Option<&InstanceId>) {
        let known = self.known.borrow();
        let now = Instant::now();
        let mut rest = known.iter().filter(|(id, _)| after.is_none_or(|after| *id > after));
        let instances: Vec<(InstanceId, Traffic)> = rest
            .by_ref()
            .take(REPORTED)
            .map(|(id, backend)| (id.clone(), backend.traffic(now)))
            .collect();
        let _ = self.reports.send(Report::Traffic { more: rest.next().is_some(), instances });
    }
}
