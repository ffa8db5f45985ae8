//! Bringing a network up: its bridges, the gateway's addresses, the rules.
//!
//! # What the kernel offers
//! A bridge is a switch in software: interfaces become its ports, and the bridge itself is an
//! interface of the host on that switch. It takes 1023 ports.
//!
//! # What we do
//! The first bridge has the gateway's addresses. A network with more containers than fit gets more
//! bridges, each joined to the first by a cable of its own (a veth pair between two bridges), so
//! that all of them are one Ethernet and containers notice nothing.
//!
//! A bridge is brought up last of all, so that one that is up is complete; one that is down was left
//! by a process that died in between, and is made anew. A bridge stays when its last container goes: making it anew would cost the next container
//! milliseconds. `network prune` removes what no container uses.

use linux::Errno;

use crate::definition::Network;
use crate::error::{During, Error, Result};
use crate::firewall::{self, DroppingChain, Family};
use crate::hardware::HardwareAddress;
use crate::host::{self, HostChange};
use crate::netlink::{Batch, Bridge, Connection, LinkChange, Veth};
use crate::rules;
use crate::store::{LockedStore, Store};

/// What raising a network did besides making bridges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Raised {
    /// Settings of the host that had to be changed.
    pub changes: Vec<HostChange>,
    /// What may stand in the way, for people.
    pub warnings: Vec<String>,
}

/// What the aliases of a network's interfaces say.
pub(crate) fn alias(store: &Store, network: &Network) -> String {
    format!("{} network {}", store.label(), network.name)
}

/// The number of the bridge for `shard`, when it is there and up.
pub(crate) fn find(kernel: &mut Connection, network: &Network, shard: u32) -> Result<Option<u32>> {
    let name = network.bridge_of(shard);
    let link = kernel.find_link(&name).during(|| format!("looking for the bridge {name}"))?;
    Ok(link.filter(|link| link.up).map(|link| link.index))
}

/// Makes the bridge for `shard` of a network, and the first one, which all others need.
pub(crate) fn raise(
    locked: &LockedStore<'_>,
    kernel: &mut Connection,
    network: &Network,
    shard: u32,
) -> Result<Raised> {
    let store = locked.store();
    let mut raised = Raised::default();
    if find(kernel, network, 0)?.is_none() {
        remove_link(kernel, &network.bridge())?;
        check_routes(kernel, network)?;
        raised.changes = make_first(kernel, network, &alias(store, network))?;
        if !network.internal {
            let chains = firewall::dropping_chains(store.label())?;
            raised.warnings.extend(chains.iter().map(|chain| warning(chain, network)));
            let legacy = firewall::legacy_filters();
            raised.warnings.extend(legacy.iter().map(|program| legacy_warning(program, network)));
        }
    }
    if shard > 0 && find(kernel, network, shard)?.is_none() {
        remove_link(kernel, &network.bridge_of(shard))?;
        remove_link(kernel, &format!("{}u", network.bridge_of(shard)))?;
        make_further(kernel, network, shard, &alias(store, network))?;
    }
    Ok(raised)
}

/// Also lets the host forward: before the bridge is up, because one that is up counts as complete,
/// and after it was made, because a kernel without bridges must not be changed for nothing.
fn make_first(kernel: &mut Connection, network: &Network, alias: &str) -> Result<Vec<HostChange>> {
    let name = network.bridge();
    let step = || format!("making the bridge {name} of network {}", network.name);
    let hardware = HardwareAddress::for_ipv4(network.ipv4.gateway);
    let mut batch = Batch::new();
    batch.add_bridge(Bridge { name: &name, hardware, mtu: network.mtu, alias });
    kernel.execute(&batch).during(step)?;
    let mut finish = || {
        let index = kernel.link(&name).during(step)?.index;
        let changes = match network.internal {
            true => Vec::new(),
            false => host::allow_forwarding(network.ipv6.is_some())?,
        };
        let mut batch = Batch::new();
        for gateway in network.gateways() {
            batch.add_address(index, gateway);
        }
        batch.change_link(index, LinkChange::Up(true));
        kernel.execute(&batch).during(step)?;
        Ok(changes)
    };
    let finished = finish();
    if finished.is_err() {
        // The first error is the one to tell; a bridge that is down is made anew.
        let _ = remove_link(kernel, &name);
    }
    finished
}

fn make_further(kernel: &mut Connection, network: &Network, shard: u32, alias: &str) -> Result<()> {
    let name = network.bridge_of(shard);
    let step = || format!("making the bridge {name} of network {}", network.name);
    let [a, b] = u16::try_from(network.number).unwrap_or(u16::MAX).to_be_bytes();
    let last = u8::try_from(shard).unwrap_or(u8::MAX);
    let hardware = HardwareAddress::new([0x0a, 0x62, a, b, 0, last]);
    let mut batch = Batch::new();
    batch.add_bridge(Bridge { name: &name, hardware, mtu: network.mtu, alias });
    kernel.execute(&batch).during(step)?;
    let first = kernel.link(&network.bridge()).during(step)?.index;
    let further = kernel.link(&name).during(step)?.index;
    let mut batch = Batch::new();
    batch.add_veth(Veth {
        name: &format!("{name}u"),
        controller: first,
        peer_namespace: None,
        peer_name: &format!("{name}d"),
        peer_hardware: None,
        peer_controller: Some(further),
        mtu: network.mtu,
        alias,
    });
    kernel.execute(&batch).during(step)?;
    let lower = kernel.link(&format!("{name}d")).during(step)?.index;
    let mut batch = Batch::new();
    batch.change_link(lower, LinkChange::Up(true)).change_link(further, LinkChange::Up(true));
    kernel.execute(&batch).during(step)
}

/// Refuses a subnet that the host reaches some other way: one of the two would be cut off.
pub(crate) fn check_routes(kernel: &mut Connection, network: &Network) -> Result<()> {
    let routes = kernel.routes().during(|| "reading the host's routes".into())?;
    for subnet in network.subnets() {
        // A default route overlaps with everything and is what subnets are cut out of.
        let clash =
            routes.iter().filter(|route| route.destination.prefix_len() > 0).find(|route| {
                route.destination.contains(&subnet) || subnet.contains(&route.destination)
            });
        if let Some(route) = clash {
            let mut with = format!("the host's route to {}", route.destination);
            if let Some(gateway) = route.gateway {
                with = format!("{with} via {gateway}");
            }
            return Err(Error::Conflict { subnet: subnet.to_string(), with });
        }
    }
    Ok(())
}

/// Makes the kernel's rules those of the networks in the store.
///
/// The check costs one round trip, so it is done at every start: somebody may have flushed all
/// rules, and a container must not start on a network that is open.
pub fn ensure_rules(locked: Option<&LockedStore<'_>>, store: &Store) -> Result<()> {
    let networks = store.networks()?;
    let transparent = store.wants_transparent();
    if firewall::carries(Family::Inet, store.label(), Some(&rules::mark(&networks, transparent)))? {
        return Ok(());
    }
    // Two processes with different ideas of the networks must not write one after the other.
    let own_lock = if locked.is_none() { Some(store.lock()?) } else { None };
    let networks = store.networks()?;
    let result =
        firewall::apply(store.label(), &rules::text(store.label(), &networks, transparent));
    drop(own_lock);
    result
}

fn warning(chain: &DroppingChain, network: &Network) -> String {
    let (DroppingChain { family, table, chain }, bridge) = (chain, network.bridge());
    let remedy = match chain.as_str() {
        "FORWARD" => format!(
            "iptables -I {} -i {bridge} -j ACCEPT; iptables -I {0} -o {bridge} \
             -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
            "DOCKER-USER (or FORWARD)"
        ),
        _ if table == "firewalld" => {
            format!("firewall-cmd --permanent --zone=trusted --add-interface={bridge}")
        }
        _ => format!("let packets from and to {bridge} pass there"),
    };
    format!(
        "the chain {chain} of table {family} {table} drops forwarded packets that no rule of its own \
         accepts, and no other table can overrule it: {remedy}"
    )
}

fn legacy_warning(program: &str, network: &Network) -> String {
    let bridge = network.bridge();
    format!(
        "this host also filters with {program}, whose rules minirun does not read; if they drop \
         forwarded packets: {program} -I FORWARD -i {bridge} -j ACCEPT; {program} -I FORWARD -o \
         {bridge} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    )
}

/// Removes an interface that may be gone already.
pub(crate) fn remove_link(kernel: &mut Connection, name: &str) -> Result<()> {
    let mut batch = Batch::new();
    batch.delete_link(name).unless(Errno::ENODEV);
    kernel.execute(&batch).during(|| format!("removing the interface {name}"))
}
