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

#[cfg(test)]
mod tests {
    use minisup_compose::{Loader, Tree};

    use super::*;

    fn load(text: &str) -> Project {
        let files = Tree::new().with("/p/compose.yaml", text);
        Loader::new(&files, ["/p/compose.yaml"]).load().unwrap().0
    }

    fn attached(text: &str, service: &str) -> Vec<Attached> {
        let project = load(text);
        let nets = read(&project).unwrap();
        let place = Place { project: &project, service, nets: &nets };
        place.attached(&project.services[service]).unwrap()
    }

    #[test]
    fn who_says_nothing_is_in_the_default_network() {
        assert_eq!(attached("services: {a: {image: i}}", "a"), []);
        let named = "services: {a: {image: i, networks: {default: {aliases: [b]}}}}";
        let found = attached(named, "a");
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].net, found[0].leads_out), (&Net::default(), true));
        let internal = "services: {a: {image: i}}\nnetworks: {default: {internal: true}}";
        let found = attached(internal, "a");
        assert!(found[0].net.internal && !found[0].leads_out);
        assert_eq!(attached("services: {a: {image: i, network_mode: none}}", "a"), []);
    }

    #[test]
    fn priorities_order_interfaces_and_choose_the_way_out() {
        let text = |front: &str, back: &str| {
            format!(
                "services: {{a: {{image: i, networks: {{front: {{{front}}}, back: {{{back}}}, \
                 inner: {{priority: 5, gw_priority: 9}}}}}}}}\n\
                 networks: {{front: , back: , inner: {{internal: true}}}}"
            )
        };
        let names = |text: &str| -> Vec<(String, bool)> {
            attached(text, "a").into_iter().map(|one| (one.net.name, one.leads_out)).collect()
        };
        let is = |name: &str, leads_out| (name.to_string(), leads_out);
        let plain = [is("inner", false), is("back", true), is("front", false)];
        assert_eq!(names(&text("", "")), plain);
        let front = [is("front", true), is("inner", false), is("back", false)];
        assert_eq!(names(&text("priority: 9", "")), front);
        let led = [is("inner", false), is("back", false), is("front", true)];
        assert_eq!(names(&text("gw_priority: 1", "")), led);
    }

    #[test]
    fn what_cannot_be_had_is_refused_at_its_place() {
        let used = "services: {a: {image: i, networks: [n, m]}, b: {image: i, networks: [n]}}\n\
                    networks:\n  m: {ipam: {config: [{subnet: 10.5.0.0/16}]}}\n";
        for (network, place, message) in [
            ("external: true", "networks.n.external", "cannot be joined yet"),
            ("driver: host", "networks.n.driver", "is a bridge"),
            ("enable_ipv6: true", "networks.n.enable_ipv6", "IPv6"),
            ("enable_ipv4: false", "networks.n.enable_ipv4", "without IPv4"),
            ("ipam: {config: [{subnet: 10.5.9.0/24}]}", "subnet", "overlaps with 10.5.0.0/16"),
            ("ipam: {config: [{subnet: 10.6.0.0/29}]}", "subnet", "is not between /8 and /28"),
            ("ipam: {config: [{subnet: \"fd00::/64\"}]}", "subnet", "IPv6"),
            (
                "ipam: {config: [{subnet: 10.6.0.0/24, gateway: 10.6.0.255}]}",
                "gateway",
                "no IPv4 address for a host",
            ),
            (
                "ipam: {config: [{subnet: 10.6.0.0/24, ip_range: 10.6.0.8/32}]}",
                "subnet",
                "no room for 2 services and 2 replicas",
            ),
            (
                "ipam: {config: [{subnet: 10.6.0.0/24}, {subnet: 10.7.0.0/24}]}",
                "ipam.config[1]",
                "more than one subnet",
            ),
        ] {
            let error = read(&load(&format!("{used}  n: {{{network}}}"))).unwrap_err().to_string();
            assert!(error.contains(message) && error.contains(place), "{network}: {error}");
        }
        let two = "services:\n  a: {image: i, networks: {n: {ipv4_address: 10.6.0.9}}}\n  \
                   b: {image: i, networks: {n: {ipv4_address: 10.6.0.9}}}\n\
                   networks: {n: {ipam: {config: [{subnet: 10.6.0.0/24}]}}}";
        let error = read(&load(two)).unwrap_err().to_string();
        assert!(error.contains("10.6.0.9 is a's already"), "{error}");
        let unused = "services: {a: {image: i}}\nnetworks: {n: {external: true}}";
        assert_eq!(read(&load(unused)).unwrap().len(), 1, "nobody is in it");
    }

    #[test]
    fn the_file_says_how_addresses_are_used() {
        let text = "services: {a: {image: i, networks: [n]}}\nnetworks:\n  n:\n    \
                    driver_opts: {com.docker.network.driver.mtu: 1400}\n    ipam: {config: \
                    [{subnet: 10.6.0.0/24, gateway: 10.6.0.254, ip_range: 10.6.0.64/27, \
                    aux_addresses: {x: 10.6.0.70}}]}";
        let net = attached(text, "a").remove(0).net;
        assert_eq!((net.gateway, net.mtu), ([10, 6, 0, 254].into(), Some(1400)));
        assert_eq!(net.range.map(|range| range.to_string()).as_deref(), Some("10.6.0.64/27"));
        assert_eq!(net.reserved, [[10, 6, 0, 70].into()].into());
        assert!(!net.internal && net.room() == 31);
    }
}
