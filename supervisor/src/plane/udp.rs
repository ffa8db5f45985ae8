//! Datagrams: who speaks to a port has a session with one instance.
//!
//! UDP knows no connections, but most of what is spoken over it does (DNS over one question, QUIC
//! over many). So the first datagram of a client chooses an instance, and what follows goes there
//! until nobody has said anything for a while.
//!
//! ```text
//!   client ──▶ listening socket ──▶ session ──▶ socket in the instance's namespace ──▶ 127.0.0.1
//!          ◀── from the address that was asked ◀──
//! ```
//!
//! A session leaves an instance that drains, or is in doubt, as soon as that has been silent for a
//! second. A datagram that nobody took (port unreachable) is sent to another instance: it was
//! certainly not seen. One that was taken and never answered is lost, as any datagram may be.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use linux::datagram;
use minisup_core::instance::Route;
use tokio::io::unix::AsyncFd;
use tokio::net::UdpSocket;
use tokio::sync::Notify;

use super::backend::{Backend, InFlight};
use super::{Port, turn};
use crate::netns;

/// The longest datagram, in bytes.
const DATAGRAM: usize = 65_535;
/// Silence after which a session leaves an instance that is not active any more.
const QUIET: Duration = Duration::from_secs(1);
/// How long a session lasts that was never answered, at most: clients that forge their address, or
/// want no answer, need none.
const UNANSWERED: Duration = Duration::from_secs(10);
/// Sessions of one port. Each has a socket.
const SESSIONS: usize = 4096;
/// Datagrams of one client that are kept until there is an instance.
const EARLY: usize = 16;

/// The client, and the host's address that it spoke to.
type Key = (SocketAddr, IpAddr);

/// A port and all who speak to it.
struct Desk {
    socket: AsyncFd<OwnedFd>,
    port: Rc<Port>,
    sessions: RefCell<BTreeMap<Key, Rc<Session>>>,
    /// For answers; nothing waits while it is borrowed.
    scratch: RefCell<Vec<u8>>,
    /// Whether it has been said that there are too many sessions.
    complained: Cell<bool>,
}

/// One client.
struct Session {
    /// The way to its instance; none while there is none.
    way: RefCell<Option<Rc<Way>>>,
    /// What waits for one.
    early: RefCell<Vec<Vec<u8>>>,
    /// When the client was heard last.
    heard: Cell<Instant>,
    /// The instance took a datagram no more.
    refused: Notify,
}

/// The way to an instance.
struct Way {
    socket: UdpSocket,
    backend: Rc<Backend>,
    _in_flight: InFlight,
    begun: Instant,
    /// When the instance was heard last.
    answered: Cell<Option<Instant>>,
    /// The latest datagram, until something comes back.
    latest: RefCell<Vec<u8>>,
}

/// Why a session does not go on where it is.
enum End {
    /// Nobody has said anything for long enough.
    Quiet,
    /// Nobody listens there.
    Refused,
}

/// Takes datagrams, for ever.
pub(crate) async fn accept(socket: AsyncFd<OwnedFd>, port: Rc<Port>) {
    let desk = Rc::new(Desk {
        socket,
        port,
        sessions: RefCell::default(),
        scratch: RefCell::new(vec![0; DATAGRAM]),
        complained: Cell::new(false),
    });
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let Ok(mut ready) = desk.socket.readable().await else { return };
        match datagram::receive(desk.socket.get_ref(), &mut buffer) {
            Ok(Some(came)) => desk.take((came.from, came.to), &buffer[..came.length]),
            Ok(None) => ready.clear_ready(),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

impl Desk {
    fn take(self: &Rc<Desk>, key: Key, bytes: &[u8]) {
        let now = Instant::now();
        let known = self.sessions.borrow().get(&key).cloned();
        if let Some(session) = known.filter(|session| session.stays(now)) {
            return session.send(bytes, now);
        }
        let mut sessions = self.sessions.borrow_mut();
        if sessions.len() >= SESSIONS && !sessions.contains_key(&key) {
            if !self.complained.replace(true) {
                let at = self.port.publish.door();
                eprintln!(
                    "minisup plane: {at}: datagrams of new clients are dropped: there are \
                           {SESSIONS} sessions"
                );
            }
            return;
        }
        let session = Rc::new(Session {
            way: RefCell::default(),
            early: RefCell::new(vec![bytes.to_vec()]),
            heard: Cell::new(now),
            refused: Notify::new(),
        });
        sessions.insert(key, session.clone());
        drop(sessions);
        let desk = self.clone();
        tokio::task::spawn_local(async move {
            desk.keep(key, &session).await;
            let mut sessions = desk.sessions.borrow_mut();
            if sessions.get(&key).is_some_and(|known| Rc::ptr_eq(known, &session)) {
                sessions.remove(&key);
            }
        });
    }

    /// A session from its first datagram to its end, at as many instances as it takes.
    async fn keep(&self, key: Key, session: &Session) {
        let service = &self.port.service;
        let mut tried = turn::Tried::default();
        loop {
            let deadline = session.heard.get() + Duration::from_millis(service.rules().queue_ms);
            let chosen = turn::next(service, &mut tried, Instant::now(), deadline).await;
            let Ok((backend, in_flight)) = chosen else { return };
            let reached = netns::datagrams(backend.namespace.as_fd(), self.port.publish.port);
            let Ok(socket) = reached.await else {
                tried.passed(&backend.id);
                continue;
            };
            let way = Rc::new(Way {
                socket,
                backend,
                _in_flight: in_flight,
                begun: Instant::now(),
                answered: Cell::new(None),
                latest: RefCell::default(),
            });
            session.go(way.clone());
            let end = self.carry(key, session, &way).await;
            session.way.replace(None);
            if way.answered.get().is_none() {
                way.backend.counted_without_answer();
            }
            match end {
                End::Quiet => return,
                End::Refused => {
                    way.backend.refused(Instant::now());
                    tried.passed(&way.backend.id);
                    let latest = way.latest.take();
                    if !latest.is_empty() {
                        session.early.borrow_mut().insert(0, latest);
                    }
                }
            }
        }
    }

    /// Carries answers back until the session leaves this instance.
    async fn carry(&self, key: Key, session: &Session, way: &Way) -> End {
        let idle = Duration::from_millis(self.port.service.rules().idle_ms);
        let end = || match self.port.term.is_closed() {
            true => Instant::now(),
            false => session.end(way, idle),
        };
        let sleep = tokio::time::sleep_until(end().into());
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                ready = way.socket.readable() => {
                    if ready.is_err() || self.answer(key, way).is_err() {
                        return End::Refused;
                    }
                }
                () = session.refused.notified() => return End::Refused,
                // The route may have changed, and the end with it.
                () = self.port.service.changed.notified() => {
                    sleep.as_mut().reset(end().into());
                }
                () = &mut sleep => {
                    let end = end();
                    if end <= Instant::now() {
                        return End::Quiet;
                    }
                    sleep.as_mut().reset(end.into());
                }
            }
        }
    }

    /// Passes on what has come from an instance.
    fn answer(&self, (client, local): Key, way: &Way) -> std::io::Result<()> {
        let mut scratch = self.scratch.borrow_mut();
        loop {
            let length = match way.socket.try_recv(&mut scratch) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            if way.answered.replace(Some(now)).is_none() {
                way.backend.answered(0, now - way.begun, now);
            }
            way.latest.borrow_mut().clear();
            way.backend.sent_datagram();
            // A client that is gone misses nothing.
            let _ = datagram::send(self.socket.get_ref(), &scratch[..length], local, client);
        }
    }
}

impl Session {
    /// Whether what the client says now belongs to it.
    fn stays(&self, now: Instant) -> bool {
        match &*self.way.borrow() {
            None => true, // it waits for an instance
            Some(way) => way.backend.route.get() == Route::Active || now < way.quiet_at(),
        }
    }

    /// When it ends unless something is said.
    fn end(&self, way: &Way, idle: Duration) -> Instant {
        match way.backend.route.get() {
            Route::Absent => Instant::now(),
            Route::Draining | Route::Suspect | Route::Failing => way.quiet_at(),
            Route::Active => match way.answered.get() {
                Some(answered) => answered.max(self.heard.get()) + idle,
                None => self.heard.get() + idle.min(UNANSWERED),
            },
        }
    }

    /// Takes a way, and sends what has waited for it.
    fn go(&self, way: Rc<Way>) {
        self.way.replace(Some(way));
        for bytes in self.early.take() {
            self.send(&bytes, self.heard.get());
        }
    }

    fn send(&self, bytes: &[u8], now: Instant) {
        self.heard.set(now);
        let way = self.way.borrow();
        let Some(way) = &*way else {
            let mut early = self.early.borrow_mut();
            if early.len() < EARLY {
                early.push(bytes.to_vec());
            }
            return;
        };
        let mut latest = way.latest.borrow_mut();
        latest.clear();
        latest.extend_from_slice(bytes);
        way.backend.given_datagram();
        match way.socket.try_send(bytes) {
            // Where the kernel has no room a datagram is lost, as on any way.
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // The answer to an earlier one: nobody listens.
            Err(_) => self.refused.notify_one(),
        }
    }
}

impl Way {
    /// When it has been silent for long enough to be left.
    fn quiet_at(&self) -> Instant {
        self.answered.get().unwrap_or(self.begun) + QUIET
    }
}
