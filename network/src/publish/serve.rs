//! The forwarder: a process of its own that passes bytes between clients and one container.
//!
//! It is single-threaded and small, knows nothing of networks or stores, and ends when its
//! container does. Killing `minirun` does not stop it, so a container keeps its ports.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::time::Instant;

use linux::clone::Child;
use linux::epoll::Interest;
use linux::inet::Transport;
use linux::poll::Ready;
use linux::{Errno, fd};
use serde::{Deserialize, Serialize};

use crate::companion;
use crate::error::{During, Error, Result};
use crate::publish::stream::Stream;
use crate::publish::udp::Flows;
use crate::publish::{Published, Target};

const END: u64 = u64::MAX;
const SCRATCH_BYTES: usize = 64 << 10;
const READABLE: Ready = Ready { readable: true, writable: false, hung_up: false };

/// What the forwarder's process is told: which descriptors are what.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// Readable when the container has ended (a pidfd).
    end: i32,
    ports: Vec<Port>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Port {
    fd: i32,
    at: std::net::SocketAddr,
    target: Target,
}

/// Starts a forwarder as a child process: `program` with `arguments` and one more, which it gives
/// to [`serve_inherited`]. `end` becomes readable when the container ends (its pidfd).
///
/// The child is a program of its own, so that it has none of the caller's memory and descriptors.
/// The caller must be single-threaded, as for every clone.
pub fn start(
    program: &Path,
    arguments: &[&str],
    published: &[Published],
    end: BorrowedFd<'_>,
) -> Result<Child> {
    let step = || "starting the forwarder of published ports".to_owned();
    let port = |published: &Published| Port {
        fd: published.socket.as_raw_fd(),
        at: published.at,
        target: published.target.clone(),
    };
    let order = Order { end: end.as_raw_fd(), ports: published.iter().map(port).collect() };
    let order = serde_json::to_string(&order)
        .map_err(|error| Error::invalid("published ports", "", error.to_string()))?;
    let sockets = published.iter().map(|published| published.socket.as_fd());
    let inherited: Vec<_> = sockets.chain([end]).collect();
    companion::start(program, arguments, order, &inherited).during(step)
}

/// Serves what [`start`] has left to this process: its last argument.
pub fn serve_inherited(order: &str) -> Result<()> {
    let order: Order = serde_json::from_str(order)
        .map_err(|error| Error::invalid("order to the forwarder", order, error.to_string()))?;
    let step = || "taking over published ports".to_owned();
    // Executed through /proc/self/exe, which would be its name in ps and in "port taken by …".
    linux::prctl::set_name(c"minirun-ports").during(step)?;
    // Each connection has two.
    linux::rlimit::raise_open_files().during(step)?;
    let end = fd::inherited(order.end).during(step)?;
    let mut published = Vec::new();
    for Port { fd: number, at, target } in order.ports {
        published.push(Published { socket: fd::inherited(number).during(step)?, at, target });
    }
    serve(published, end.as_fd())
}

/// Passes bytes until `end` becomes readable.
pub fn serve(published: Vec<Published>, end: BorrowedFd<'_>) -> Result<()> {
    let step = || "forwarding published ports".to_owned();
    let interest = Interest::new().during(step)?;
    interest.add(end, END, READABLE).during(step)?;
    let mut forwarder = Forwarder {
        interest,
        listeners: BTreeMap::new(),
        streams: BTreeMap::new(),
        flows: Flows::default(),
        next: 0,
        full: false,
        scratch: vec![0; SCRATCH_BYTES],
    };
    for one in published {
        let number = forwarder.number();
        forwarder.interest.add(&one.socket, number, READABLE).during(step)?;
        forwarder.listeners.insert(number, one);
    }
    loop {
        let again = forwarder.flows.expire(Instant::now());
        for (number, ready) in forwarder.interest.wait(again).during(step)? {
            if number == END {
                return Ok(());
            }
            forwarder.event(number, ready);
        }
    }
}

struct Forwarder {
    interest: Interest,
    listeners: BTreeMap<u64, Published>,
    /// By the client's number.
    streams: BTreeMap<u64, Stream>,
    flows: Flows,
    next: u64,
    /// No descriptor is left: new connections wait in the queue until one is.
    full: bool,
    scratch: Vec<u8>,
}

impl Forwarder {
    /// Numbers come in pairs: a stream has two sockets.
    fn number(&mut self) -> u64 {
        self.next += 2;
        self.next
    }

    fn event(&mut self, number: u64, ready: Ready) {
        let stream = number & !1;
        if let Some(one) = self.streams.get_mut(&stream) {
            if one.advance(number, ready, &mut self.scratch, &self.interest).is_err() {
                self.streams.remove(&stream);
                self.take_connections_again();
            }
            return;
        }
        if self.flows.take_from_container(number, &self.listeners, &mut self.scratch) {
            return;
        }
        match self.listeners.get(&number).map(|published| published.target.transport) {
            Some(Transport::Tcp) => self.accept(number),
            Some(Transport::Udp) => self.take_datagrams(number),
            // An event of a socket that an earlier event of the same wait has closed.
            None => {}
        }
    }

    fn accept(&mut self, listener: u64) {
        let number = self.number();
        let Some(published) = self.listeners.get(&listener) else { return };
        let Ok(socket) = published.socket.try_clone() else { return self.pause() };
        match TcpListener::from(socket).accept() {
            Ok((client, from)) => {
                let target = &published.target;
                // A container that does not answer costs its client the connection, nobody else.
                if let Ok(one) = Stream::begin(number, client, from, target, &self.interest) {
                    self.streams.insert(number, one);
                }
            }
            Err(error) if out_of_descriptors(&error) => self.pause(),
            // The client has gone again, or the event was for a connection that is taken.
            Err(_) => {}
        }
    }

    fn take_datagrams(&mut self, listener: u64) {
        let Some(published) = self.listeners.get(&listener) else { return };
        let next = &mut self.next;
        let mut number = || {
            *next += 2;
            *next
        };
        let scratch = &mut self.scratch;
        self.flows.take_from_clients(listener, published, scratch, &self.interest, &mut number);
    }

    fn pause(&mut self) {
        self.full = true;
        self.watch_listeners(Ready::default());
    }

    fn take_connections_again(&mut self) {
        if std::mem::take(&mut self.full) {
            self.watch_listeners(READABLE);
        }
    }

    fn watch_listeners(&self, want: Ready) {
        for (number, published) in &self.listeners {
            if published.target.transport == Transport::Tcp {
                // It can fail only for a descriptor that is not in the set, and these are.
                let _ = self.interest.change(&published.socket, *number, want);
            }
        }
    }
}

fn out_of_descriptors(error: &std::io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM))
}
