//! The networks of a file: what each is, and what a service has of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, anyhow};
use ipnet::{IpNet, Ipv4Net};
use minisup_compose::Project;
use minisup_compose::model::{Attachment, Driver, IpamPool, Network, Service};

use super::Place;
use crate::discovery::net::{self, Net};
use crate::model::Named;
use crate::settings::Attached;

/// The networks that services are in, by their keys.
///
/// # Errors
/// The first that cannot be had, with its place.
pub(super) fn read(project: &Project) -> Result<BTreeMap<String, Net>> {
    let used: BTreeSet<&str> =
        project.services.values().flat_map(|s| s.networks.keys()).map(String::as_str).collect();
    let used: BTreeMap<&str, &Network> = project
        .networks
        .iter()
        .filter_map(|(key, network)| used.contains(key.as_str()).then_some((key.as_str(), network)))
        .collect();
    let mut given = BTreeMap::new();
    for (key, network) in &used {
        let here = Here { project, key };
        here.check(network)?;
        if let Some((subnet, pool)) = here.subnet(network)? {
            let clash = given.iter().find(|(_, (other, _))| net::overlap(subnet, *other));
            if let Some((name, (other, _))) = clash {
                let message = format!("{subnet} overlaps with {other} of the network {name}");
                return Err(here.refuse(SUBNET, &message, "choose another"));
            }
            given.insert(*key, (subnet, pool));
        }
    }
    let free = used.keys().copied().filter(|key| !given.contains_key(key));
    let taken: Vec<Ipv4Net> = given.values().map(|(subnet, _)| *subnet).collect();
    let chosen = net::subnets(free, &taken);
    let mut found = BTreeMap::new();
    for (key, network) in used {
        let here = Here { project, key };
        let pool = given.get(key).copied();
        let Some(subnet) = pool.map(|(subnet, _)| subnet).or(chosen.get(key).copied()) else {
            let message = format!("no part of {} is left for it", net::POOL);
            return Err(here.refuse("", &message, "give it a `subnet`, under `ipam.config`"));
        };
        let mut made = Net::of(key, subnet);
        made.internal = network.internal;
        made.mtu = network.mtu.map(u32::from);
        if let Some((_, pool)) = pool {
            here.complete(&mut made, pool)?;
        }
        here.check_room(&made)?;
        found.insert(key.to_string(), made);
    }
    Ok(found)
}

/// What people call the networks.
pub(super) fn named(project: &Project) -> BTreeMap<String, Named> {
    let named = |network: &Network| {
        let (name, labels) = (network.name.clone(), network.labels.clone());
        Named { name, labels }
    };
    project.networks.iter().map(|(key, network)| (key.clone(), named(network))).collect()
}

const SUBNET: &str = "ipam.config[0].subnet";

/// A network in the file.
struct Here<'a> {
    project: &'a Project,
    key: &'a str,
}

impl Here<'_> {
    fn refuse(&self, key: &str, message: &str, remedy: &str) -> anyhow::Error {
        let dot = if key.is_empty() { "" } else { "." };
        let path = format!("networks.{}{dot}{key}", self.key);
        anyhow!("{}", self.project.error_at(&path, message, remedy))
    }

    /// Refuses kinds of networks that there are not.
    fn check(&self, network: &Network) -> Result<()> {
        if network.external {
            let message = "networks from outside of the project cannot be joined yet";
            let remedy = "leave it out: the project has a network of its own then, and is \
                          reached from outside by `ports`";
            return Err(self.refuse("external", message, remedy));
        }
        if network.driver != Driver::Bridge {
            let message = "a network of the project is a bridge";
            let remedy = "write `network_mode: host` or `none` at the service";
            return Err(self.refuse("driver", message, remedy));
        }
        if network.enable_ipv4 == Some(false) {
            let message = "a network without IPv4 is not supported yet";
            return Err(self.refuse("enable_ipv4", message, "leave it out"));
        }
        if network.enable_ipv6 == Some(true) {
            let message = "IPv6 between services is not supported yet";
            let remedy = "leave it out; `ports` are published at IPv6 addresses as well";
            return Err(self.refuse("enable_ipv6", message, remedy));
        }
        Ok(())
    }

    /// Its IPv4 subnet, if the file gives one.
    fn subnet<'b>(&self, network: &'b Network) -> Result<Option<(Ipv4Net, &'b IpamPool)>> {
        let pools = network.ipam.config.as_slice();
        let Some(pool) = pools.first() else { return Ok(None) };
        if pools.len() > 1 {
            let message = "more than one subnet is not supported yet";
            return Err(self.refuse("ipam.config[1]", message, "leave it out"));
        }
        let IpNet::V4(subnet) = pool.subnet else {
            let message = "IPv6 between services is not supported yet";
            return Err(self.refuse(SUBNET, message, "write an IPv4 subnet: `10.5.0.0/24`"));
        };
        let (least, most) = (net::LARGEST, net::SMALLEST);
        if !(least..=most).contains(&subnet.prefix_len()) {
            let message = format!("{subnet} is not between /{least} and /{most}");
            return Err(self.refuse(SUBNET, &message, "write another, as `10.5.0.0/24`"));
        }
        Ok(Some((subnet, pool)))
    }

    /// Adds what else the file says of addresses.
    fn complete(&self, made: &mut Net, pool: &IpamPool) -> Result<()> {
        let other = |what: &str, value: &dyn std::fmt::Display| {
            let message = format!("{value} is no IPv4 address for a host of {}", made.subnet);
            self.refuse(&format!("ipam.config[0].{what}"), &message, "write another")
        };
        if let Some(gateway) = pool.gateway {
            made.gateway = match gateway {
                IpAddr::V4(address)
                    if address != made.subnet.network() && address != made.subnet.broadcast() =>
                {
                    address
                }
                _ => return Err(other("gateway", &gateway)),
            };
        }
        made.range = match pool.ip_range {
            None => None,
            Some(IpNet::V4(range)) => Some(range.trunc()),
            Some(range) => return Err(other("ip_range", &range)),
        };
        for address in pool.aux_addresses.values() {
            let IpAddr::V4(address) = address else {
                return Err(other("aux_addresses", address));
            };
            made.reserved.insert(*address);
        }
        Ok(())
    }

    /// Refuses a network in which not all have an address, and addresses that two must have.
    fn check_room(&self, made: &Net) -> Result<()> {
        let here: BTreeMap<&str, (&Service, &Attachment)> = self
            .project
            .services
            .iter()
            .filter_map(|(name, service)| {
                Some((name.as_str(), (service, service.networks.get(self.key)?)))
            })
            .collect();
        let mut fixed: BTreeMap<Ipv4Addr, &str> = BTreeMap::new();
        for (name, (_, attachment)) in &here {
            let Some(address) = attachment.ipv4_address else { continue };
            let wrong = match fixed.insert(address, name) {
                Some(other) => format!("{address} is {other}'s already"),
                None if !made.has(address) => {
                    format!("{address} is the network's own, its gateway's or reserved")
                }
                None => continue,
            };
            let path = format!("services.{name}.networks.{}.ipv4_address", self.key);
            return Err(anyhow!("{}", self.project.error_at(&path, &wrong, "write another")));
        }
        let taken = fixed.keys().copied().collect();
        let places = made.of_services(here.keys().copied(), &taken).len();
        let replicas: u32 = here.values().map(|(service, _)| service.deploy.replicas).sum();
        if places < here.len() || made.room() < replicas {
            let message = format!(
                "{} has no room for {} services and {replicas} replicas",
                made.subnet,
                here.len()
            );
            let remedy = "write a larger one, or another `ip_range`: services have the addresses \
                          outside of it";
            return Err(self.refuse(SUBNET, &message, remedy));
        }
        Ok(())
    }
}

impl Place<'_> {
    /// The networks of a service, `eth0` first; none where it has only the default network as it
    /// is without a word.
    pub(super) fn attached(&self, service: &Service) -> Result<Vec<Attached>> {
        let mut asked: Vec<(&String, &Attachment)> = service.networks.iter().collect();
        asked.sort_by_key(|(key, attachment)| (-i64::from(attachment.priority), *key));
        let mut found = Vec::new();
        for (key, attachment) in &asked {
            if attachment.ipv6_address.is_some() {
                let message = "IPv6 between services is not supported yet";
                let key = format!("networks.{key}.ipv6_address");
                return Err(self.refuse(&key, message, "services find each other by name"));
            }
            let Some(net) = self.nets.get(*key).cloned() else { continue };
            let aliases = attachment.aliases.iter().cloned().collect();
            found.push(Attached {
                net,
                address: attachment.ipv4_address,
                aliases,
                leads_out: false,
            });
        }
        let ways = found.iter().enumerate().filter(|(_, one)| !one.net.internal);
        // The first among those with the same priority.
        let way = ways.max_by_key(|(index, _)| {
            let priority = asked.get(*index).map_or(0, |(_, attachment)| attachment.gw_priority);
            (priority, std::cmp::Reverse(*index))
        });
        if let Some(index) = way.map(|(index, _)| index)
            && let Some(one) = found.get_mut(index)
        {
            one.leads_out = true;
        }
        if found == [Attached::default()] {
            found.clear();
        }
        Ok(found)
    }
}
