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

/// How long an attempt may take that is expected to fail by silence.
const PATIENCE: Duration = Duration::from_millis(700);

/// Serves one TCP connection at `at` in `server`, connects from `client` to `to`, and gives what
/// the server saw as the client's address. `None` when no connection came about.
pub(crate) fn converse(
    server: &Place,
    at: SocketAddr,
    client: impl FnOnce() -> Option<TcpStream> + Send,
) -> Option<SocketAddr> {
    let listener = server.run(|| TcpListener::bind(at).expect("bind"));
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
