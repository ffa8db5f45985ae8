//! The ports of services at their own addresses: those that somebody has named, and those at which
//! a container turns out to listen.
//!
//! Most Compose files name no ports between services, and images name some of them. So when a
//! service is asked for, its container is looked at, and what it listens on is opened here as well.
//! Only then, and once when its first instance gets requests: looking costs 50 µs, and nobody needs
//! a port of a service that nobody asks for.

use std::cell::RefCell;
use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::AbortHandle;

use super::names::Instances;
use super::{Directory, Entry};
use crate::door::Door;
use crate::model::{Protocol, Publish};
use crate::netns;

/// The time between two looks at one service, and that while it is not known to listen at all.
const LOOK: Duration = Duration::from_secs(1);
const EARLY: Duration = Duration::from_millis(100);
/// Ports that are opened for one service because its container listens there. Some programs open
/// and leave one after another.
const MOST: usize = 64;

/// What the instances of services do.
pub(crate) trait Replicas {
    /// The slots of a service that get requests, with their addresses in the network of that key.
    fn ready(&self, service: &str, network: &str) -> Vec<(u32, Ipv4Addr)>;
    /// The TCP ports at which one of them listens for everybody.
    fn listening(&self, service: &str) -> BTreeSet<u16>;
}

/// Takes a listening socket for a port of a service over.
pub(crate) type Open = Box<dyn Fn(&str, Publish, OwnedFd) -> Result<AbortHandle>>;

/// What is open in the project's networks, by their keys.
pub(crate) struct Doors<R> {
    replicas: Rc<R>,
    open: Open,
    networks: RefCell<BTreeMap<String, OwnedFd>>,
    opened: RefCell<BTreeMap<(String, Door), Opened>>,
    noticed: RefCell<BTreeMap<(String, String), Noticed>>,
}

/// A port of a service in a network.
struct Opened {
    of: (String, Protocol),
    task: AbortHandle,
}

/// The ports of a service in a network that nobody has named.
struct Noticed {
    looked: Instant,
    ports: BTreeSet<u16>,
}

impl Noticed {
    /// Whether nobody needs to look yet.
    fn is_fresh(&self, entry: &Entry) -> bool {
        let is_known = !self.ports.is_empty() || !entry.ports.is_empty();
        self.looked.elapsed() < if is_known { LOOK } else { EARLY }
    }
}

impl<R: Replicas> Doors<R> {
    pub(crate) fn new(replicas: Rc<R>, open: Open) -> Doors<R> {
        Doors {
            replicas,
            open,
            networks: RefCell::default(),
            opened: RefCell::default(),
            noticed: RefCell::default(),
        }
    }

    /// Opens what a directory names, and closes what is in no directory any more.
    pub(super) fn follow(&self, directory: &Directory, network: OwnedFd) -> Result<()> {
        let key = directory.net.key();
        self.networks.borrow_mut().insert(key.clone(), network);
        self.noticed.borrow_mut().retain(|(of, name), _| {
            *of != key || directory.services.get(name).is_some_and(|entry| !entry.direct)
        });
        let mut wanted = BTreeMap::new();
        for (name, entry) in &directory.services {
            let noticed = self.noticed.borrow();
            let noticed = noticed.get(&(key.clone(), name.clone()));
            let noticed = noticed.into_iter().flat_map(|noticed| &noticed.ports);
            let noticed = noticed.map(|port| (*port, Protocol::Auto));
            // What was said of a port wins.
            for (port, protocol) in noticed.chain(entry.ports.iter().copied()) {
                let at = SocketAddr::from((entry.address, port));
                let door = Door { at, transport: protocol.transport() };
                wanted.insert(door, (name.clone(), protocol));
            }
        }
        self.close(&key, |door, opened| wanted.get(door) == Some(&opened.of));
        for (door, (service, protocol)) in wanted {
            self.open(&key, door, &service, protocol)?;
        }
        Ok(())
    }

    /// Opens a port, if it is not open.
    fn open(&self, key: &str, door: Door, service: &str, protocol: Protocol) -> Result<()> {
        let mut opened = self.opened.borrow_mut();
        let Place::Vacant(place) = opened.entry((key.to_string(), door)) else { return Ok(()) };
        let networks = self.networks.borrow();
        let network = networks.get(key).context("a network that is not known")?;
        let socket = netns::within(network.as_fd(), || door.open_beside())?;
        let socket = socket.with_context(|| format!("cannot listen at {door} for {service}"))?;
        let publish =
            Publish { host: door.at, among: None, ipv6_too: false, port: door.at.port(), protocol };
        let task = (self.open)(service, publish, socket)?;
        place.insert(Opened { of: (service.to_string(), protocol), task });
        Ok(())
    }

    /// A network is gone.
    pub(super) fn forget(&self, key: &str) {
        self.close(key, |_, _| false);
        self.noticed.borrow_mut().retain(|(of, _), _| of != key);
        self.networks.borrow_mut().remove(key);
    }

    /// Closes what does not stay in a network.
    fn close(&self, key: &str, stays: impl Fn(&Door, &Opened) -> bool) {
        self.opened.borrow_mut().retain(|(of, door), opened| {
            let stays = of != key || stays(door, opened);
            if !stays {
                opened.task.abort();
            }
            stays
        });
    }

    /// Looks where a service listens, if nobody has ever done so.
    pub(super) fn look_first(&self, key: &str, service: &str, entry: &Entry) {
        let is_known = self.noticed.borrow().contains_key(&(key.to_string(), service.to_string()));
        if !is_known && !self.replicas.ready(service, key).is_empty() {
            self.notice(key, service, entry);
        }
    }

    /// Looks where a service listens, if nobody has done so just now, and listens there for it.
    fn notice(&self, key: &str, service: &str, entry: &Entry) {
        let mut noticed = self.noticed.borrow_mut();
        let place = noticed.entry((key.to_string(), service.to_string()));
        let noticed = match place {
            Place::Occupied(place) if place.get().is_fresh(entry) => return,
            Place::Occupied(place) => place.into_mut(),
            Place::Vacant(place) => {
                place.insert(Noticed { looked: Instant::now(), ports: BTreeSet::new() })
            }
        };
        noticed.looked = Instant::now();
        let named = |port: &u16| {
            let same =
                |(known, protocol): &(u16, Protocol)| known == port && *protocol != Protocol::Udp;
            entry.ports.iter().any(same)
        };
        for port in self.replicas.listening(service).iter().filter(|port| !named(port)) {
            let at = SocketAddr::from((entry.address, *port));
            let door = Door { at, transport: Protocol::Auto.transport() };
            if noticed.ports.len() >= MOST || noticed.ports.contains(port) {
                continue;
            }
            match self.open(key, door, service, Protocol::Auto) {
                Ok(()) => drop(noticed.ports.insert(*port)),
                Err(error) => eprintln!("minisup plane: {error:#}"),
            }
        }
    }
}

impl<R: Replicas> Instances for Doors<R> {
    fn ready(&self, service: &str, network: &str) -> Vec<(u32, Ipv4Addr)> {
        self.replicas.ready(service, network)
    }

    fn carries(&self, service: &str, network: &str, entry: &Entry) -> bool {
        self.notice(network, service, entry);
        let noticed = self.noticed.borrow();
        let noticed = noticed.get(&(network.to_string(), service.to_string()));
        !entry.ports.is_empty() || noticed.is_some_and(|noticed| !noticed.ports.is_empty())
    }
}
