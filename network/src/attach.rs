//! Connecting a container: a cable from its namespace to a bridge.
//!
//! # What the kernel offers
//! A veth pair is a cable: what enters one end leaves the other. Each end can be in another network
//! namespace.
//!
//! # What we do
//! 1. claim addresses in the store (a crash from here on leaves a claim of a dead process)
//! 2. make the bridge, if this is the network's first container
//! 3. make the cable; its far end is born inside the container, under its name
//! 4. inside: addresses, up, default route, in one request
//! 5. say in the store that it is done (from here on the cable's existence is the proof)
//!
//! The container's side is configured through a socket that was opened inside its namespace; no
//! process has to be there.
//!
//! # What goes wrong without it
//! A cable that is made in the host and then moved and renamed has three more states in which a
//! crash leaves something, and a name (`eth0`) that may clash on the way.
//!
//! # By hand
//! ```text
//! ip link add mr0a700002 type veth peer name eth0 netns /proc/PID/ns/net
//! ip link set mr0a700002 master minirun0 up
//! nsenter -t PID -n ip addr add 10.112.0.2/20 dev eth0
//! nsenter -t PID -n ip link set eth0 up
//! nsenter -t PID -n ip route add default via 10.112.0.1
//! ```

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use ipnet::IpNet;
use linux::Errno;
use serde::{Deserialize, Serialize};

use crate::bridge::{ensure_rules, find, raise, remove_link};
use crate::collect::{collect_ahead, connect, forget_neighbours};
use crate::definition::{DEFAULT_NETWORK, Network};
use crate::error::{During, Error, Result};
use crate::hardware::HardwareAddress;
use crate::host::HostChange;
use crate::lease::Lease;
use crate::netlink::{Batch, Connection, LinkChange, Veth};
use crate::networks::find_or_create_default;
use crate::store::{Claim, Store};

/// The number that the loopback interface has in every network namespace.
const LOOPBACK: u32 = 1;

/// One network that a container wants to be in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The network.
    pub network: String,
    /// The interface inside the container; `eth0`, `eth1` … in the order of requests when absent.
    pub interface: Option<String>,
    /// Addresses that it must get, at most one per family.
    pub addresses: Vec<IpAddr>,
    /// The hardware address that it must get.
    pub hardware: Option<HardwareAddress>,
}

/// A container's connections. The runtime keeps it and gives it back to [`detach`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// In the order of the requests.
    pub endpoints: Vec<Endpoint>,
    /// Settings of the host that had to be changed.
    pub changes: Vec<HostChange>,
    /// What may stand in the way, for people.
    pub warnings: Vec<String>,
}

/// A container's connection to one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// What it was given.
    pub lease: Lease,
    /// Its addresses with the prefixes of their subnets.
    pub addresses: Vec<IpNet>,
    /// The host's addresses in that network.
    pub gateways: Vec<IpAddr>,
    /// Whether the container's default route leads here.
    pub default_route: bool,
}

/// Connects the network namespace behind `netns`, which belongs to `container`.
///
/// Every network's connection is complete, or none is there: after an error everything that was
/// made is removed again. The first network that is not internal gets the default route.
pub fn attach(
    store: &Store,
    netns: BorrowedFd<'_>,
    container: &str,
    requests: &[Request],
) -> Result<Attachment> {
    check_container(container)?;
    let mut host = connect()?;
    let step = || format!("entering the network namespace of {container}");
    let mut inside = Connection::open_in(netns).during(step)?;
    let mut attachment = Attachment::default();
    for (index, request) in requests.iter().enumerate() {
        let interface = request.interface.clone().unwrap_or_else(|| format!("eth{index}"));
        let cable = Cable { store, netns, container, interface: &interface, request };
        if let Err(error) = cable.lay(&mut host, &mut inside, &mut attachment) {
            // The first error is the one to tell; what a failing removal leaves is collected.
            let _ = detach(store, &attachment);
            return Err(error);
        }
    }
    Ok(attachment)
}

/// What belongs to the laying of one cable.
struct Cable<'a> {
    store: &'a Store,
    netns: BorrowedFd<'a>,
    container: &'a str,
    interface: &'a str,
    request: &'a Request,
}

impl Cable<'_> {
    fn lay(
        &self,
        host: &mut Connection,
        inside: &mut Connection,
        attachment: &mut Attachment,
    ) -> Result<()> {
        check_interface(self.interface)?;
        let (network, lease) = self.enter(host, attachment)?;
        let default_route =
            !network.internal && attachment.endpoints.iter().all(|other| !other.default_route);
        let endpoint = endpoint(&network, lease, default_route);
        let made = self
            .join(host, &network, &endpoint.lease)
            .and_then(|()| self.configure(inside, &network, &endpoint))
            .and_then(|()| self.wake(host, &endpoint.lease))
            .and_then(|()| self.store.lock()?.commit(&endpoint.lease));
        attachment.endpoints.push(endpoint);
        made
    }

    /// The network and the container's place in it. Where `prune` has removed the default network
    /// between two of these steps, it is made once more.
    fn enter(
        &self,
        host: &mut Connection,
        attachment: &mut Attachment,
    ) -> Result<(Network, Lease)> {
        const ATTEMPTS: usize = 8;
        let mut attempt = 1;
        loop {
            let network = find_or_create_default(self.store, &self.request.network)?;
            ensure_rules(None, self.store)?;
            match self.claim(host, &network, attachment) {
                Err(Error::NotFound { .. })
                    if network.name == DEFAULT_NETWORK && attempt < ATTEMPTS =>
                {
                    attempt += 1;
                }
                claimed => return claimed.map(|lease| (network, lease)),
            }
        }
    }

    /// Addresses, and the bridge that their owner will be a port of.
    fn claim(
        &self,
        host: &mut Connection,
        network: &Network,
        attachment: &mut Attachment,
    ) -> Result<Lease> {
        let locked = self.store.lock()?;
        // `rm` may have been faster than this lock.
        self.store.network(&network.name)?;
        collect_ahead(&locked, host, network)?;
        let claim = Claim {
            container: self.container,
            interface: self.interface,
            addresses: &self.request.addresses,
            hardware: self.request.hardware,
        };
        let lease = locked.claim(network, &claim)?;
        match raise(&locked, host, network, network.shard_of(lease.ipv4)) {
            Ok(raised) => {
                attachment.changes.extend(raised.changes);
                attachment.warnings.extend(raised.warnings);
                Ok(lease)
            }
            Err(error) => {
                locked.release(&lease)?;
                Err(error)
            }
        }
    }

    fn join(&self, host: &mut Connection, network: &Network, lease: &Lease) -> Result<()> {
        let name = lease.host_interface();
        let step = || format!("connecting {} to network {}", self.container, network.name);
        let gone = || linux::Error::new("RTM_GETLINK", network.bridge(), Errno::ENODEV);
        let first = find(host, network, 0)?.ok_or_else(gone).during(step)?;
        let shard = network.shard_of(lease.ipv4);
        let controller = match shard {
            0 => first,
            shard => find(host, network, shard)?.ok_or_else(gone).during(step)?,
        };
        let mut batch = Batch::new();
        batch.add_veth(Veth {
            name: &name,
            controller,
            peer_namespace: Some(self.netns),
            peer_name: self.interface,
            peer_hardware: Some(lease.hardware),
            peer_controller: None,
            mtu: network.mtu,
            alias: &format!("{} container {}", self.store.label(), self.container),
        });
        for address in lease.addresses() {
            batch.add_neighbour(first, address, lease.hardware);
        }
        match host.execute(&batch) {
            Err(error) if error.errno == Errno::EEXIST && error.call == "RTM_NEWLINK" => {
                let value = self.interface.to_owned();
                let why = format!("exists already in the namespace of {}", self.container);
                Err(Error::Invalid { what: "interface", value, why })
            }
            other => other.during(step),
        }
    }

    fn configure(
        &self,
        inside: &mut Connection,
        network: &Network,
        endpoint: &Endpoint,
    ) -> Result<()> {
        let step =
            || format!("configuring {} of {} in {}", self.interface, self.container, network.name);
        let link = inside.link(self.interface).during(step)?.index;
        let mut batch = Batch::new();
        batch.change_link(LOOPBACK, LinkChange::Up(true));
        for address in &endpoint.addresses {
            batch.add_address(link, *address);
        }
        batch.change_link(link, LinkChange::Up(true));
        for gateway in endpoint.gateways.iter().filter(|_| endpoint.default_route) {
            batch.add_default_route(*gateway, link);
        }
        inside.execute(&batch).during(step)
    }

    /// Asks for the near end once more, which makes the kernel (6.8) notice at once that the cable
    /// has a far end now. Otherwise that is left to a worker, and what is sent before it has run is
    /// lost: a lost SYN is only repeated after a second.
    fn wake(&self, host: &mut Connection, lease: &Lease) -> Result<()> {
        let name = lease.host_interface();
        host.link(&name).during(|| format!("looking for the interface {name}")).map(drop)
    }
}

fn endpoint(network: &Network, lease: Lease, default_route: bool) -> Endpoint {
    let prefixes = network.subnets().map(|subnet| subnet.prefix_len());
    let addresses =
        lease.addresses().zip(prefixes).filter_map(|(ip, prefix)| IpNet::new(ip, prefix).ok());
    Endpoint {
        addresses: addresses.collect(),
        gateways: network.gateways().map(|gateway| gateway.addr()).collect(),
        default_route,
        lease,
    }
}

/// Disconnects a container and frees its addresses. What is gone already is no error; what cannot
/// be removed does not stop the rest, and the first such error is told at the end.
///
/// Removing a cable waits for the kernel (10 ms and more), so this is for `delete`, where somebody
/// asked for it. After the end of a container that nobody deletes, the kernel removes the cable
/// with the namespace, and the next command collects the lease.
pub fn detach(store: &Store, attachment: &Attachment) -> Result<()> {
    let mut host = connect()?;
    let mut first_error = Ok(());
    for endpoint in &attachment.endpoints {
        let result = detach_one(store, &mut host, &endpoint.lease);
        if first_error.is_ok() {
            first_error = result;
        }
    }
    first_error
}

fn detach_one(store: &Store, host: &mut Connection, lease: &Lease) -> Result<()> {
    if !store.lock()?.holds(lease) {
        return Ok(());
    }
    // Without the lock: the lease still holds the address, and others need not wait.
    remove_link(host, &lease.host_interface())?;
    if let Ok(network) = store.network(&lease.network) {
        forget_neighbours(host, &network, lease.ipv4.into(), lease.ipv6.map(IpAddr::V6))?;
    }
    store.lock()?.release(lease)
}

/// Disconnects a container of which only the name is known.
pub fn detach_container(store: &Store, container: &str) -> Result<()> {
    let mut host = connect()?;
    for network in store.lease_dirs()? {
        for lease in store.leases(&network)?.iter().filter(|lease| lease.container == container) {
            detach_one(store, &mut host, lease)?;
        }
    }
    Ok(())
}

/// Frees the addresses of a container whose cables the kernel has removed already, and leaves the
/// others to the next command: never waits for the kernel.
pub fn release_if_gone(store: &Store, attachment: &Attachment) -> Result<()> {
    let mut host = connect()?;
    for endpoint in &attachment.endpoints {
        let lease = &endpoint.lease;
        let name = lease.host_interface();
        let link = host.find_link(&name).during(|| format!("looking for the interface {name}"))?;
        if link.is_none() {
            detach_one(store, &mut host, lease)?;
        }
    }
    Ok(())
}

fn check_container(id: &str) -> Result<()> {
    if id.is_empty() || id.contains(char::is_control) {
        return Err(Error::invalid("container", id, "has no usable name"));
    }
    Ok(())
}

/// dev_valid_name() of the kernel, plus: nothing that a shell or a `%d` pattern would change.
fn check_interface(name: &str) -> Result<()> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if name.is_empty() || name.len() > 15 || !name.bytes().all(legal) || name.starts_with('.') {
        let why = "must be 1 to 15 letters, digits, '_', '.' or '-'";
        return Err(Error::invalid("interface", name, why));
    }
    if name == "lo" {
        return Err(Error::invalid("interface", name, "is the loopback interface"));
    }
    Ok(())
}

impl Attachment {
    /// The container's addresses in all networks, the one with the default route first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut endpoints: Vec<&Endpoint> = self.endpoints.iter().collect();
        endpoints.sort_by_key(|endpoint| !endpoint.default_route);
        endpoints.iter().flat_map(|endpoint| endpoint.lease.addresses()).collect()
    }

    /// What ties an interface of the host to this container, for those who read `ip link`.
    pub fn host_interfaces(&self) -> Vec<String> {
        self.endpoints.iter().map(|endpoint| endpoint.lease.host_interface()).collect()
    }
}
