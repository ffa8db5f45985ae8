//! Containers in the project's networks, from the brain's side: each connected before its
//! application starts, and the data plane told who can be found where.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use anyhow::Result;
use minisup_core::input::{Command, Input};
use minisup_core::name::InstanceId;
use network::netlink::Connection;

use super::container::Running;
use super::engine::Brain;
use super::networks::Way;
use crate::discovery::net::Net;
use crate::discovery::switch::Switch;
use crate::discovery::{Directory, Entry, Member};
use crate::model::ServiceSpec;
use crate::plane::protocol::Order;
use crate::settings::Attached;

/// What a launch needs to connect its container to a network.
#[derive(Clone, Debug)]
pub(crate) struct Cable {
    switch: Switch,
    /// The network's key.
    key: String,
    pub(crate) gateway: Ipv4Addr,
    address: Ipv4Addr,
    interface: String,
    /// What is for the rest of the world goes here.
    leads_out: bool,
}

impl Cable {
    /// Lays it.
    pub(crate) fn lay(&self, running: &Running) -> Result<()> {
        let namespace = running.namespace.as_fd();
        self.switch.connect(namespace, self.address, &self.interface)?;
        if self.leads_out {
            self.switch.lead_out(namespace, &self.interface)?;
        }
        Ok(())
    }

    /// What the bundle says of cables, for the brain that comes after us.
    pub(crate) fn note(cables: &[Cable]) -> Result<String> {
        let addresses: BTreeMap<&str, Ipv4Addr> =
            cables.iter().map(|cable| (cable.key.as_str(), cable.address)).collect();
        Ok(serde_json::to_string(&addresses)?)
    }
}

impl Brain {
    /// Carries a command out, unless it asks for more containers than there is room for.
    pub(super) fn refuse_or_decide(&mut self, command: Command) -> Option<String> {
        if let Command::Scale { service, replicas } = &command {
            let count = |name: &str| match name == service.as_str() {
                true => *replicas,
                false => self.state.scale(&name.into()),
            };
            if let Err(error) = self.stack.check_room(count) {
                return Some(error.to_string());
            }
        }
        self.decide(&Input::Command(command))
    }

    /// Lays the cables of an instance that have gone with a network: when all our processes are
    /// killed, nobody keeps the namespace, and the container has lost what led there.
    pub(super) fn mend_cables(&mut self, instance: &InstanceId, running: &Running) {
        let addresses = self.addresses.of(instance);
        let attached = self.attached(instance);
        let missing = |interface: &str| {
            let inside = Connection::open_in(running.namespace.as_fd());
            inside.and_then(|mut inside| inside.find_link(interface)).is_ok_and(|l| l.is_none())
        };
        for (index, one) in attached.iter().enumerate() {
            let interface = format!("eth{index}");
            let Some(address) = addresses.get(&one.net.key()) else { continue };
            if missing(&interface)
                && let Some(cable) = self.cable(one, *address, interface)
                && let Err(error) = cable.lay(running)
            {
                eprintln!("minisup brain: {instance} is not in {}: {error:#}", one.net.name);
            }
        }
    }

    /// A cable to a network, if that can be had.
    fn cable(&mut self, to: &Attached, address: Ipv4Addr, interface: String) -> Option<Cable> {
        let there = self.network(&to.net)?;
        Some(Cable {
            switch: there.switch.clone(),
            key: to.net.key(),
            gateway: to.net.gateway,
            address,
            interface,
            leads_out: to.leads_out && there.way == Way::Open,
        })
    }

    /// Cables for an instance that is about to be made.
    ///
    /// # Errors
    /// There is no address for it.
    pub(crate) fn cables(
        &mut self,
        instance: &InstanceId,
        attached: &[Attached],
    ) -> Result<Vec<Cable>> {
        let mut cables = Vec::new();
        for (index, one) in attached.iter().enumerate() {
            if self.network(&one.net).is_none() {
                continue;
            }
            let lives = |other: &InstanceId| self.running.contains_key(other);
            let address = self.addresses.give(instance, &one.net, one.address, lives)?;
            cables.extend(self.cable(one, address, format!("eth{index}")));
        }
        Ok(cables)
    }

    /// Remembers the addresses of an instance that was there before us.
    pub(crate) fn note_addresses(&mut self, instance: &InstanceId) {
        if !self.addresses.of(instance).is_empty() {
            return;
        }
        let file = self.layout.bundle(&instance.to_string()).join("addresses");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if let Ok(addresses) = serde_json::from_str(&text) {
            self.addresses.note(instance, addresses);
        }
    }

    /// Tells the data plane who can be found, where that has changed.
    pub(crate) fn offer_directories(&mut self) {
        let keys: Vec<String> = self.networks.keys().cloned().collect();
        for key in keys {
            let members = self.members(&key);
            let Some(there) = self.networks.get(&key) else { continue };
            let (net, switch) = (there.net.clone(), there.switch.clone());
            let services = self.entries(&net);
            let project = self.layout.project.clone();
            let directory = Directory { project, net, services, members };
            if self.link.directories.get(&key) == Some(&directory) {
                continue;
            }
            let addresses = directory.services.values().map(|entry| entry.address).collect();
            if let Err(error) = switch.take(&addresses) {
                eprintln!("minisup brain: services have no addresses in {key}: {error:#}");
                continue;
            }
            self.link.tell(&Order::Directory(directory.clone()), Some(switch.namespace()));
            self.link.directories.insert(key, directory);
        }
    }

    /// The services that can be reached in a network, and where.
    fn entries(&self, net: &Net) -> BTreeMap<String, Entry> {
        let attached = |spec: &ServiceSpec| {
            spec.settings.attached().into_iter().find(|one| one.net.name == net.name)
        };
        let here = self.stack.services.iter();
        let here: BTreeMap<&str, (&ServiceSpec, Attached)> = here
            .filter_map(|(name, spec)| Some((name.as_str(), (spec, attached(spec)?))))
            .collect();
        let fixed = here.values().filter_map(|(_, one)| one.address);
        let key = net.key();
        let in_use = self.addresses.in_network(&key).map(|(_, address)| address);
        let fixed: BTreeSet<Ipv4Addr> = fixed.chain(in_use).collect();
        let addresses = net.of_services(here.keys().copied(), &fixed);
        let entry = |(name, address): (&str, Ipv4Addr)| {
            let (spec, one) = here.get(name)?;
            let aliases = one.aliases.union(&spec.settings.aliases).cloned().collect();
            let (ports, direct) = (spec.ports(), spec.settings.direct);
            Some((name.to_string(), Entry { address, ports, aliases, direct }))
        };
        addresses.into_iter().filter_map(entry).collect()
    }

    /// The containers in a network of whom something is to be known when they ask.
    fn members(&mut self, key: &str) -> BTreeMap<Ipv4Addr, Member> {
        let here = self.addresses.in_network(key).filter(|(id, _)| self.running.contains_key(id));
        let here: Vec<(InstanceId, Ipv4Addr)> =
            here.map(|(id, address)| (id.clone(), address)).collect();
        let mut members = BTreeMap::new();
        for (id, address) in here {
            let networks: Vec<String> =
                self.attached(&id).iter().map(|one| one.net.key()).collect();
            let spec = self.stack.services.get(id.slot.service.as_str());
            let servers = spec.map(|spec| spec.settings.resolver.servers.clone());
            let servers = servers.unwrap_or_default();
            if networks.len() > 1 || !servers.is_empty() {
                members.insert(address, Member { networks, servers });
            }
        }
        members
    }
}
