//! Requests as the data plane counts them: the rules it follows, and what came of them.
//!
//! Counts are asked for when somebody wants to know them, never on a schedule: a supervisor that
//! nobody looks at does nothing. They begin with each data plane; who wants rates or intervals
//! subtracts two answers, bucket by bucket.

use std::collections::BTreeMap;

use hyper::StatusCode;
use minisup_core::name::InstanceId;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::api::{self, Reply};
use super::engine::Brain;
use crate::plane::histogram;
use crate::plane::protocol::{Order, Traffic};

/// What has been asked and not been answered yet.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    waiting: Vec<(Asked, oneshot::Sender<Reply>)>,
    so_far: BTreeMap<InstanceId, Traffic>,
}

/// What somebody who waits for counts wants to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    /// The counts.
    Counts,
    /// All metrics, with the counts where they are known.
    Metrics,
}

/// The answer to `GET /v1/traffic`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TrafficView {
    /// By instance (`web.1.3`).
    pub(crate) instances: BTreeMap<String, Traffic>,
    /// By service: sums, and times to the first byte.
    pub(crate) services: BTreeMap<String, ServiceView>,
}

/// What a service has done.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceView {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) lost: u64,
    pub(crate) in_flight: u32,
    /// Half of the answers began within this time, in microseconds.
    pub(crate) p50_us: Option<u64>,
    pub(crate) p95_us: Option<u64>,
    pub(crate) p99_us: Option<u64>,
}

fn nobody() -> Reply {
    let error = "there is no data plane at the moment; ask again".to_string();
    Reply::error(StatusCode::SERVICE_UNAVAILABLE, error)
}

impl Brain {
    /// The data plane is gone: nobody will answer.
    pub(crate) fn uncounted(&mut self) {
        self.traffic.so_far.clear();
        for (asked, reply) in std::mem::take(&mut self.traffic.waiting) {
            let answer = match asked {
                Asked::Counts => nobody(),
                Asked::Metrics => api::metrics(self, None),
            };
            let _ = reply.send(answer);
        }
    }

    /// Asks the data plane what it has counted; the answer follows with its last report.
    pub(crate) fn count(&mut self, asked: Asked, reply: oneshot::Sender<Reply>) {
        self.traffic.waiting.push((asked, reply));
        if !self.link.is_connected() {
            return self.uncounted();
        }
        if self.traffic.waiting.len() == 1 {
            self.link.tell(&Order::Count { after: None }, None);
        }
    }

    /// A part of the answer.
    pub(crate) fn counted(&mut self, instances: Vec<(InstanceId, Traffic)>, more: bool) {
        let after = instances.last().map(|(id, _)| id.clone());
        self.traffic.so_far.extend(instances);
        if more {
            return self.link.tell(&Order::Count { after }, None);
        }
        let view = view(&std::mem::take(&mut self.traffic.so_far));
        for (asked, reply) in std::mem::take(&mut self.traffic.waiting) {
            let answer = match asked {
                Asked::Counts => Reply::json(&view),
                Asked::Metrics => api::metrics(self, Some(&view)),
            };
            let _ = reply.send(answer);
        }
    }

    /// Tells the data plane the rules of every service, where they have changed.
    pub(crate) fn offer_rules(&mut self) {
        for (service, spec) in &self.stack.services {
            if self.link.rules.get(service) != Some(&spec.balance) {
                let rules = Box::new(spec.balance.clone());
                self.link.tell(&Order::Rules { service: service.clone(), rules }, None);
                self.link.rules.insert(service.clone(), spec.balance.clone());
            }
        }
    }
}

fn view(counted: &BTreeMap<InstanceId, Traffic>) -> TrafficView {
    let mut services: BTreeMap<String, (ServiceView, Vec<(u16, u64)>)> = BTreeMap::new();
    for (id, traffic) in counted {
        let (view, latency) = services.entry(id.slot.service.as_str().to_string()).or_default();
        view.requests += traffic.requests;
        view.errors += traffic.errors;
        view.lost += traffic.lost;
        view.in_flight += traffic.in_flight;
        histogram::add(latency, &traffic.latency_us);
    }
    let services = services.into_iter().map(|(name, (mut view, latency))| {
        view.p50_us = histogram::quantile(&latency, 500);
        view.p95_us = histogram::quantile(&latency, 950);
        view.p99_us = histogram::quantile(&latency, 990);
        (name, view)
    });
    let services = services.collect();
    let instances = counted.iter().map(|(id, t)| (id.to_string(), t.clone())).collect();
    TrafficView { instances, services }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minisup_core::name::ServiceName;

    #[test]
    fn a_service_is_the_sum_of_its_instances() {
        let traffic = |requests, latency_us| Traffic { requests, latency_us, ..Traffic::default() };
        let slot = |number| ServiceName::from("web").slot(number).instance(1);
        let counted = BTreeMap::from([
            (slot(1), traffic(99, vec![(3, 99)])),
            (slot(2), traffic(1, vec![(100, 1)])),
        ]);
        let view = view(&counted);
        let web = &view.services["web"];
        assert_eq!((web.requests, web.p50_us, web.p99_us), (100, Some(4), Some(4)));
        assert_eq!(view.instances["web.2.1"].requests, 1);
    }
}
