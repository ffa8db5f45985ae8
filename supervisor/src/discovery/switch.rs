//! The brain's part: a bridge in a network namespace of its own, and a cable to each container.
//!
//! # What the kernel offers
//! A network namespace lives as long as something refers to it; a descriptor is enough. A veth
//! pair is a cable whose ends can be in two namespaces, and vanishes with either of them.
//!
//! # By hand
//! ```text
//! ip netns add switch
//! ip -n switch link add bridge0 type bridge
//! ip -n switch addr add 10.77.0.1/16 dev bridge0 && ip -n switch link set bridge0 up
//! ip -n switch link add v1 type veth peer name eth0 netns /proc/PID/ns/net
//! ip -n switch link set v1 master bridge0 up
//! nsenter -t PID -n ip addr add 10.77.64.5/16 dev eth0 && nsenter -t PID -n ip link set eth0 up
//! nsenter -t PID -n ip route add default via 10.77.0.1
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use ipnet::{IpNet, Ipv4Net};
use linux::Errno;
use linux::namespace::{self, Kind, Namespaces};
use minisup_core::name::InstanceId;
use network::hardware::HardwareAddress;
use network::netlink::{Batch, Bridge, Connection, LinkChange, Veth};

use super::net::Net;

/// The bridge's name; it has its namespace for itself.
pub(super) const BRIDGE: &str = "bridge0";

/// A network of the project.
#[derive(Clone, Debug)]
pub(crate) struct Switch {
    namespace: Arc<OwnedFd>,
    net: Net,
    bridge: u32,
}

/// The addresses that instances have, by the keys of their networks.
#[derive(Debug, Default)]
pub(crate) struct Addresses(BTreeMap<InstanceId, BTreeMap<String, Ipv4Addr>>);

impl Addresses {
    fn taken(&self, key: &str) -> BTreeMap<Ipv4Addr, &InstanceId> {
        let pairs =
            self.0.iter().filter_map(|(id, all)| all.get(key).map(|address| (*address, id)));
        pairs.collect()
    }

    /// One for an instance that has none in this network: the one that it must have, which none
    /// that `lives` may have, or any that is free.
    pub(crate) fn give(
        &mut self,
        id: &InstanceId,
        net: &Net,
        fixed: Option<Ipv4Addr>,
        lives: impl Fn(&InstanceId) -> bool,
    ) -> Result<Ipv4Addr> {
        let key = net.key();
        let taken = self.taken(&key);
        let address = match fixed {
            Some(address) => match taken.get(&address).filter(|other| lives(other)) {
                Some(other) => {
                    return Err(anyhow!("{address} in the network {} is {other}'s", net.name));
                }
                None => address,
            },
            None => {
                let all = taken.keys().copied().collect();
                net.of_instance(&id.to_string(), &all)
                    .with_context(|| format!("no address of {} is left", net.name))?
            }
        };
        self.0.entry(id.clone()).or_default().insert(key, address);
        Ok(address)
    }

    /// Those that an instance has had since before our time.
    pub(crate) fn note(&mut self, id: &InstanceId, addresses: BTreeMap<String, Ipv4Addr>) {
        self.0.insert(id.clone(), addresses);
    }

    /// Those of an instance.
    pub(crate) fn of(&self, id: &InstanceId) -> BTreeMap<String, Ipv4Addr> {
        self.0.get(id).cloned().unwrap_or_default()
    }

    /// Who has which address in a network.
    pub(crate) fn in_network(&self, key: &str) -> impl Iterator<Item = (&InstanceId, Ipv4Addr)> {
        self.0.iter().filter_map(move |(id, all)| all.get(key).map(|address| (id, *address)))
    }

    pub(crate) fn forget(&mut self, id: &InstanceId) {
        self.0.remove(id);
    }
}

/// A namespace without anything in it. Made by a thread that ends with it, for a thread that has
/// moved to another namespace should do nothing else.
pub(crate) fn make_namespace() -> Result<OwnedFd> {
    let made = std::thread::spawn(|| {
        namespace::unshare(Namespaces::from_iter([Kind::Network]))?;
        namespace::current(Kind::Network)
    });
    let joined = made.join().map_err(|_| anyhow!("the thread that makes a network has failed"))?;
    joined.context("cannot make a network namespace")
}

impl Switch {
    /// Takes a namespace over, new or with a bridge in it already.
    pub(crate) fn open(namespace: Arc<OwnedFd>, net: &Net) -> Result<Switch> {
        let mut inside = Connection::open_in(namespace.as_fd())?;
        let bridge = match inside.find_link(BRIDGE)? {
            Some(link) => link.index,
            None => {
                let mut batch = Batch::new();
                let hardware = HardwareAddress::for_ipv4(net.gateway);
                batch.add_bridge(Bridge { name: BRIDGE, hardware, mtu: net.mtu, alias: &net.name });
                inside.execute(&batch)?;
                inside.link(BRIDGE)?.index
            }
        };
        let mut batch = Batch::new();
        batch.add_address(bridge, wide(net.gateway, net.subnet.prefix_len())?);
        batch.change_link(bridge, LinkChange::Up(true));
        inside.execute(&batch)?;
        Ok(Switch { namespace, net: net.clone(), bridge })
    }

    /// The namespace.
    pub(crate) fn namespace(&self) -> &Arc<OwnedFd> {
        &self.namespace
    }

    /// Has these addresses of services, and none else.
    pub(crate) fn take(&self, addresses: &BTreeSet<Ipv4Addr>) -> Result<()> {
        let mut inside = Connection::open_in(self.namespace.as_fd())?;
        let mut batch = Batch::new();
        for there in inside.addresses()?.iter().filter(|there| there.link == self.bridge) {
            if let IpNet::V4(one) = there.address
                && one.prefix_len() == 32
                && !addresses.contains(&one.addr())
            {
                batch.delete_address(self.bridge, there.address).unless(Errno::EADDRNOTAVAIL);
            }
        }
        for address in addresses {
            batch.add_address(self.bridge, wide(*address, 32)?);
        }
        Ok(inside.execute(&batch)?)
    }

    /// Lays a cable to a container, which gets that address behind that interface.
    pub(crate) fn connect(
        &self,
        container: BorrowedFd<'_>,
        address: Ipv4Addr,
        interface: &str,
    ) -> Result<()> {
        let name = format!("v{:08x}", u32::from(address));
        let mut here = Connection::open_in(self.namespace.as_fd())?;
        let mut batch = Batch::new();
        // What a container with this address has left: the kernel ends namespaces in its own time.
        batch.delete_link(&name).unless(Errno::ENODEV);
        batch.add_veth(Veth {
            name: &name,
            controller: self.bridge,
            peer_namespace: Some(container),
            peer_name: interface,
            // It follows from the address, so that no neighbour remembers another's.
            peer_hardware: Some(HardwareAddress::for_ipv4(address)),
            peer_controller: None,
            mtu: self.net.mtu,
            alias: &self.net.name,
        });
        here.execute(&batch)?;
        let mut there = Connection::open_in(container)?;
        let link = there.link(interface)?.index;
        let mut batch = Batch::new();
        batch.add_address(link, wide(address, self.net.subnet.prefix_len())?);
        batch.change_link(link, LinkChange::Up(true));
        Ok(there.execute(&batch)?)
    }

    /// Sends what a container has for the rest of the world to this network.
    pub(crate) fn lead_out(&self, container: BorrowedFd<'_>, interface: &str) -> Result<()> {
        let mut there = Connection::open_in(container)?;
        let link = there.link(interface)?.index;
        let mut batch = Batch::new();
        batch.add_default_route(self.net.gateway.into(), link);
        Ok(there.execute(&batch)?)
    }
}

fn wide(address: Ipv4Addr, prefix: u8) -> Result<IpNet> {
    Ok(IpNet::V4(Ipv4Net::new(address, prefix)?))
}
