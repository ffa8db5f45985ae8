//! Containers on networks: who reaches whom, and what is left when they are gone.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::process::Command;

use network::attach::{Request, attach, detach, release_if_gone};
use network::collect::collect;
use network::netlink::Connection;
use network::{Error, networks};

use crate::testbed::{Place, Stored, connect, converse, on_a_fresh_host, outside, reaches, traces};

const WEB: &[&str] = &["10.1.0.0/24", "fd00:1::/64"];
const DATA: &[&str] = &["10.3.0.0/24", "fd00:3::/64"];

fn first(attachment: &network::attach::Attachment, ipv6: bool) -> IpAddr {
    attachment.addresses().into_iter().find(|address| address.is_ipv6() == ipv6).unwrap()
}

#[test]
fn one_network_is_one_place_and_two_are_two() {
    on_a_fresh_host(|| {
        let stored = Stored::new();
        stored.create("web", WEB, false);
        stored.create("data", DATA, false);
        let (a, b, c) = (Place::new(), Place::new(), Place::new());
        let _a = stored.attach(&a, "a", &["web"]);
        let to_b = stored.attach(&b, "b", &["web"]);
        let to_c = stored.attach(&c, "c", &["data"]);
        for ipv6 in [false, true] {
            assert!(reaches(&a, &b, first(&to_b, ipv6)), "same network, ipv6={ipv6}");
            assert!(!reaches(&a, &c, first(&to_c, ipv6)), "other network, ipv6={ipv6}");
        }
        let both = Place::new();
        stored.attach(&both, "both", &["web", "data"]);
        for ipv6 in [false, true] {
            assert!(reaches(&both, &b, first(&to_b, ipv6)));
            assert!(reaches(&both, &c, first(&to_c, ipv6)));
        }
    });
}

#[test]
fn containers_reach_the_outside_with_the_hosts_address_and_nobody_comes_in() {
    on_a_fresh_host(|| {
        let stored = Stored::new();
        let elsewhere = outside();
        stored.create("web", WEB, false);
        stored.create("inner", DATA, true);
        let (a, b) = (Place::new(), Place::new());
        let to_a = stored.attach(&a, "a", &["web"]);
        assert!(to_a.changes.iter().any(|change| change.setting.ends_with("ip_forward")));
        let to_b = stored.attach(&b, "b", &["inner"]);
        for (at, host) in [("192.0.2.2", "192.0.2.1"), ("fd00:2::2", "fd00:2::1")] {
            let at = SocketAddr::new(at.parse().unwrap(), 80);
            let seen = converse(&elsewhere, at, || a.run(|| connect(at))).expect("masquerade");
            assert_eq!(seen.ip().to_string(), host);
            assert!(converse(&elsewhere, at, || b.run(|| connect(at))).is_none(), "internal");
        }
        // Even a machine that has a route to the containers gets in to none.
        elsewhere.run(|| {
            let mut kernel = Connection::open().unwrap();
            let link = kernel.link("eth0").unwrap().index;
            let mut batch = network::netlink::Batch::new();
            batch.add_default_route("192.0.2.1".parse().unwrap(), link);
            kernel.execute(&batch).unwrap();
        });
        assert!(!reaches(&elsewhere, &a, first(&to_a, false)));
        assert!(!reaches(&elsewhere, &b, first(&to_b, false)));
    });
}

#[test]
fn the_bridges_of_a_large_network_are_one_ethernet() {
    on_a_fresh_host(|| {
        let stored = Stored::new();
        stored.create("large", &["10.1.0.0/16", "fd00:1::/64"], false);
        let far = |address: &str| Request {
            network: "large".into(),
            addresses: vec![address.parse().unwrap()],
            ..Request::default()
        };
        let (a, b, c) = (Place::new(), Place::new(), Place::new());
        let to_a = stored.attach(&a, "a", &["large"]);
        // 950 addresses to a bridge: these are on the third and on the last.
        let to_b = attach(&stored.store, b.as_fd(), "b", &[far("10.1.9.9")]).unwrap();
        let to_c = attach(&stored.store, c.as_fd(), "c", &[far("10.1.255.254")]).unwrap();
        let mut kernel = Connection::open().unwrap();
        assert!(kernel.find_link("minirun0.2").unwrap().is_some());
        assert!(kernel.find_link("minirun0.68").unwrap().is_some());
        for ipv6 in [false, true] {
            assert!(reaches(&a, &b, first(&to_b, ipv6)));
            assert!(reaches(&b, &c, first(&to_c, ipv6)));
            assert!(reaches(&c, &a, first(&to_a, ipv6)));
        }
    });
}

#[test]
fn a_container_gets_what_it_asks_for_and_nothing_is_left_of_a_refusal() {
    on_a_fresh_host(|| {
        let stored = Stored::new();
        stored.create("web", WEB, false);
        stored.create("data", DATA, true);
        let place = Place::new();
        let wanted = Request {
            network: "web".into(),
            interface: Some("net9".into()),
            addresses: vec!["10.1.0.77".parse().unwrap(), "fd00:1::abc".parse().unwrap()],
            hardware: Some("02:11:22:33:44:55".parse().unwrap()),
        };
        let made =
            attach(&stored.store, place.as_fd(), "a", std::slice::from_ref(&wanted)).unwrap();
        let mut inside = Connection::open_in(place.as_fd()).unwrap();
        let link = inside.link("net9").unwrap();
        assert_eq!(link.hardware, wanted.hardware);
        let addresses: Vec<_> = inside.addresses().unwrap();
        for address in ["10.1.0.77/24", "fd00:1::abc/64"] {
            let address = address.parse().unwrap();
            assert!(addresses.iter().any(|a| a.address == address && a.link == link.index));
        }
        // The second network refuses (interface exists), so the first must go too.
        let other = Place::new();
        let twice = [
            Request { network: "data".into(), interface: Some("x".into()), ..Request::default() },
            Request { network: "web".into(), interface: Some("x".into()), ..Request::default() },
        ];
        let error = attach(&stored.store, other.as_fd(), "b", &twice).unwrap_err();
        assert!(matches!(error, Error::Invalid { what: "interface", .. }), "{error:?}");
        assert_eq!(
            traces(&stored),
            ["10.1.0.77,fd00:1::abc", "minirun0", "minirun1", "mr0a01004d"]
        );
        detach(&stored.store, &made).unwrap();
        detach(&stored.store, &made).unwrap();
        networks::prune(&stored.store).unwrap();
        assert_eq!(traces(&stored), [""; 0]);
    });
}

#[test]
fn a_dead_container_leaves_nothing_after_the_next_command() {
    on_a_fresh_host(|| {
        let stored = Stored::new();
        stored.create("web", WEB, false);
        let place = Place::new();
        let dead = stored.attach(&place, "a", &["web"]);
        drop(place);
        wait_until_gone(&dead.host_interfaces()[0]);
        let collected = collect(&stored.store).unwrap();
        assert_eq!(collected.addresses, dead.addresses());
        assert_eq!(traces(&stored), ["minirun0"]);
        let told = Connection::open().unwrap().told_neighbours().unwrap();
        assert!(told.iter().all(|n| !dead.addresses().contains(&n.address)), "{told:?}");
        let place = Place::new();
        let dead = stored.attach(&place, "b", &["web"]);
        drop(place);
        wait_until_gone(&dead.host_interfaces()[0]);
        release_if_gone(&stored.store, &dead).unwrap();
        assert_eq!(traces(&stored), ["minirun0"]);
        networks::remove(&stored.store, "web").unwrap();
        assert_eq!(traces(&stored), [""; 0]);
        let tables = Command::new("nft").args(["list", "tables"]).output().unwrap();
        assert_eq!(String::from_utf8(tables.stdout).unwrap(), "");
    });
}

/// The kernel removes a namespace some time after its last user is gone.
fn wait_until_gone(interface: &str) {
    let mut kernel = Connection::open().unwrap();
    for _ in 0..2000 {
        if kernel.find_link(interface).unwrap().is_none() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("{interface} is still there");
}

#[test]
fn a_network_in_use_is_not_removed_and_names_its_containers() {
    on_a_fresh_host(|| {
        let stored = Stored::new();
        stored.create("web", WEB, false);
        let (a, b) = (Place::new(), Place::new());
        stored.attach(&b, "b", &["web"]);
        stored.attach(&a, "a", &["web"]);
        match networks::remove(&stored.store, "web") {
            Err(Error::InUse { containers, .. }) => assert_eq!(containers, ["a", "b"]),
            other => panic!("{other:?}"),
        }
        assert!(networks::prune(&stored.store).unwrap().networks.is_empty());
        let seen = networks::inspect(&stored.store, "web").unwrap();
        assert_eq!((seen.up, seen.containers.len()), (true, 2));
    });
}

#[test]
fn subnets_that_the_host_uses_are_refused_or_avoided() {
    on_a_fresh_host(|| {
        let stored = Stored::new();
        let _elsewhere = outside();
        stored.create("web", WEB, false);
        for (subnet, expected) in
            [("192.0.2.0/28", "route to 192.0.2.0/24"), ("10.1.0.128/25", "network web")]
        {
            let wish = network::definition::Wish {
                name: "other".into(),
                subnets: vec![subnet.parse().unwrap()],
                ..Default::default()
            };
            match networks::create(&stored.store, &wish) {
                Err(Error::Conflict { with, .. }) => assert!(with.contains(expected), "{with}"),
                other => panic!("{other:?}"),
            }
        }
        let auto = |name: &str| network::definition::Wish {
            name: name.into(),
            ipv6: true,
            ..Default::default()
        };
        let one = networks::create(&stored.store, &auto("one")).unwrap();
        let two = networks::create(&stored.store, &auto("two")).unwrap();
        assert_eq!(one.ipv4.subnet.to_string(), "10.112.0.0/20");
        assert_eq!(two.ipv4.subnet.to_string(), "10.112.16.0/20");
        assert_ne!(one.ipv6.unwrap().subnet, two.ipv6.unwrap().subnet);
    });
}

#[test]
fn rules_that_somebody_flushed_are_back_with_the_next_container() {
    on_a_fresh_host(|| {
        let stored = Stored::new();
        let elsewhere = outside();
        stored.create("web", WEB, false);
        let (a, b) = (Place::new(), Place::new());
        stored.attach(&a, "a", &["web"]);
        assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
        let at = "192.0.2.2:80".parse().unwrap();
        assert!(converse(&elsewhere, at, || a.run(|| connect(at))).is_none());
        stored.attach(&b, "b", &["web"]);
        assert!(converse(&elsewhere, at, || a.run(|| connect(at))).is_some());
    });
}

#[test]
fn other_firewalls_stay_as_they_are_and_are_named_when_they_drop() {
    on_a_fresh_host(|| {
        let stored = Stored::new();
        let elsewhere = outside();
        let docker = "table ip filter { chain DOCKER-USER { }; chain FORWARD { type filter hook \
                      forward priority 0; policy drop; jump DOCKER-USER; }; }";
        network::firewall::apply("test", docker).unwrap();
        stored.create("web", WEB, false);
        let a = Place::new();
        let made = stored.attach(&a, "a", &["web"]);
        assert!(made.warnings[0].contains("chain FORWARD of table ip filter"), "{made:?}");
        let at = "192.0.2.2:80".parse().unwrap();
        assert!(converse(&elsewhere, at, || a.run(|| connect(at))).is_none());
        let remedy = "add rule ip filter DOCKER-USER iifname minirun0 accept; add rule ip filter \
                      DOCKER-USER oifname minirun0 ct state established,related accept";
        network::firewall::apply("test", remedy).unwrap();
        assert!(converse(&elsewhere, at, || a.run(|| connect(at))).is_some());
        drop(a);
        wait_until_gone(&made.host_interfaces()[0]);
        networks::prune(&stored.store).unwrap();
        let tables = Command::new("nft").args(["list", "tables"]).output().unwrap();
        assert_eq!(String::from_utf8(tables.stdout).unwrap(), "table ip filter\n");
    });
}
