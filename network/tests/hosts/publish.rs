//! Published ports: who gets in, and as whom.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use network::publish::{self, Published};
use network::{Error, networks};

use crate::testbed::{Place, Stored, connect, converse, on_a_fresh_host, outside};

const WEB: &[&str] = &["10.1.0.0/24", "fd00:1::/64"];

/// A host with one container whose ports are published as `wishes` say, for as long as `work` runs.
fn with_published(
    wishes: &[&str],
    work: impl FnOnce(&Stored, &Place, &[SocketAddr], &Place) + Send,
) {
    on_a_fresh_host(|| {
        let stored = Stored::new();
        let elsewhere = outside();
        stored.create("web", WEB, false);
        let container = Place::new();
        let attachment = stored.attach(&container, "a", &["web"]);
        assert_eq!(publish::allow_transparent(&stored.store).unwrap(), None);
        let wishes: Vec<_> = wishes.iter().flat_map(|wish| publish::parse(wish).unwrap()).collect();
        let target = publish::target_addresses(&attachment).unwrap();
        let published: Vec<Published> = publish::listen(&wishes, &target, true).unwrap();
        let at: Vec<SocketAddr> = published.iter().map(|one| one.at).collect();
        let (end, told) = linux::socket::pair().unwrap();
        std::thread::scope(|scope| {
            let forwarder = scope.spawn(move || publish::serve(published, told.as_fd()));
            // The scope waits for the forwarder, so the end must come in any case.
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                work(&stored, &container, &at, &elsewhere);
            }));
            drop(end);
            forwarder.join().unwrap().unwrap();
            if let Err(panic) = result {
                std::panic::resume_unwind(panic);
            }
        });
    });
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 80);

#[test]
fn a_client_outside_is_seen_with_its_own_address() {
    with_published(&["8080:80"], |_, container, _, elsewhere| {
        for (to, inside, expected) in [
            ("192.0.2.1:8080", "0.0.0.0:80", "192.0.2.2"),
            ("[fd00:2::1]:8080", "[::]:80", "fd00:2::2"),
        ] {
            let seen =
                converse(container, address(inside), || elsewhere.run(|| connect(address(to))));
            assert_eq!(seen.expect(to).ip().to_canonical().to_string(), expected);
        }
    });
}

#[test]
fn the_host_itself_and_neighbours_get_in_too() {
    with_published(&["8080:80"], |stored, container, _, _| {
        let seen = converse(container, ANY, || connect(address("127.0.0.1:8080")));
        assert_eq!(seen.unwrap().ip().to_string(), "10.1.0.1");
        let seen = converse(container, ANY, || connect(address("192.0.2.1:8080")));
        assert_eq!(seen.unwrap().ip().to_string(), "192.0.2.1");
        let neighbour = Place::new();
        stored.attach(&neighbour, "b", &["web"]);
        let seen = converse(container, ANY, || neighbour.run(|| connect(address("10.1.0.1:8080"))));
        assert_eq!(seen.unwrap().ip().to_string(), "10.1.0.1");
        // From another network, too: that is what publishing means.
        stored.create("data", &["10.3.0.0/24"], false);
        let stranger = Place::new();
        stored.attach(&stranger, "c", &["data"]);
        let seen = converse(container, ANY, || stranger.run(|| connect(address("10.3.0.1:8080"))));
        assert_eq!(seen.unwrap().ip().to_string(), "10.3.0.2");
    });
}

#[test]
fn the_hosts_firewall_decides_who_gets_in() {
    with_published(&["8080:80"], |_, container, _, elsewhere| {
        let rules = "table inet admin { chain input { type filter hook input priority 0; \
                     tcp dport 8080 iifname uplink drop; }; }";
        network::firewall::apply("admin", rules).unwrap();
        let from_outside = || elsewhere.run(|| connect(address("192.0.2.1:8080")));
        assert_eq!(converse(container, ANY, from_outside), None);
        network::firewall::apply("admin", "delete table inet admin").unwrap();
        assert!(converse(container, ANY, from_outside).is_some());
    });
}

#[test]
fn streams_arrive_whole_in_both_directions_and_end_one_by_one() {
    with_published(&["8080:80"], |_, container, _, elsewhere| {
        const BYTES: usize = 3_000_000;
        let pattern = |seed: usize| -> Vec<u8> {
            (0..BYTES)
                .map(|at| u8::try_from((at * 31 + seed * 7 + at / 251) % 256).unwrap())
                .collect()
        };
        let listener = container.run(|| TcpListener::bind(ANY).unwrap());
        std::thread::scope(|scope| {
            // The server answers only after the client has said that it has nothing more to say.
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                assert!(all == pattern(1), "{} bytes came", all.len());
                stream.write_all(&pattern(2)).unwrap();
            });
            let mut stream: TcpStream =
                elsewhere.run(|| connect(address("192.0.2.1:8080")).expect("connection"));
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream.write_all(&pattern(1)).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            assert!(all == pattern(2), "{} bytes came", all.len());
        });
    });
}

#[test]
fn a_container_that_does_not_listen_costs_one_connection_and_no_other() {
    with_published(&["8080:80", "8081:81"], |_, container, _, elsewhere| {
        let mut refused =
            elsewhere.run(|| connect(address("192.0.2.1:8081"))).expect("the host listens");
        refused.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert!(matches!(refused.read(&mut [0]), Ok(0) | Err(_)));
        let to = address("192.0.2.1:8080");
        assert!(converse(container, ANY, || elsewhere.run(|| connect(to))).is_some());
    });
}

#[test]
fn datagrams_find_their_way_and_their_answers_come_from_the_asked_address() {
    with_published(&["5353:53/udp"], |_, container, _, elsewhere| {
        let server = container.run(|| UdpSocket::bind("0.0.0.0:53").unwrap());
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let clients: Vec<UdpSocket> =
            (0..3).map(|_| elsewhere.run(|| UdpSocket::bind("192.0.2.2:0").unwrap())).collect();
        let mut buffer = [0; 64];
        for (number, client) in clients.iter().enumerate() {
            client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            client.send_to(&[u8::try_from(number).unwrap()], "192.0.2.1:5353").unwrap();
            let (length, from) = server.recv_from(&mut buffer).unwrap();
            assert_eq!((length, from.ip().to_string()), (1, "192.0.2.2".to_owned()));
            server.send_to(&buffer[..length], from).unwrap();
        }
        for (number, client) in clients.iter().enumerate() {
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], [u8::try_from(number).unwrap()]);
            assert_eq!(from, address("192.0.2.1:5353"));
        }
    });
}

#[test]
fn a_taken_port_names_its_holder_and_ranges_and_free_ports_are_found() {
    on_a_fresh_host(|| {
        let target = ["10.1.0.2/24".parse().unwrap()];
        let listen = |wish: &str| publish::listen(&publish::parse(wish).unwrap(), &target, false);
        let _holder = TcpListener::bind("0.0.0.0:8080").unwrap();
        match listen("8080:80") {
            Err(Error::PortTaken { at, holder }) => {
                assert_eq!(at, "0.0.0.0:8080/tcp");
                let own = format!("(pid {})", std::process::id());
                assert!(holder.as_ref().unwrap().ends_with(&own), "{holder:?}");
            }
            other => panic!("{other:?}"),
        }
        assert!(listen("8080:80/udp").is_ok());
        let found = listen("8080-8082:80").unwrap();
        assert!(found.iter().all(|one| one.at.port() == 8081), "{found:?}");
        let pairs = listen("9000-9002:80-82").unwrap();
        let ports: Vec<_> = pairs.iter().map(|one| (one.at.port(), one.target.port)).collect();
        assert_eq!(ports, [9000, 9000, 9001, 9001, 9002, 9002].map(|port| (port, port - 8920)));
        let random = listen("80").unwrap();
        assert_eq!((random.len(), random[0].at.port()), (2, random[1].at.port()));
        assert_ne!(random[0].at.port(), 0);
        assert!(matches!(listen("192.0.2.99:1:1"), Err(Error::Invalid { .. })));
    });
}

#[test]
fn nothing_of_publishing_is_left_after_prune() {
    on_a_fresh_host(|| {
        let stored = Stored::new();
        stored.create("web", WEB, false);
        let rules = || {
            let seen = std::process::Command::new("ip").args(["rule", "list"]).output().unwrap();
            String::from_utf8(seen.stdout).unwrap()
        };
        let before = rules();
        publish::allow_transparent(&stored.store).unwrap();
        publish::allow_transparent(&stored.store).unwrap();
        assert_eq!(rules().lines().count(), before.lines().count() + 1);
        networks::prune(&stored.store).unwrap();
        assert_eq!(rules(), before);
    });
}
