//! One instance, as the data plane sees it: where it is, how it does, what it has in hand.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use minisup_core::input::Evidence;
use minisup_core::instance::Route;
use minisup_core::name::InstanceId;
use tokio::sync::mpsc;

use super::histogram::Histogram;
use super::protocol::{Report, Traffic};
use super::table::Service;
use super::{http, http2};

/// What is assumed of an instance that has answered nothing yet, in seconds.
const FIRST_LATENCY: f64 = SHORT;
/// Below this, in seconds, differences say nothing about an instance; what is in flight does.
const SHORT: f64 = 0.001;
/// How fast a slow answer is forgotten, in seconds.
const DECAY: f64 = 10.0;
/// A pause that is too short to matter, in seconds.
const LOOK: f64 = 0.1;
/// How long an instance rests that refused a connection.
const REST: Duration = Duration::from_millis(200);
/// The least time between two doubts about the same instance.
const DOUBT_AGAIN: Duration = Duration::from_millis(500);
/// The least share of a new instance's traffic, so that it can warm up at all.
const LEAST_SHARE: f64 = 0.1;
/// How often the time of an ejection is multiplied at most.
const LONGEST: u32 = 10;

/// An instance.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) id: InstanceId,
    pub(crate) namespace: OwnedFd,
    /// Where other containers reach it, by the keys of networks.
    pub(crate) addresses: BTreeMap<String, Ipv4Addr>,
    pub(crate) route: Cell<Route>,
    /// Idle HTTP/1.1 connections to it.
    pub(crate) pool: http::Pool,
    /// Connections for requests that came by HTTP/2.
    pub(crate) pool2: http2::Pool,
    service: Rc<Service>,
    in_flight: Cell<u32>,
    latency: Cell<f64>,
    measured: Cell<Instant>,
    rests_until: Cell<Option<Instant>>,
    doubted: Cell<Option<Instant>>,
    /// When it was given traffic for the first time.
    active_since: Cell<Option<Instant>>,
    /// Bad answers in a row.
    bad: Cell<u32>,
    ejected_until: Cell<Option<Instant>>,
    ejections: Cell<u32>,
    counts: RefCell<Counts>,
    reports: mpsc::UnboundedSender<Report>,
}

/// What has been counted since the beginning.
#[derive(Debug, Default)]
struct Counts {
    latency: Histogram,
    requests: u64,
    errors: u64,
    lost: u64,
    ejections: u64,
    datagrams_in: u64,
    datagrams_out: u64,
}

impl Backend {
    pub(crate) fn new(
        id: InstanceId,
        namespace: OwnedFd,
        addresses: BTreeMap<String, Ipv4Addr>,
        service: Rc<Service>,
        reports: mpsc::UnboundedSender<Report>,
    ) -> Backend {
        Backend {
            id,
            namespace,
            addresses,
            route: Cell::new(Route::Absent),
            pool: http::Pool::default(),
            pool2: http2::Pool::default(),
            service,
            in_flight: Cell::new(0),
            latency: Cell::new(FIRST_LATENCY),
            measured: Cell::new(Instant::now()),
            rests_until: Cell::new(None),
            doubted: Cell::new(None),
            active_since: Cell::new(None),
            bad: Cell::new(0),
            ejected_until: Cell::new(None),
            ejections: Cell::new(0),
            counts: RefCell::default(),
            reports,
        }
    }

    /// Follows a route.
    pub(crate) fn follow(&self, route: Route, now: Instant) {
        self.route.set(route);
        if route == Route::Active {
            self.active_since.set(self.active_since.get().or(Some(now)));
        } else {
            self.pool.clear();
            self.pool2.clear();
        }
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// Whether it has all the requests that it may have at a time.
    pub(crate) fn is_full(&self, most: Option<u32>) -> bool {
        most.is_some_and(|most| self.in_flight.get() >= most)
    }

    /// Whether it refused a connection a moment ago.
    pub(crate) fn rests(&self, now: Instant) -> bool {
        self.rests_until.get().is_some_and(|until| now < until)
    }

    /// Whether it has been put out for its bad answers.
    pub(crate) fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.get().is_some_and(|until| now < until)
    }

    /// The share of traffic it is worth while it warms up, from a tenth to one.
    pub(crate) fn warmth(&self, slow_start_ms: u64, now: Instant) -> f64 {
        let (Some(since), 1..) = (self.active_since.get(), slow_start_ms) else { return 1.0 };
        let age = now.saturating_duration_since(since).as_secs_f64();
        let warm = Duration::from_millis(slow_start_ms).as_secs_f64();
        (age / warm).clamp(LEAST_SHARE, 1.0)
    }

    /// What one more request would cost by peak latency and requests in flight. Who gets nothing
    /// because it was slow is forgiven with time, else it would never get anything again.
    pub(crate) fn cost(&self, now: Instant) -> f64 {
        let pause = now.saturating_duration_since(self.measured.get()).as_secs_f64();
        let forgiven = if pause < LOOK { 1.0 } else { (-pause / DECAY).exp() };
        (self.latency.get() * forgiven).max(SHORT) * f64::from(self.in_flight.get() + 1)
    }

    /// Notes an answer: how long its head took, and its status (0 for what is not HTTP).
    pub(crate) fn answered(&self, status: u16, took: Duration, now: Instant) {
        let (old, new) = (self.latency.get(), took.as_secs_f64());
        let pause = now.saturating_duration_since(self.measured.get()).as_secs_f64();
        self.measured.set(now);
        // Rises at once, falls over ten seconds: one slow answer loses traffic.
        let average = if new > old {
            new
        } else {
            let weight = (-pause / DECAY).exp();
            old * weight + new * (1.0 - weight)
        };
        self.latency.set(average);
        let mut counts = self.counts.borrow_mut();
        counts.latency.count(took);
        counts.requests += 1;
        if status >= 500 {
            counts.errors += 1;
            drop(counts);
            self.misbehaved(Evidence::Errors, now);
        } else {
            self.bad.set(0);
        }
    }

    /// Whether anybody was answered since then.
    pub(crate) fn has_answered_since(&self, then: Instant) -> bool {
        self.measured.get() > then
    }

    /// A client of datagrams has left without an answer, which it may not have wanted.
    pub(crate) fn counted_without_answer(&self) {
        self.counts.borrow_mut().requests += 1;
    }

    /// A datagram has gone to it.
    pub(crate) fn given_datagram(&self) {
        self.counts.borrow_mut().datagrams_in += 1;
    }

    /// A datagram has come from it.
    pub(crate) fn sent_datagram(&self) {
        self.counts.borrow_mut().datagrams_out += 1;
    }

    /// An answer was lost. Applications may close idle connections when they like, so on a stale
    /// one that is no fault.
    pub(crate) fn lost(&self, stale: bool, now: Instant) {
        self.counts.borrow_mut().lost += 1;
        if !stale {
            self.misbehaved(Evidence::Refused, now);
        }
    }

    /// It refused a connection: others come first for a moment.
    pub(crate) fn refused(&self, now: Instant) {
        self.rests_until.set(Some(now + REST));
        self.doubt(Evidence::Refused);
    }

    /// A bad answer; too many in a row put it out for a while, each time longer, if enough others
    /// are left.
    fn misbehaved(&self, evidence: Evidence, now: Instant) {
        self.bad.set(self.bad.get() + 1);
        let rules = self.service.rules();
        if self.bad.get() < rules.outlier_consecutive || self.is_ejected(now) {
            return;
        }
        self.bad.set(0);
        self.doubt(evidence);
        if !self.service.may_eject(now) {
            return;
        }
        let base = Duration::from_millis(rules.outlier_base_ms);
        // Good behaviour for as long as the longest ejection wipes the slate.
        let calm = self.ejected_until.get().is_none_or(|until| now > until + base * LONGEST);
        let times = if calm { 1 } else { (self.ejections.get() + 1).min(LONGEST) };
        self.ejections.set(times);
        self.ejected_until.set(Some(now + base * times));
        self.counts.borrow_mut().ejections += 1;
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

    pub(crate) fn tell_if_idle(&self) {
        if self.route.get() == Route::Draining && self.in_flight.get() == 0 {
            let _ = self.reports.send(Report::Idle { instance: self.id.clone() });
        }
    }

    /// What has been counted.
    pub(crate) fn traffic(&self, now: Instant) -> Traffic {
        let counts = self.counts.borrow();
        Traffic {
            requests: counts.requests,
            errors: counts.errors,
            lost: counts.lost,
            ejections: counts.ejections,
            ejected: self.is_ejected(now),
            in_flight: self.in_flight.get(),
            datagrams_in: counts.datagrams_in,
            datagrams_out: counts.datagrams_out,
            latency_us: counts.latency.sparse(),
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
        self.0.service.left();
        self.0.tell_if_idle();
    }
}
