//! Hosts and containers for tests: network namespaces of our own, so that the machine that runs the
//! tests is never touched and nothing outlives a test.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use linux::namespace::{self, Kind, Namespaces};

/// Runs `work` on a thread whose network namespace is new: a host of its own.
pub(crate) fn on_a_fresh_host(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare_network();
            work();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn unshare_network() {
    namespace::unshare(Namespaces::from_iter([Kind::Network]))
        .expect("these tests make network namespaces: run them as root");
    linux::netdev::bring_loopback_up().expect("lo");
}

/// A network namespace that lives as long as this value: a container, or a machine elsewhere.
pub(crate) struct Place(OwnedFd);

impl Place {
    pub(crate) fn new() -> Self {
        let thread = std::thread::spawn(|| {
            unshare_network();
            namespace::current(Kind::Network).expect("its own namespace")
        });
        Self(thread.join().expect("a namespace"))
    }

    /// The namespace behind a descriptor.
    pub(crate) fn of(namespace: OwnedFd) -> Self {
        Self(namespace)
    }

    /// Runs `work` on a thread that is there.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                namespace::enter(self.0.as_fd(), Kind::Network).expect("setns");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// How long an attempt may take that may fail by silence. A lost first packet is repeated after a
/// second.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Serves one TCP connection at `at` in `server`, connects from `client` to `to`, and gives what
/// the server saw as the client's address. `None` when no connection came about.
pub(crate) fn converse(
    server: &Place,
    at: SocketAddr,
    client: impl FnOnce() -> Option<TcpStream> + Send,
) -> Option<SocketAddr> {
    let listener = server.run(|| listen(at));
    let mut stream = client()?;
    listener.set_nonblocking(true).expect("listener");
    // The connection is established: if it came here it is in the queue (a forwarder may need a
    // moment to make its half).
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    let (mut accepted, seen) = loop {
        match listener.accept() {
            Ok(pair) => break pair,
            Err(_) if std::time::Instant::now() > deadline => return None,
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    accepted.set_nonblocking(false).expect("accepted");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
    accepted.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
    stream.write_all(b"ping").expect("send");
    let mut buffer = [0; 4];
    accepted.read_exact(&mut buffer).expect("receive");
    accepted.write_all(b"pong").expect("answer");
    stream.read_exact(&mut buffer).expect("answer");
    assert_eq!(&buffer, b"pong");
    Some(seen)
}

/// Listens there. A listener that this process has closed lives on in a child of another test's
/// until that has executed its program.
fn listen(at: SocketAddr) -> TcpListener {
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    loop {
        match TcpListener::bind(at) {
            Err(error) if std::time::Instant::now() > deadline => panic!("bind {at}: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
            Ok(listener) => return listener,
        }
    }
}

pub(crate) fn connect(to: SocketAddr) -> Option<TcpStream> {
    TcpStream::connect_timeout(&to, PATIENCE).ok()
}

/// Whether a process in `from` reaches one in `to` at that address.
pub(crate) fn reaches(from: &Place, to: &Place, address: IpAddr) -> bool {
    let at = SocketAddr::new(address, 7000);
    converse(to, at, || from.run(|| connect(at))).is_some()
}

/// A directory that removes itself.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("network-test-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("fresh directory");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A store of its own in a directory of its own.
pub(crate) struct Stored {
    pub(crate) store: network::store::Store,
    pub(crate) directory: Directory,
}

impl Stored {
    pub(crate) fn new() -> Self {
        let directory = Directory::new();
        let (config, run) = (directory.path().join("config"), directory.path().join("run"));
        Self { store: network::store::Store::open(&config, &run).expect("store"), directory }
    }

    pub(crate) fn create(&self, name: &str, subnets: &[&str], internal: bool) {
        let wish = network::definition::Wish {
            name: name.into(),
            subnets: subnets.iter().map(|text| text.parse().expect("subnet")).collect(),
            internal,
            ..Default::default()
        };
        network::networks::create(&self.store, &wish).expect("network");
    }

    pub(crate) fn attach(
        &self,
        place: &Place,
        container: &str,
        networks: &[&str],
    ) -> network::attach::Attachment {
        let requests: Vec<_> = networks
            .iter()
            .map(|name| network::attach::Request { network: (*name).into(), ..Default::default() })
            .collect();
        match network::attach::attach(&self.store, place.as_fd(), container, &requests) {
            Ok(attachment) => attachment,
            Err(error) => panic!("{}", network::in_one_line(&error)),
        }
    }
}

/// A machine outside, joined to this host by a cable: 192.0.2.2 and fd00:2::2 there, .1 here. It
/// knows no route to any container.
pub(crate) fn outside() -> Place {
    use network::netlink::{Batch, Bridge, Connection, LinkChange, Veth};
    let place = Place::new();
    let mut kernel = Connection::open().expect("netlink");
    let hardware = network::hardware::HardwareAddress::new([2, 0, 0, 0, 2, 1]);
    let mut batch = Batch::new();
    batch.add_bridge(Bridge { name: "uplink", hardware, mtu: None, alias: "the host's own" });
    kernel.execute(&batch).expect("uplink");
    let uplink = kernel.link("uplink").expect("uplink").index;
    let mut batch = Batch::new();
    batch.add_veth(Veth {
        name: "cable",
        controller: uplink,
        peer_namespace: Some(place.as_fd()),
        peer_name: "eth0",
        peer_hardware: None,
        peer_controller: None,
        mtu: None,
        alias: "to the machine outside",
    });
    batch.add_address(uplink, "192.0.2.1/24".parse().expect("address"));
    batch.add_address(uplink, "fd00:2::1/64".parse().expect("address"));
    batch.change_link(uplink, LinkChange::Up(true));
    kernel.execute(&batch).expect("cable");
    let mut there = Connection::open_in(place.as_fd()).expect("netlink");
    let eth0 = there.link("eth0").expect("eth0").index;
    let mut batch = Batch::new();
    batch.add_address(eth0, "192.0.2.2/24".parse().expect("address"));
    batch.add_address(eth0, "fd00:2::2/64".parse().expect("address"));
    batch.change_link(eth0, LinkChange::Up(true));
    there.execute(&batch).expect("addresses");
    place
}

/// Everything of ours that this host has: links, told neighbours, rules.
pub(crate) fn traces(stored: &Stored) -> Vec<String> {
    let mut kernel = network::netlink::Connection::open().expect("netlink");
    let links = kernel.links().expect("links");
    let mut found: Vec<String> = links
        .into_iter()
        .map(|link| link.name)
        .filter(|name| name.starts_with("mr") || name.starts_with("minirun"))
        .collect();
    let leases = stored.directory.path().join("run/leases");
    for network in std::fs::read_dir(leases).into_iter().flatten().flatten() {
        let files = std::fs::read_dir(network.path()).expect("leases").flatten();
        let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
        found.extend(names.filter(|name| name != "hand"));
    }
    found.sort();
    found
}
