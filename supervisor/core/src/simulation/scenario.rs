//! What a seed stands for: a project on a host, and how bad a day it is.

use std::collections::{BTreeMap, BTreeSet};

use super::random::Random;
use crate::name::{Revision, ServiceName};
use crate::restart::{RestartOn, RestartPolicy};
use crate::spec::{
    Condition, Host, Need, Order, Probes, Project, Reserve, Service, Startup, StopPolicy, Timing,
};
use crate::time::Span;

const NAMES: [&str; 5] = ["cache", "db", "migrate", "web", "worker"];

/// How often things go wrong, each in thousandths per second of simulated time, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    /// How long faults go on.
    pub(super) storm: Span,
    pub(super) crash: u64,
    pub(super) freeze: u64,
    pub(super) sicken: u64,
    pub(super) command: u64,
    pub(super) brain: u64,
    pub(super) balancer: u64,
    pub(super) reboot: u64,
    /// Percent of launches and deletions that fail.
    pub(super) runtime: u64,
}

/// Draws the weather.
pub(super) fn weather(random: &mut Random) -> Weather {
    let mut rate = |most: u64| if random.percent(50) { 0 } else { random.below(most) };
    Weather {
        crash: rate(500),
        freeze: rate(150),
        sicken: rate(150),
        command: rate(200),
        brain: rate(200),
        balancer: rate(100),
        reboot: rate(15),
        runtime: rate(30),
        storm: Span::from_secs(30 + rate(60)),
    }
}

/// Draws a project. Services need only services whose names come earlier, so there is no circle.
pub(super) fn project(random: &mut Random) -> Project {
    let mut services = BTreeMap::new();
    for (place, name) in NAMES.iter().enumerate() {
        if random.percent(40) && place > 0 {
            continue;
        }
        let mut needs = if random.percent(50) { needs(random, &services) } else { BTreeMap::new() };
        let joins = if random.percent(30) { joins(random, &services) } else { BTreeSet::new() };
        for joined in &joins {
            let need = Need { condition: Condition::Started, required: true };
            needs.entry(joined.clone()).or_insert(need).required = true;
        }
        let job = *name == "migrate";
        let service = Service { joins, ..service(random, job, needs) };
        services.insert(ServiceName::from(*name), service);
    }
    Project { services }
}

/// Draws whose namespaces a service joins: mostly those of one, never those of a job.
fn joins(random: &mut Random, earlier: &BTreeMap<ServiceName, Service>) -> BTreeSet<ServiceName> {
    let stays = earlier.iter().filter(|(_, service)| service.restart.on == RestartOn::Any);
    let stays: Vec<ServiceName> = stays.map(|(name, _)| name.clone()).collect();
    let count = if random.percent(20) { 2 } else { 1 };
    (0..count).filter_map(|_| random.pick(&stays).cloned()).collect()
}

fn needs(
    random: &mut Random,
    earlier: &BTreeMap<ServiceName, Service>,
) -> BTreeMap<ServiceName, Need> {
    let mut needs = BTreeMap::new();
    for (name, service) in earlier {
        if random.percent(60) {
            continue;
        }
        let condition = match service.restart.on {
            RestartOn::Any if random.percent(50) => Condition::Started,
            RestartOn::Any => Condition::Healthy,
            RestartOn::Failure | RestartOn::Never => Condition::Completed,
        };
        needs.insert(name.clone(), Need { condition, required: random.percent(70) });
    }
    needs
}

fn service(random: &mut Random, job: bool, needs: BTreeMap<ServiceName, Need>) -> Service {
    let retries = 1 + u32::try_from(random.below(3)).unwrap_or(0);
    let timing = Timing {
        interval: random.span(500, 5000),
        timeout: random.span(200, 2000),
        retries,
        rise: 1 + u32::try_from(random.below(2)).unwrap_or(0),
        confirm_interval: Span::from_ms(200),
        confirm_timeout: Span::from_ms(500),
    };
    let startup = Startup {
        first_interval: Span::from_ms(250),
        interval: Span::from_secs(2),
        timeout: Span::from_ms(500),
        within: random.span(8_000, 15_000),
    };
    let ready = random.percent(30).then_some(timing);
    let probes = Probes { startup: Some(startup), ready, live: Some(timing) };
    let order = if random.percent(70) { Order::StartFirst } else { Order::StopFirst };
    Service {
        revision: Revision::from("r0"),
        replicas: if job { 1 } else { 1 + u32::try_from(random.below(4)).unwrap_or(0) },
        parallelism: 1 + u32::try_from(random.below(2)).unwrap_or(0),
        order,
        moves: if random.percent(50) { order } else { Order::StartFirst },
        restart: restart(random, job),
        probes: if job { Probes::default() } else { probes },
        stop: StopPolicy {
            pre_stop: random.percent(30),
            drain: random.span(0, 5000),
            grace: random.span(100, 5000),
        },
        needs,
        joins: BTreeSet::new(),
        reserve: Reserve { memory_bytes: random.below(4) * 100, cpu_millis: 0 },
        routed: random.percent(80),
    }
}

fn restart(random: &mut Random, job: bool) -> RestartPolicy {
    RestartPolicy {
        on: if job { RestartOn::Failure } else { RestartOn::Any },
        delay: if random.percent(20) { random.span(0, 2000) } else { Span::ZERO },
        max_attempts: random.percent(20).then(|| 3 + u32::try_from(random.below(5)).unwrap_or(0)),
        window: None,
    }
}

/// A host on which the project fits, sometimes with room to spare.
pub(super) fn host(random: &mut Random, project: &Project) -> Host {
    let needed = project
        .services
        .values()
        .fold(0, |sum, service| sum + service.reserve.memory_bytes * u64::from(service.replicas));
    let spare = if random.percent(50) { random.below(1200) } else { 0 };
    Host { memory_bytes: needed + spare, cpu_millis: 1000 }
}
