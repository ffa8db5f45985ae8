//! What a revision depends on, and what is refused.

use super::*;
use crate::discovery::net::Net;
use crate::settings::{Attached, Network};

fn spec() -> ServiceSpec {
    ServiceSpec {
        bundle: "/b".into(),
        replicas: 3,
        command: None,
        env: vec![],
        memory_bytes: None,
        reserved_bytes: None,
        cpu_millis: None,
        reserved_cpu_millis: 0,
        pids: None,
        needs: BTreeMap::new(),
        publish: vec![Publish {
            host: ([0, 0, 0, 0], 8080).into(),
            among: None,
            ipv6_too: false,
            port: 3000,
            protocol: Protocol::Auto,
        }],
        expose: vec![],
        expose_udp: vec![],
        balance: Balance::default(),
        health: None,
        stop_signal: "TERM".into(),
        stop_grace_ms: 10_000,
        drain_ms: 10_000,
        restart: RestartPolicy::default(),
        order: Order::StartFirst,
        moves: Order::StartFirst,
        parallelism: 1,
        settings: Settings::default(),
        roles: Roles::default(),
        labels: BTreeMap::new(),
        follows: BTreeMap::new(),
        attach: true,
    }
}

#[test]
fn the_health_check_fills_the_roles_without_one() {
    let check = |port| Health { probe: Probe::Tcp { port }, ..spec().health().unwrap() };
    let mut spec = ServiceSpec { health: Some(check(1)), ..spec() };
    spec.roles.ready = Some(check(2));
    let port = |role| spec.check(role).map(|health| health.probe);
    assert_eq!(port(Role::Startup), Some(Probe::Tcp { port: 1 }));
    assert_eq!(port(Role::Ready), Some(Probe::Tcp { port: 2 }));
    assert_eq!(port(Role::Live), Some(Probe::Tcp { port: 1 }));
    spec.publish.clear();
    spec.health = None;
    assert_eq!(spec.check(Role::Live), None);
    assert_eq!(spec.to_core().probes.startup.map(|s| s.timeout), Some(Span::from_secs(1)));
}

#[test]
fn the_revision_follows_the_content_and_not_the_replicas() {
    let one = spec();
    let more = ServiceSpec { replicas: 9, ..spec() };
    let balance = Balance { retries: 9, ..Balance::default() };
    let balanced = ServiceSpec { balance, ..spec() };
    assert_eq!(one.revision(), balanced.revision());
    let other = ServiceSpec { env: vec!["A=1".into()], ..spec() };
    let mut moved = spec();
    moved.publish[0].host.set_port(8081);
    moved.publish.push(Publish { host: ([0, 0, 0, 0], 8082).into(), ..spec().publish[0].clone() });
    assert_eq!(one.revision(), moved.revision(), "containers do not see the host's ports");
    let other_port = Publish { port: 3001, ..spec().publish[0].clone() };
    let probed = ServiceSpec { publish: vec![other_port], ..spec() };
    assert_ne!(one.revision(), probed.revision(), "the port that is probed is another");
    assert_eq!(one.revision(), more.revision());
    assert_ne!(one.revision(), other.revision());
    assert_eq!(one.revision().as_str().len(), 12);
}

#[test]
fn a_host_port_has_one_owner() {
    let two = [("a".to_string(), spec()), ("b".to_string(), spec())];
    let stack = Stack { services: BTreeMap::from(two), ..Stack::default() };
    let error = stack.check_ports().unwrap_err().to_string();
    assert_eq!(error, "0.0.0.0:8080 is published by a and by b");
    let ipv6 = Publish { host: "[::]:8080".parse().unwrap(), ..spec().publish[0].clone() };
    let both = Publish { ipv6_too: true, ..spec().publish[0].clone() };
    let checked = |a: &[&Publish], b: &Publish| {
        let with = |list: &[&Publish]| {
            let publish = list.iter().copied().cloned().collect();
            ServiceSpec { publish, ..spec() }
        };
        let services = [("a".to_string(), with(a)), ("b".to_string(), with(&[b]))];
        let stack = Stack { services: services.into(), ..Stack::default() };
        stack.check_ports().map_err(|error| error.to_string())
    };
    let taken = Err("[::]:8080 is published by a and by b".to_string());
    assert_eq!(checked(&[&both], &ipv6), taken);
    let other = Publish { host: ([127, 0, 0, 1], 1).into(), ..both.clone() };
    let other = Publish { ipv6_too: false, ..other };
    assert_eq!(checked(&[&both, &ipv6], &other), Ok(()), "what is said twice is one");
}

#[test]
fn a_service_is_not_called_as_a_replica() {
    let checked = |name: &str| {
        let services = [(name.to_string(), ServiceSpec { publish: vec![], ..spec() })].into();
        Stack { services, ..Stack::default() }.check().map_err(|error| error.to_string())
    };
    for good in ["web", "web.api", "web-1", "1", "a.1b"] {
        checked(good).unwrap();
    }
    assert!(checked("web.1").unwrap_err().contains("write web-1 instead"));
}

#[test]
fn what_has_no_room_is_refused() {
    let of = |replicas, settings| {
        let many = |name: &str| {
            let service = ServiceSpec { replicas, publish: vec![], ..spec() };
            (name.to_string(), ServiceSpec { settings: Settings::clone(&settings), ..service })
        };
        let services = BTreeMap::from([many("a"), many("b")]);
        let checked = Stack { services, ..Stack::default() }.check();
        checked.map_err(|error| error.to_string()).err().unwrap_or_default()
    };
    assert_eq!(of(500, Settings::default()), "");
    assert!(of(501, Settings::default()).contains("room for 1000 replicas, not for 1002"));
    let alone = || Settings { network: Network::None, ..Settings::default() };
    assert_eq!(of(1000, alone()), "");
    assert!(of(1001, alone()).contains("2002 replicas are more"));
    assert!(of(u32::MAX, alone()).contains("more than one project may have"));
    let net = Net::of("small", "10.6.0.0/28".parse().unwrap());
    let small = || Settings {
        networks: vec![Attached { net: net.clone(), ..Attached::default() }],
        ..Settings::default()
    };
    assert_eq!(of(net.room() / 2, small()), "");
    assert!(of(net.room(), small()).contains("the network small has room for"));
}

#[test]
fn a_network_is_part_of_the_revision_and_its_names_are_not() {
    let with = |networks| {
        let settings = Settings { networks, ..Settings::default() };
        ServiceSpec { settings, ..spec() }.revision()
    };
    let plain = Attached::default();
    let named = Attached { aliases: ["shop".to_string()].into(), ..plain.clone() };
    assert_eq!(with(vec![]), spec().revision());
    assert_eq!(with(vec![named.clone()]), with(vec![]));
    let inner = Net { internal: true, ..Net::default() };
    let inner = Attached { net: inner, leads_out: false, ..plain.clone() };
    assert_ne!(with(vec![inner.clone()]), with(vec![plain.clone()]));
    assert_ne!(with(vec![inner.clone(), plain.clone()]), with(vec![plain, inner]));
    let fixed = Attached { address: Some([10, 77, 99, 9].into()), ..named };
    assert_ne!(with(vec![fixed.clone()]), with(vec![]));
    let settings = Settings { networks: vec![fixed], ..Settings::default() };
    let three = ServiceSpec { settings, ..spec() };
    let stack = Stack { services: [("a".to_string(), three)].into(), ..Stack::default() };
    let error = stack.check().unwrap_err().to_string();
    assert!(error.starts_with("3 replicas of a cannot have one address (10.77.99.9"), "{error}");
}

#[test]
fn two_free_ports_are_two_ports() {
    let open = Publish {
        host: ([0, 0, 0, 0], 0).into(),
        among: Some((0, 0)),
        ..spec().publish[0].clone()
    };
    let both = ServiceSpec { publish: vec![open.clone(), open], ..spec() };
    let stack = Stack { services: BTreeMap::from([("a".into(), both)]), ..Stack::default() };
    assert!(stack.check_ports().is_ok());
}

#[test]
fn what_is_published_is_probed_even_without_a_health_check() {
    assert_eq!(spec().health().map(|h| h.probe), Some(Probe::Tcp { port: 3000 }));
    let quiet = ServiceSpec { publish: vec![], ..spec() };
    assert_eq!(quiet.to_core().probes, Probes::default());
}
