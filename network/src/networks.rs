//! `network create`, `ls`, `inspect`, `rm`, `prune`.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::bridge::{check_routes, ensure_rules};
use crate::collect::{Collected, collect_locked, connect};
use crate::definition::{DEFAULT_NETWORK, Network, Wish, check_name};
use crate::error::{Error, Result};
use crate::firewall::{self, Family};
use crate::lease::Lease;
use crate::netlink::Connection;
use crate::store::{LockedStore, Store};
use crate::traffic::{self, Fault, Rates};

/// Where subnets for networks that ask for none in particular are cut from: each gets a /20, 4093
/// addresses. Apart from what Docker (172.16/12) and Podman (10.88/16 and up) use by default.
pub const POOL: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 112, 0, 0), 12);
const POOL_PREFIX: u8 = 20;
/// A number ends up in the name of an interface, which has 15 bytes.
const NETWORKS: u32 = 10_000;

/// A network and who is in it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Inspected {
    /// The network.
    #[serde(flatten)]
    pub network: Network,
    /// Its first bridge.
    pub bridge: String,
    /// Whether that exists.
    pub up: bool,
    /// Its containers, by address.
    pub containers: Vec<Connected>,
}

/// A container in a network.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Connected {
    /// What it was given.
    #[serde(flatten)]
    pub lease: Lease,
    /// How fast it may be, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rates: Option<Rates>,
    /// What is wrong with its network, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// The process that makes the fault, where it takes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay: Option<InspectedRelay>,
}

/// A process that makes a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct InspectedRelay {
    /// Its number.
    pub pid: u32,
    /// Whether it lives. If not, the fault is over.
    pub alive: bool,
}

/// Makes a network. Its bridge is made when the first container comes.
pub fn create(store: &Store, wish: &Wish) -> Result<Network> {
    check_name(&wish.name)?;
    let locked = store.lock()?;
    create_locked(&locked, wish)
}

fn create_locked(locked: &LockedStore<'_>, wish: &Wish) -> Result<Network> {
    let existing = locked.store().networks()?;
    if existing.iter().any(|network| network.name == wish.name) {
        return Err(Error::AlreadyExists(wish.name.clone()));
    }
    let mut kernel = connect()?;
    let number = free_number(&mut kernel, &existing)?;
    let (ipv4, ipv6) = sort(&wish.subnets)?;
    let ipv6 = match ipv6 {
        None if wish.ipv6 => Some(local_subnet(number)),
        other => other,
    };
    let network = match ipv4 {
        Some(ipv4) => {
            let network = wish.settle(number, ipv4, ipv6)?;
            check_others(&existing, &network)?;
            check_routes(&mut kernel, &network)?;
            network
        }
        None => free_network(&mut kernel, &existing, wish, number, ipv6)?,
    };
    locked.add(&network)?;
    Ok(network)
}

/// The network of that name; the default one is made when it is not there.
pub fn find_or_create_default(store: &Store, name: &str) -> Result<Network> {
    match store.network(name) {
        Err(Error::NotFound { .. }) if name == DEFAULT_NETWORK => {}
        found => return found,
    }
    match create(store, &Wish { name: name.to_owned(), ..Wish::default() }) {
        // Somebody else was faster.
        Err(Error::AlreadyExists(_)) => store.network(name),
        made => made,
    }
}

/// A network with its containers.
pub fn inspect(store: &Store, name: &str) -> Result<Inspected> {
    let network = store.network(name)?;
    crate::collect::collect(store)?;
    let up = crate::bridge::find(&mut connect()?, &network, 0)?.is_some();
    let records = traffic::records(store)?;
    let containers = store.leases(name)?.into_iter().map(|lease| {
        let record = records.iter().find(|record| record.lease.ipv4 == lease.ipv4);
        let rates = record.map(|record| record.rates).filter(|rates| *rates != Rates::default());
        let relay = record.and_then(|record| record.relay).map(|relay| InspectedRelay {
            pid: relay.process.pid,
            alive: relay.process.is_alive(),
        });
        Connected { lease, rates, fault: record.and_then(|record| record.fault), relay }
    });
    let containers = containers.collect();
    Ok(Inspected { bridge: network.bridge(), network, up, containers })
}

/// Removes a network that no container uses.
pub fn remove(store: &Store, name: &str) -> Result<Collected> {
    let locked = store.lock()?;
    store.network(name)?;
    collect_locked(&locked)?;
    let mut containers: Vec<String> =
        store.leases(name)?.into_iter().map(|lease| lease.container).collect();
    if !containers.is_empty() {
        containers.sort();
        containers.dedup();
        return Err(Error::InUse { name: name.to_owned(), containers });
    }
    locked.remove(name)?;
    let collected = collect_locked(&locked)?;
    refresh_rules(&locked)?;
    Ok(Collected { networks: vec![name.to_owned()], ..collected })
}

/// Removes all networks that no container uses, and everything that is left of dead containers.
pub fn prune(store: &Store) -> Result<Collected> {
    let locked = store.lock()?;
    let mut collected = collect_locked(&locked)?;
    for network in store.networks()? {
        if store.lease_names(&network.name)?.is_empty() {
            locked.remove(&network.name)?;
            collected.networks.push(network.name);
        }
    }
    let rest = collect_locked(&locked)?;
    collected.interfaces.extend(rest.interfaces);
    refresh_rules(&locked)?;
    Ok(collected)
}

/// Rules follow the networks; without any network there are none.
fn refresh_rules(locked: &LockedStore<'_>) -> Result<()> {
    let store = locked.store();
    if !store.networks()?.is_empty() {
        return ensure_rules(Some(locked), store);
    }
    crate::publish::forget_transparent(store)?;
    let label = store.label();
    if firewall::carries(Family::Inet, label, None)? {
        firewall::apply(label, &format!("delete table inet {label}\n"))?;
    }
    Ok(())
}

fn sort(subnets: &[IpNet]) -> Result<(Option<Ipv4Net>, Option<Ipv6Net>)> {
    let (mut four, mut six) = (None, None);
    for subnet in subnets {
        let twice = match subnet.trunc() {
            IpNet::V4(net) => four.replace(net).is_some(),
            IpNet::V6(net) => six.replace(net).is_some(),
        };
        if twice {
            let why = "is the second subnet of its address family";
            return Err(Error::invalid("subnet", subnet.to_string(), why));
        }
    }
    Ok((four, six))
}

/// The smallest number whose bridge no other network and nobody else on the host has.
fn free_number(kernel: &mut Connection, existing: &[Network]) -> Result<u32> {
    for number in 0..NETWORKS {
        let name = format!("minirun{number}");
        let used = existing.iter().any(|network| network.number == number);
        if !used && kernel.find_link(&name).is_ok_and(|link| link.is_none()) {
            return Ok(number);
        }
    }
    Err(Error::Exhausted(format!("there are {NETWORKS} networks already; `minirun network prune`")))
}

/// A network with the first subnet of the pool that overlaps with nothing.
fn free_network(
    kernel: &mut Connection,
    existing: &[Network],
    wish: &Wish,
    number: u32,
    ipv6: Option<Ipv6Net>,
) -> Result<Network> {
    for subnet in POOL.subnets(POOL_PREFIX).into_iter().flatten() {
        let network = wish.settle(number, subnet, ipv6)?;
        let checked =
            check_others(existing, &network).and_then(|()| check_routes(kernel, &network));
        match checked {
            Err(Error::Conflict { subnet: clash, .. }) if clash == subnet.to_string() => {}
            Ok(()) => return Ok(network),
            Err(error) => return Err(error),
        }
    }
    let text = format!("no subnet of {POOL} is free; choose one elsewhere with --subnet");
    Err(Error::Exhausted(text))
}

fn check_others(existing: &[Network], network: &Network) -> Result<()> {
    for other in existing {
        for theirs in other.subnets() {
            let clash = network.subnets().find(|o| o.contains(&theirs) || theirs.contains(o));
            if let Some(ours) = clash {
                let with = format!("{theirs} of network {}", other.name);
                return Err(Error::Conflict { subnet: ours.to_string(), with });
            }
        }
    }
    Ok(())
}

/// A unique local IPv6 subnet (RFC 4193): 40 bits from this machine's identity, 16 from the number.
fn local_subnet(number: u32) -> Ipv6Net {
    let identity = std::fs::read("/etc/machine-id").ok().filter(|id| !id.is_empty());
    let identity = identity
        .or_else(|| std::fs::read("/proc/sys/kernel/random/boot_id").ok())
        .unwrap_or_default();
    let hash = u128::from(crate::fingerprint::of(&identity) & 0xff_ffff_ffff);
    let bits = (0xfd << 120) | (hash << 80) | (u128::from(number & 0xffff) << 64);
    Ipv6Net::new_assert(bits.into(), 64)
}
