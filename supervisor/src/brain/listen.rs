//! The ports of the host that lead to services: found, opened, kept, told, and given up.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use linux::{Errno, inet};

use super::engine::Brain;
use crate::door::Door;
use crate::model::{Publish, Stack};
use crate::plane::protocol::Order;

/// What the keeper's names for listening sockets begin with.
const KEPT: &str = "listen/";
/// How often the kernel is asked for a port that is free by IPv4 and by IPv6.
const TRIES: usize = 16;

fn kept(door: Door) -> String {
    format!("{KEPT}{door}")
}

impl Brain {
    /// Opens what is published, and writes into the stack which free ports were taken. A port that
    /// somebody has is the user's to know, before anything runs.
    pub(crate) fn listen(&mut self, stack: &mut Stack) -> Result<()> {
        self.keep_found(stack);
        let mut new: Vec<(String, OwnedFd)> = Vec::new();
        // Those that must have a certain port come first, lest it is given away as a free one.
        let (free, certain): (Vec<_>, Vec<_>) = stack
            .services
            .values_mut()
            .flat_map(|spec| &mut spec.publish)
            .partition(|publish| publish.is_open());
        for publish in certain.into_iter().chain(free) {
            if publish.is_open() {
                let opened = find(publish)?;
                new.extend(opened.into_iter().map(|(door, socket)| (kept(door), socket)));
                continue;
            }
            for one in publish.families() {
                let (door, key) = (one.door(), kept(one.door()));
                let known = new.iter().any(|(name, _)| *name == key);
                if !known && self.keeper.get(&key).is_none() {
                    let opened = open(door, publish);
                    let opened = opened.with_context(|| refused(door, publish))?;
                    new.extend(opened.map(|socket| (key, socket)));
                }
            }
        }
        for (key, listener) in new {
            self.keeper.put(&key, listener);
        }
        Ok(())
    }

    /// What has got a free port keeps it as long as it asks for the same.
    fn keep_found(&self, stack: &mut Stack) {
        for (name, spec) in &mut stack.services {
            let Some(before) = self.stack.services.get(name) else { continue };
            let mut found: Vec<&Publish> = before.publish.iter().collect();
            for publish in spec.publish.iter_mut().filter(|publish| publish.is_open()) {
                // Each is given once: a service may ask for two free ports in the same words.
                let asked = |old: &&Publish| {
                    old.asks_like(&Publish { ipv6_too: old.ipv6_too, ..publish.clone() })
                };
                if let Some(place) = found.iter().position(asked) {
                    publish.host = found.swap_remove(place).host;
                }
            }
        }
    }

    /// After a start: what the keeper does not have any more is bound anew.
    pub(crate) fn listen_again(&mut self) {
        let mut stack = self.stack.clone();
        if let Err(error) = self.listen(&mut stack) {
            eprintln!("minisup brain: {error:#}");
        }
    }

    pub(super) fn offer_listeners(&mut self) {
        for (service, spec) in self.stack.services.clone() {
            for publish in spec.publish.iter().flat_map(Publish::families) {
                let door = publish.door();
                if self.link.listeners.contains(&door) {
                    continue;
                }
                if let Some(socket) = self.keeper.get(&kept(door)) {
                    let order = Order::Listener { service: service.clone(), publish };
                    self.link.tell(&order, Some(&socket));
                    self.link.listeners.insert(door);
                }
            }
        }
    }

    /// Gives up the ports that are not published any more, and has changed ones told anew.
    pub(crate) fn close_unpublished(&mut self) {
        let wanted: Vec<String> = self
            .stack
            .services
            .values()
            .flat_map(|spec| &spec.publish)
            .flat_map(Publish::families)
            .map(|publish| kept(publish.door()))
            .collect();
        for name in self.keeper.names(KEPT) {
            if !wanted.contains(&name) {
                self.keeper.release(&name);
                if let Ok(door) = name.trim_start_matches(KEPT).parse() {
                    self.link.tell(&Order::Close { door }, None);
                }
            }
        }
        self.link.listeners.clear();
        self.publish();
    }
}

/// Opens one address of what is published. `None` is IPv6 on a host that has none, if nobody has
/// named it.
fn open(door: Door, publish: &Publish) -> linux::Result<Option<OwnedFd>> {
    match door.open() {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if publish.ipv6_too && door.at.is_ipv6() && is_missing(error.errno) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What to say about an address that cannot be had.
fn refused(door: Door, publish: &Publish) -> String {
    match publish.ipv6_too && door.at.is_ipv6() {
        false => format!("cannot listen at {door}"),
        true => format!(
            "cannot listen at {door}; to publish by IPv4 alone, write {}:{}",
            publish.host, publish.port
        ),
    }
}

/// Whether the host does not know addresses of this kind.
fn is_missing(errno: Errno) -> bool {
    matches!(errno, Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL)
}

/// Opens the first free port of those that will do, and notes which it is.
fn find(publish: &mut Publish) -> Result<Vec<(Door, OwnedFd)>> {
    let (first, last) = publish.among.unwrap_or_default();
    let tries = if first == 0 { vec![0; TRIES] } else { (first..=last).collect() };
    let mut wrong = None;
    for port in tries {
        match open_all(publish, port) {
            Ok((host, opened)) => {
                publish.host = host;
                return Ok(opened);
            }
            Err(error) => wrong = Some(error),
        }
    }
    let text = format!("cannot listen at {}", publish.outside());
    match wrong {
        Some(error) => Err(error).context(text),
        None => bail!("{text}: the range is empty"),
    }
}

/// Opens a port at every address where it is published; of port 0, the one that the kernel gives.
fn open_all(publish: &Publish, port: u16) -> Result<(SocketAddr, Vec<(Door, OwnedFd)>)> {
    let mut host = SocketAddr::new(publish.host.ip(), port);
    let mut opened = Vec::new();
    for one in (Publish { host, ..publish.clone() }).families() {
        let mut door = one.door();
        door.at.set_port(host.port());
        let Some(socket) = open(door, publish)? else { continue };
        if opened.is_empty() {
            host = inet::local_address(&socket).context("which port it is")?;
            door.at = host;
        }
        opened.push((door, socket));
    }
    Ok((host, opened))
}
