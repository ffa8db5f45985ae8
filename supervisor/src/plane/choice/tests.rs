use std::collections::BTreeMap;
use std::time::Duration;

use minisup_core::name::ServiceName;
use minisup_core::state::Routes;
use tokio::sync::mpsc;

use super::*;
use crate::plane::backend::InFlight;
use crate::plane::table::{Service, Table};

/// A service with `count` active instances.
fn service(count: u32, rules: Balance) -> (Table, Rc<Service>, Vec<Rc<Backend>>) {
    let (reports, outbox) = mpsc::unbounded_channel();
    std::mem::forget(outbox);
    let table = Table::new(reports, std::env::temp_dir());
    table.rule("web", rules);
    let name = ServiceName::from("web");
    let ids: Vec<InstanceId> = (1..=count).map(|n| name.slot(n).instance(1)).collect();
    for id in &ids {
        let file = std::fs::File::open("/dev/null").unwrap();
        table.add_endpoint(id.clone(), file.into(), Default::default());
    }
    let active: BTreeMap<InstanceId, Route> =
        ids.iter().map(|id| (id.clone(), Route::Active)).collect();
    let services = BTreeMap::from([(name, active)]);
    table.follow(&Routes { generation: 1, services });
    let backends = ids.iter().map(|id| table.backend(id).unwrap()).collect();
    let service = table.service("web");
    (table, service, backends)
}

/// How often each instance is chosen of `times`, by the number of its slot.
fn spread(service: &Service, times: u32, now: Instant) -> BTreeMap<u32, u32> {
    let mut counts = BTreeMap::new();
    for _ in 0..times {
        let chosen = service.pick(&[], now).expect("somebody");
        *counts.entry(chosen.id.slot.index).or_default() += 1;
    }
    counts
}

fn by(algorithm: Algorithm) -> Balance {
    Balance { algorithm, ..Balance::default() }
}

#[test]
fn round_robin_is_even() {
    let (_table, service, _) = service(3, by(Algorithm::RoundRobin));
    assert_eq!(
        spread(&service, 300, Instant::now()),
        BTreeMap::from([(1, 100), (2, 100), (3, 100)])
    );
}

#[test]
fn least_connections_follows_what_is_in_flight() {
    let (_table, service, backends) = service(3, by(Algorithm::LeastConnections));
    let now = Instant::now();
    let _busy: Vec<InFlight> = [0, 0, 1].map(|n: usize| InFlight::at(&backends[n])).into();
    assert_eq!(spread(&service, 50, now), BTreeMap::from([(3, 50)]));
    let _third = InFlight::at(&backends[2]);
    let counts = spread(&service, 200, now);
    assert!(counts[&2] > 50 && counts[&3] > 50 && !counts.contains_key(&1), "{counts:?}");
}

#[test]
fn fast_instances_share_even_if_one_is_a_little_faster() {
    let (_table, service, backends) = service(2, Balance::default());
    let now = Instant::now();
    backends[0].answered(200, Duration::from_micros(100), now);
    backends[1].answered(200, Duration::from_micros(700), now);
    let counts = spread(&service, 200, now);
    assert!(counts[&1] > 50 && counts[&2] > 50, "{counts:?}");
}

#[test]
fn a_slow_instance_loses_traffic_with_its_first_answer_and_is_forgiven() {
    let (_table, service, backends) = service(2, Balance::default());
    let now = Instant::now();
    backends[0].answered(200, Duration::from_millis(800), now);
    backends[1].answered(200, Duration::from_millis(1), now);
    assert_eq!(spread(&service, 100, now), BTreeMap::from([(2, 100)]));
    let later = now + Duration::from_secs(100);
    backends[1].answered(200, Duration::from_millis(1), later);
    let counts = spread(&service, 100, later);
    assert!(counts[&1] > 0, "it gets another chance: {counts:?}");
}

#[test]
fn bad_answers_in_a_row_put_an_instance_out_each_time_longer() {
    let (_table, service, backends) = service(2, Balance::default());
    let now = Instant::now();
    let fail =
        |times: u32, now| (0..times).for_each(|_| backends[0].answered(500, Duration::ZERO, now));
    fail(4, now);
    backends[0].answered(200, Duration::ZERO, now);
    fail(4, now);
    assert!(!backends[0].is_ejected(now), "never five in a row");
    fail(1, now);
    assert!(backends[0].is_ejected(now + Duration::from_millis(4999)));
    assert_eq!(spread(&service, 50, now), BTreeMap::from([(2, 50)]));
    let back = now + Duration::from_millis(5001);
    assert!(!backends[0].is_ejected(back));
    fail(5, back);
    assert!(backends[0].is_ejected(back + Duration::from_millis(9999)), "twice as long");
}

#[test]
fn never_more_than_the_share_is_put_out_and_too_few_good_ones_mean_panic() {
    let rules = Balance { panic_permille: 600, ..by(Algorithm::RoundRobin) };
    let (_table, service, backends) = service(4, rules);
    let now = Instant::now();
    for backend in &backends {
        (0..5).for_each(|_| backend.answered(503, Duration::ZERO, now));
    }
    let out = backends.iter().filter(|backend| backend.is_ejected(now)).count();
    assert_eq!(out, 2, "half of four");
    assert_eq!(spread(&service, 400, now).len(), 4, "two good ones of four are below 60 %");
}

#[test]
fn a_new_instance_warms_up() {
    let rules = Balance { slow_start_ms: 10_000, ..by(Algorithm::RoundRobin) };
    let (_table, service, backends) = service(1, rules);
    let now = Instant::now();
    assert!(backends[0].warmth(10_000, now) < 0.2);
    let half = backends[0].warmth(10_000, now + Duration::from_secs(5));
    assert!((0.45..0.55).contains(&half), "{half}");
    assert!(backends[0].warmth(0, now) >= 1.0, "it is off");
    assert_eq!(spread(&service, 10, now).len(), 1, "the only one gets everything");
}

#[test]
fn a_full_instance_gets_nothing_more() {
    let rules = Balance { max_inflight: Some(1), ..Balance::default() };
    let (_table, service, backends) = service(2, rules);
    let now = Instant::now();
    let first = InFlight::at(&backends[0]);
    assert_eq!(spread(&service, 20, now), BTreeMap::from([(2, 20)]));
    let _second = InFlight::at(&backends[1]);
    assert!(service.pick(&[], now).is_none());
    drop(first);
    assert_eq!(service.pick(&[], now).map(|b| b.id.slot.index), Some(1));
}

#[test]
fn suspects_come_last() {
    let (table, service, backends) = service(2, Balance::default());
    let now = Instant::now();
    let mut routes: BTreeMap<InstanceId, Route> = BTreeMap::new();
    routes.insert(backends[0].id.clone(), Route::Suspect);
    routes.insert(backends[1].id.clone(), Route::Active);
    let services = BTreeMap::from([(ServiceName::from("web"), routes)]);
    table.follow(&Routes { generation: 2, services });
    assert_eq!(spread(&service, 20, now), BTreeMap::from([(2, 20)]));
    let tried = [backends[1].id.clone()];
    assert_eq!(service.pick(&tried, now).map(|b| b.id.slot.index), Some(1));
}
