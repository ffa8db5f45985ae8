//! The project's network, from the brain's side: made once, kept by the keeper, and every
//! container connected to it before its application starts.
//!
//! A network that cannot be made costs the names of services, not the services: containers are
//! reached by their own loopback in any case ([`crate::netns`]).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use minisup_core::name::InstanceId;

use super::container::Running;
use super::engine::Brain;
use crate::discovery::switch::{self, Switch};
use crate::discovery::{Directory, Entry, address};
use crate::keeper::client::Keeper;
use crate::plane::protocol::Order;

/// The keeper's name for the network.
const KEPT: &str = "switch";

/// What a launch needs to connect its container.
#[derive(Clone, Debug)]
pub(crate) struct Cable {
    switch: Switch,
    pub(crate) address: Ipv4Addr,
}

impl Cable {
    /// Lays it.
    pub(crate) fn lay(&self, running: &Running) -> Result<()> {
        self.switch.connect(running.namespace.as_fd(), self.address)
    }
}

fn open(keeper: &Keeper) -> Result<Switch> {
    let namespace = match keeper.get(KEPT) {
        Some(namespace) => namespace,
        None => keeper.put(KEPT, switch::make_namespace()?),
    };
    Switch::open(namespace).context("cannot make the project's network")
}

impl Brain {
    /// Makes the project's network, or takes it over.
    pub(crate) fn open_switch(&mut self) {
        match open(&self.keeper) {
            Ok(switch) => self.switch = Some(switch),
            Err(error) => eprintln!("minisup brain: services cannot find each other: {error:#}"),
        }
    }

    /// A cable for an instance that is about to be made.
    pub(crate) fn cable(&mut self, instance: &InstanceId) -> Option<Cable> {
        let switch = self.switch.clone()?;
        Some(Cable { switch, address: self.addresses.give(instance)? })
    }

    /// Remembers the address of an instance that was there before us.
    pub(crate) fn note_address(&mut self, instance: &InstanceId) {
        if self.addresses.of(instance).is_some() {
            return;
        }
        let file = self.layout.bundle(&instance.to_string()).join("address");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if let Ok(address) = text.trim().parse() {
            self.addresses.note(instance, address);
        }
    }

    /// Tells the data plane who can be found, if that has changed.
    pub(crate) fn offer_directory(&mut self) {
        let Some(switch) = self.switch.clone() else { return };
        let reachable = self.stack.services.iter().filter(|(_, spec)| spec.is_reachable());
        let reachable: BTreeMap<&str, _> = reachable.map(|(n, s)| (n.as_str(), s)).collect();
        let addresses = address::of_services(reachable.keys().copied());
        let services = addresses.iter().filter_map(|(name, address)| {
            let ports = reachable.get(name)?.ports();
            let settings = &reachable.get(name)?.settings;
            let (aliases, direct) = (settings.aliases.clone(), settings.direct);
            Some(((*name).to_string(), Entry { address: *address, ports, aliases, direct }))
        });
        let project = self.layout.project.clone();
        let services = services.collect();
        let running: Vec<InstanceId> = self.running.keys().cloned().collect();
        let servers = running.iter().filter_map(|id| {
            let spec = self.stack.services.get(id.slot.service.as_str())?;
            let asked = &spec.settings.resolver.servers;
            let address = self.addresses.of(id).filter(|_| !asked.is_empty())?;
            Some((address, asked.clone()))
        });
        let servers = servers.collect();
        let directory = Directory { project, services, servers };
        if self.link.directory.as_ref() == Some(&directory) {
            return;
        }
        if let Err(error) = switch.take(addresses.values().copied()) {
            eprintln!("minisup brain: services have no addresses: {error:#}");
            return;
        }
        self.link.tell(&Order::Directory(directory.clone()), Some(switch.namespace()));
        self.link.directory = Some(directory);
    }
}
