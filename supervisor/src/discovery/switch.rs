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
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use ipnet::{IpNet, Ipv4Net};
use linux::namespace::{self, Kind, Namespaces};
use minisup_core::name::InstanceId;
use network::hardware::HardwareAddress;
use network::netlink::{Batch, Bridge, Connection, LinkChange, Veth};

use super::address;

/// The bridge's name; it has its namespace for itself.
const BRIDGE: &str = "bridge0";
/// A container's end of the cable.
const INSIDE: &str = "eth0";

/// The project's network.
#[derive(Clone, Debug)]
pub(crate) struct Switch {
    namespace: Arc<OwnedFd>,
    bridge: u32,
}

/// The addresses that instances have.
#[derive(Debug, Default)]
pub(crate) struct Addresses(BTreeMap<InstanceId, Ipv4Addr>);

impl Addresses {
    /// One for an instance that has none.
    pub(crate) fn give(&mut self, id: &InstanceId) -> Option<Ipv4Addr> {
        let taken: BTreeSet<Ipv4Addr> = self.0.values().copied().collect();
        let address = address::of_instance(&id.to_string(), &taken)?;
        self.0.insert(id.clone(), address);
        Some(address)
    }

    /// One that an instance has had since before our time.
    pub(crate) fn note(&mut self, id: &InstanceId, address: Ipv4Addr) {
        self.0.insert(id.clone(), address);
    }

    pub(crate) fn of(&self, id: &InstanceId) -> Option<Ipv4Addr> {
        self.0.get(id).copied()
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
    pub(crate) fn open(namespace: Arc<OwnedFd>) -> Result<Switch> {
        let mut inside = Connection::open_in(namespace.as_fd())?;
        let bridge = match inside.find_link(BRIDGE)? {
            Some(link) => link.index,
            None => {
                let mut batch = Batch::new();
                let hardware = HardwareAddress::for_ipv4(address::GATEWAY);
                batch.add_bridge(Bridge { name: BRIDGE, hardware, mtu: None, alias: "minisup" });
                inside.execute(&batch)?;
                inside.link(BRIDGE)?.index
            }
        };
        let mut batch = Batch::new();
        batch.add_address(bridge, net(address::GATEWAY, address::PREFIX)?);
        batch.change_link(bridge, LinkChange::Up(true));
        inside.execute(&batch)?;
        Ok(Switch { namespace, bridge })
    }

    /// The namespace.
    pub(crate) fn namespace(&self) -> &Arc<OwnedFd> {
        &self.namespace
    }

    /// Takes the addresses of services.
    pub(crate) fn take(&self, addresses: impl Iterator<Item = Ipv4Addr>) -> Result<()> {
        let mut batch = Batch::new();
        for address in addresses {
            batch.add_address(self.bridge, net(address, 32)?);
        }
        Ok(Connection::open_in(self.namespace.as_fd())?.execute(&batch)?)
    }

    /// Lays a cable to a container, which gets that address.
    pub(crate) fn connect(&self, container: BorrowedFd<'_>, address: Ipv4Addr) -> Result<()> {
        let name = format!("v{:08x}", u32::from(address));
        let mut here = Connection::open_in(self.namespace.as_fd())?;
        let mut batch = Batch::new();
        batch.add_veth(Veth {
            name: &name,
            controller: self.bridge,
            peer_namespace: Some(container),
            peer_name: INSIDE,
            peer_hardware: None,
            peer_controller: None,
            mtu: None,
            alias: "minisup",
        });
        here.execute(&batch)?;
        let mut there = Connection::open_in(container)?;
        let link = there.link(INSIDE)?.index;
        let mut batch = Batch::new();
        batch.add_address(link, net(address, address::PREFIX)?);
        batch.change_link(link, LinkChange::Up(true));
        Ok(there.execute(&batch)?)
    }
}

fn net(address: Ipv4Addr, prefix: u8) -> Result<IpNet> {
    Ok(IpNet::V4(Ipv4Net::new(address, prefix)?))
}
