//! The netlink layer against the kernel, inside namespaces of the tests.

use std::net::IpAddr;
use std::os::fd::AsFd;

use crate::testbed::{Place, on_a_fresh_host, reaches};
use linux::Errno;
use network::hardware::HardwareAddress;
use network::netlink::{Batch, Bridge, Connection, LinkChange, MarkRule, Veth};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn bridge(kernel: &mut Connection, name: &str) -> u32 {
    let hardware = HardwareAddress::new(MAC);
    let mut batch = Batch::new();
    batch.add_bridge(Bridge { name, hardware, mtu: Some(1400), alias: "made by a test" });
    kernel.execute(&batch).unwrap();
    let made = kernel.link(name).unwrap();
    assert_eq!((made.up, made.mtu, made.hardware), (false, 1400, Some(hardware)));
    let mut batch = Batch::new();
    batch.change_link(made.index, LinkChange::Up(true));
    kernel.execute(&batch).unwrap();
    assert!(kernel.link(name).unwrap().up);
    assert_eq!(made.alias.as_deref(), Some("made by a test"));
    made.index
}

fn veth<'a>(name: &'a str, controller: u32, place: &'a Place) -> Veth<'a> {
    Veth {
        name,
        controller,
        peer_namespace: Some(place.as_fd()),
        peer_name: "eth0",
        peer_hardware: Some(HardwareAddress::new([2, 0, 0, 0, 0, 9])),
        peer_controller: None,
        mtu: Some(1400),
        alias: "web",
    }
}

#[test]
fn two_places_on_one_bridge_reach_each_other_over_both_families() {
    on_a_fresh_host(|| {
        let (left, right) = (Place::new(), Place::new());
        let mut kernel = Connection::open().unwrap();
        let bridge = bridge(&mut kernel, "br-test");
        for (place, name, last) in [(&left, "left", 2), (&right, "right", 3)] {
            let mut veth = veth(name, bridge, place);
            veth.peer_hardware = Some(HardwareAddress::new([2, 0, 0, 0, 0, last]));
            let mut batch = Batch::new();
            batch.add_veth(veth);
            kernel.execute(&batch).unwrap();
            let outer = kernel.link(name).unwrap();
            assert_eq!((outer.up, outer.controller), (true, Some(bridge)));
            let mut inside = Connection::open_in(place.as_fd()).unwrap();
            let eth0 = inside.link("eth0").unwrap();
            assert_eq!((eth0.mtu, eth0.hardware), (1400, veth.peer_hardware));
            let mut batch = Batch::new();
            batch.change_link(eth0.index, LinkChange::Up(true));
            batch.add_address(eth0.index, format!("10.9.0.{last}/24").parse().unwrap());
            batch.add_address(eth0.index, format!("fd00:9::{last}/64").parse().unwrap());
            batch.add_default_route("10.9.0.1".parse().unwrap(), eth0.index);
            inside.execute(&batch).unwrap();
            let routes = inside.routes().unwrap();
            assert!(routes.iter().any(|r| r.gateway == Some("10.9.0.1".parse().unwrap())));
        }
        assert!(reaches(&left, &right, "10.9.0.3".parse().unwrap()));
        assert!(reaches(&right, &left, "fd00:9::2".parse().unwrap()));
        let mut batch = Batch::new();
        batch.delete_link("left").delete_link("right").delete_link("br-test");
        kernel.execute(&batch).unwrap();
        assert!(kernel.links().unwrap().iter().all(|link| link.name == "lo"));
    });
}

#[test]
fn an_interface_moves_into_a_namespace_under_another_name() {
    on_a_fresh_host(|| {
        let place = Place::new();
        let mut kernel = Connection::open().unwrap();
        let mut batch = Batch::new();
        batch.add_ifb("moving");
        kernel.execute(&batch).unwrap();
        let link = kernel.link("moving").unwrap();
        let mut batch = Batch::new();
        batch.change_link(link.index, LinkChange::Namespace(place.as_fd(), "net1"));
        kernel.execute(&batch).unwrap();
        assert_eq!(kernel.find_link("moving").unwrap(), None);
        let mut inside = Connection::open_in(place.as_fd()).unwrap();
        assert!(!inside.link("net1").unwrap().up);
    });
}

#[test]
fn a_refusal_names_its_request_and_the_others_are_executed() {
    on_a_fresh_host(|| {
        let mut kernel = Connection::open().unwrap();
        let mut batch = Batch::new();
        batch.delete_link("missing").add_ifb("there");
        let error = kernel.execute(&batch).unwrap_err();
        assert_eq!((error.call, error.errno), ("RTM_DELLINK", Errno::ENODEV));
        assert!(error.to_string().contains("missing"), "{error}");
        assert!(kernel.find_link("there").unwrap().is_some());
        let mut batch = Batch::new();
        batch.delete_link("missing").unless(Errno::ENODEV);
        kernel.execute(&batch).unwrap();
    });
}

#[test]
fn the_kernels_own_words_come_with_a_refusal() {
    on_a_fresh_host(|| {
        let mut kernel = Connection::open().unwrap();
        let bridge = bridge(&mut kernel, "br-test");
        let mut batch = Batch::new();
        batch.change_link(bridge, LinkChange::Mtu(1));
        let error = kernel.execute(&batch).unwrap_err();
        assert!(error.kernel_says.is_some(), "{error}");
    });
}

#[test]
fn neighbours_and_rules_come_and_go() {
    on_a_fresh_host(|| {
        let mut kernel = Connection::open().unwrap();
        let bridge = bridge(&mut kernel, "br-test");
        let address: IpAddr = "10.9.0.7".parse().unwrap();
        let mut batch = Batch::new();
        batch.add_address(bridge, "10.9.0.1/24".parse().unwrap());
        batch.add_neighbour(bridge, address, HardwareAddress::new(MAC));
        let rule = MarkRule { mark: 0x6d72, table: 109, priority: 109, ipv6: false };
        batch.add_rule(rule).add_local_everything(109, 1, false);
        kernel.execute(&batch).unwrap();
        let told = kernel.told_neighbours().unwrap();
        assert!(told.iter().any(|n| n.address == address && n.link == bridge), "{told:?}");
        assert!(kernel.has_rule(rule).unwrap());
        assert!(!kernel.has_rule(MarkRule { ipv6: true, ..rule }).unwrap());
        let mut batch = Batch::new();
        batch.delete_neighbour(bridge, address).delete_rule(rule);
        batch.delete_local_everything(109, 1, false);
        kernel.execute(&batch).unwrap();
        let told = kernel.told_neighbours().unwrap();
        assert!(!told.iter().any(|n| n.address == address), "{told:?}");
        assert!(!kernel.has_rule(rule).unwrap());
    });
}

#[test]
fn requests_are_recorded_by_name() {
    on_a_fresh_host(|| {
        linux::trace::start();
        let mut kernel = Connection::open().unwrap();
        bridge(&mut kernel, "br-test");
        let calls = linux::trace::take().join("\n");
        assert!(calls.contains("RTM_NEWLINK(br-test type bridge address 02:00:00"), "{calls}");
    });
}
