//! Rates and faults: set, seen, taken back, and never left behind.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use network::Error;
use network::attach::Attachment;
use network::collect::collect;
use network::lease::Lease;
use network::netlink::Connection;
use network::process::Process;
use network::traffic::{Fault, Faults, Rates, apply, records, statistics};

use crate::testbed::{Place, Stored, on_a_fresh_host, reaches};

struct Pair {
    stored: Stored,
    a: Place,
    b: Place,
    to_a: Attachment,
    to_b: Attachment,
}

impl Pair {
    fn new() -> Self {
        let stored = Stored::new();
        stored.create("web", &["10.1.0.0/24"], false);
        let (a, b) = (Place::new(), Place::new());
        let to_a = stored.attach(&a, "a", &["web"]);
        let to_b = stored.attach(&b, "b", &["web"]);
        Self { stored, a, b, to_a, to_b }
    }

    fn lease(&self) -> &Lease {
        &self.to_a.endpoints[0].lease
    }

    fn set(
        &self,
        rates: Option<Rates>,
        fault: Option<Option<Fault>>,
        guarded: bool,
    ) -> network::Result<()> {
        apply(&self.stored.store, self.a.as_fd(), self.lease(), rates, fault, guarded, None)
    }

    fn b_reaches_a(&self) -> bool {
        reaches(&self.b, &self.a, self.to_a.addresses()[0])
    }

    /// After a time without answers `b` has given up on `a`'s hardware address, and the end of
    /// that search can still fail a new connection.
    fn b_reaches_a_again(&self) -> bool {
        (0..5).any(|_| self.b_reaches_a())
    }

    /// The kinds of the queues at the host's end and at the container's end.
    fn queues(&self) -> (Vec<String>, Vec<String>) {
        let kinds = |kernel: &mut Connection, name: &str| {
            let link = kernel.link(name).unwrap().index;
            let all = kernel.qdiscs().unwrap();
            all.into_iter().filter(|q| q.link == link).map(|q| q.kind).collect()
        };
        let mut inside = Connection::open_in(self.a.as_fd()).unwrap();
        let near = kinds(&mut Connection::open().unwrap(), &self.lease().host_interface());
        (near, kinds(&mut inside, "eth0"))
    }
}

fn fault(inward: &str, outward: &str, holder: Option<Process>) -> Fault {
    let read = |text: &str| {
        if text.is_empty() { Faults::default() } else { Faults::parse(text).unwrap() }
    };
    Fault { inward: read(inward), outward: read(outward), holder }
}

/// Sends some megabytes from one place to another.
fn transfer(from: &Place, to: &Place, at: SocketAddr) {
    let listener = to.run(|| TcpListener::bind(at).unwrap());
    let mut stream = from.run(|| TcpStream::connect(at).unwrap());
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut all = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut all).unwrap();
            all.len()
        });
        stream.write_all(&vec![7; 4_000_000]).unwrap();
        drop(stream);
        assert_eq!(reader.join().unwrap(), 4_000_000);
    });
}

#[test]
fn rates_slow_both_directions_and_are_counted() {
    on_a_fresh_host(|| {
        let pair = Pair::new();
        pair.set(Some(Rates::parse("in=200mbit,out=100mbit").unwrap()), None, false).unwrap();
        assert_eq!(pair.queues(), (vec!["tbf".into()], vec!["tbf".into()]));
        transfer(&pair.b, &pair.a, SocketAddr::new(pair.to_a.addresses()[0], 5001));
        transfer(&pair.a, &pair.b, SocketAddr::new(pair.to_b.addresses()[0], 5001));
        let seen = &statistics(&pair.stored.store, &pair.to_a).unwrap()[0];
        assert!(seen.shaped_waits > 0, "{seen:?}");
        assert!(seen.traffic.received_bytes > 4_000_000 && seen.traffic.sent_bytes > 4_000_000);
        let mut inside = Connection::open_in(pair.a.as_fd()).unwrap();
        assert!(inside.qdiscs().unwrap().iter().any(|q| q.kind == "tbf" && q.overlimits > 0));
        assert_eq!(
            records(&pair.stored.store).unwrap()[0].rates.outward.unwrap().to_string(),
            "100mbit"
        );
        pair.set(Some(Rates::default()), None, false).unwrap();
        let (near, far) = pair.queues();
        assert!(!near.contains(&"tbf".into()) && !far.contains(&"tbf".into()), "{near:?} {far:?}");
    });
}

#[test]
fn a_container_that_administers_its_network_is_slowed_where_it_cannot_reach() {
    on_a_fresh_host(|| {
        let pair = Pair::new();
        pair.set(Some(Rates::parse("out=100mbit").unwrap()), None, true).unwrap();
        assert!(!pair.queues().1.contains(&"tbf".into()));
        transfer(&pair.a, &pair.b, SocketAddr::new(pair.to_b.addresses()[0], 5001));
        let mut kernel = Connection::open().unwrap();
        let ifb = kernel.link("mi0a010002").unwrap();
        let queues = kernel.qdiscs().unwrap();
        let queue = queues.iter().find(|q| q.link == ifb.index && q.kind == "tbf").unwrap();
        assert!(queue.bytes > 4_000_000 && queue.overlimits > 0, "{queue:?}");
        // Once more, over what is there, and then the container goes.
        pair.set(Some(Rates::parse("out=90mbit").unwrap()), None, true).unwrap();
        network::attach::detach(&pair.stored.store, &pair.to_a).unwrap();
        collect(&pair.stored.store).unwrap();
        assert_eq!(kernel.find_link("mi0a010002").unwrap(), None);
        assert_eq!(records(&pair.stored.store).unwrap(), []);
    });
}

#[test]
fn losses_come_and_go_in_each_direction() {
    on_a_fresh_host(|| {
        let pair = Pair::new();
        for (inward, outward) in [("loss=100%", ""), ("", "loss=100%")] {
            pair.set(None, Some(Some(fault(inward, outward, None))), false).unwrap();
            assert!(!pair.b_reaches_a(), "in {inward:?} out {outward:?}");
            pair.set(None, Some(None), false).unwrap();
            assert!(pair.b_reaches_a_again());
        }
        // A rate stays when a fault goes.
        pair.set(Some(Rates::parse("in=50mbit").unwrap()), None, false).unwrap();
        pair.set(None, Some(Some(fault("loss=100%", "", None))), false).unwrap();
        assert!(!pair.b_reaches_a());
        pair.set(None, Some(None), false).unwrap();
        assert_eq!(pair.queues().0, ["tbf"]);
        assert!(pair.b_reaches_a_again());
    });
}

#[test]
fn a_fault_ends_with_the_process_that_wanted_it() {
    on_a_fresh_host(|| {
        let pair = Pair::new();
        let own = Process::current();
        pair.set(None, Some(Some(fault("loss=100%", "", Some(own)))), false).unwrap();
        collect(&pair.stored.store).unwrap();
        assert!(!pair.b_reaches_a(), "its holder lives");
        let dead = Process { pid: u32::MAX, start: 1 };
        pair.set(None, Some(Some(fault("loss=100%", "loss=100%", Some(dead)))), false).unwrap();
        assert!(!pair.b_reaches_a());
        // Someone must be in the container for its namespace to be found.
        let mut inhabitant =
            pair.a.run(|| std::process::Command::new("sleep").arg("100").spawn().unwrap());
        collect(&pair.stored.store).unwrap();
        inhabitant.kill().unwrap();
        inhabitant.wait().unwrap();
        assert!(pair.b_reaches_a_again());
        assert_eq!(records(&pair.stored.store).unwrap()[0].fault, None);
    });
}

/// These tests have threads, and so cannot start a relay.
#[test]
fn what_this_kernel_cannot_do_is_refused_and_changes_nothing() {
    on_a_fresh_host(|| {
        let pair = Pair::new();
        let late = fault("latency=20ms,jitter=2ms,reorder=10%", "duplicate=50%,loss=1%", None);
        match pair.set(None, Some(Some(late)), false) {
            Ok(()) => {
                let (near, far) = pair.queues();
                assert_eq!((&*near[0], &*far[0]), ("netem", "netem"));
                assert!(pair.b_reaches_a());
                pair.set(None, Some(None), false).unwrap();
                assert!(!pair.queues().0.contains(&"netem".into()));
            }
            Err(Error::Unsupported { needs, .. }) => {
                assert!(needs.contains("sch_netem") && needs.contains("tcx"), "{needs}");
                assert_eq!(records(&pair.stored.store).unwrap(), []);
                pair.set(Some(Rates::parse("in=50mbit").unwrap()), None, false).unwrap();
                assert!(pair.set(None, Some(Some(late)), false).is_err());
                assert_eq!(pair.queues().0, ["tbf"], "the rate is still there");
            }
            Err(error) => panic!("{error:?}"),
        }
        assert!(pair.b_reaches_a());
    });
}
