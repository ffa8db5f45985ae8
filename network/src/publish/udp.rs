//! UDP through the forwarder: one socket towards the container for each client.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use linux::datagram;
use linux::epoll::Interest;
use linux::inet::{Transport, connect_as};
use linux::poll::Ready;

use crate::publish::Published;

/// After this time without a datagram a client is forgotten; connection tracking in the kernel
/// forgets a flow that was answered after 120 seconds.
const IDLE: Duration = Duration::from_secs(90);
/// Clients of one published port at a time; beyond that the idlest one is forgotten.
const CLIENTS: usize = 1024;
/// Datagrams taken from one socket before the others have their turn.
const ROUNDS: usize = 64;

/// Who talks: the listener, the client, and the host's address that it talks to.
type Key = (u64, SocketAddr, IpAddr);

/// All clients of all published UDP ports.
#[derive(Debug, Default)]
pub(super) struct Flows {
    by_client: BTreeMap<Key, u64>,
    flows: BTreeMap<u64, Flow>,
}

#[derive(Debug)]
struct Flow {
    key: Key,
    socket: UdpSocket,
    last: Instant,
}

impl Flows {
    /// Takes what has come to a published port. `next` gives numbers for `interest`.
    pub(super) fn take_from_clients(
        &mut self,
        listener: u64,
        published: &Published,
        scratch: &mut [u8],
        interest: &Interest,
        next: &mut impl FnMut() -> u64,
    ) {
        for _ in 0..ROUNDS {
            let Ok(Some(datagram)) = datagram::receive(&published.socket, scratch) else { return };
            let key = (listener, datagram.from, datagram.to);
            if !self.by_client.contains_key(&key) {
                self.open(key, published, interest, next());
            }
            let flow = self.by_client.get(&key).and_then(|number| self.flows.get_mut(number));
            if let Some(flow) = flow {
                flow.last = Instant::now();
                // Lost if the container does not take it: that is what UDP promises.
                let _ = flow.socket.send(scratch.get(..datagram.length).unwrap_or(&[]));
            }
        }
    }

    fn open(&mut self, key: Key, published: &Published, interest: &Interest, number: u64) {
        let Some((to, speaker)) = published.target.towards(key.1.ip()) else { return };
        let made = connect_as(Transport::Udp, speaker, to)
            .or_else(|_| connect_as(Transport::Udp, None, to));
        let Ok(socket) = made else { return };
        let readable = Ready { readable: true, ..Ready::default() };
        if interest.add(&socket, number, readable).is_err() {
            return;
        }
        let mine = self.by_client.range((key.0, SocketAddr::from(([0; 4], 0)), key.2)..);
        if mine.take_while(|(other, _)| other.0 == key.0).count() >= CLIENTS {
            self.forget_idlest(key.0);
        }
        self.by_client.insert(key, number);
        let flow = Flow { key, socket: UdpSocket::from(socket), last: Instant::now() };
        self.flows.insert(number, flow);
    }

    /// Passes answers on; `false` when the number is none of a flow.
    pub(super) fn take_from_container(
        &mut self,
        number: u64,
        listeners: &BTreeMap<u64, Published>,
        scratch: &mut [u8],
    ) -> bool {
        let Some(flow) = self.flows.get_mut(&number) else { return false };
        let (listener, client, local) = flow.key;
        let Some(published) = listeners.get(&listener) else { return true };
        for _ in 0..ROUNDS {
            match flow.socket.recv(scratch) {
                Ok(length) => {
                    flow.last = Instant::now();
                    let bytes = scratch.get(..length).unwrap_or(&[]);
                    let _ = datagram::send(published.socket.as_fd(), bytes, local, client);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                // Nobody listens there (port unreachable): the next datagram tries again.
                Err(_) => {
                    self.forget(number);
                    break;
                }
            }
        }
        true
    }

    /// Forgets clients that have been silent, and says when to look again.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Duration> {
        let idle = |flow: &Flow| now.saturating_duration_since(flow.last);
        let old = self.flows.iter().filter(|(_, flow)| idle(flow) >= IDLE);
        let old: Vec<u64> = old.map(|(number, _)| *number).collect();
        for number in old {
            self.forget(number);
        }
        let oldest = self.flows.values().map(idle).max()?;
        Some(IDLE.saturating_sub(oldest))
    }

    fn forget_idlest(&mut self, listener: u64) {
        let mine = self.flows.iter().filter(|(_, flow)| flow.key.0 == listener);
        let idlest = mine.min_by_key(|(_, flow)| flow.last).map(|(number, _)| *number);
        if let Some(number) = idlest {
            self.forget(number);
        }
    }

    fn forget(&mut self, number: u64) {
        if let Some(flow) = self.flows.remove(&number) {
            self.by_client.remove(&flow.key);
        }
    }
}
