//! Services find each other: networks of the project's own, and names in them.
//!
//! ```text
//!   web.1 ── eth0 ─┐                       ┌ 10.77.0.1     DNS
//!   web.2 ── eth0 ─┼─ bridge, in a network ┼ 10.77.12.3    service api, carried by the data plane
//!   api.1 ── eth0 ─┘  namespace of its own └ 10.77.40.9    service web, likewise
//! ```
//!
//! Each network is a bridge in a network namespace that belongs to nobody's process, only to a
//! descriptor that the keeper holds: when the project goes nothing is left. What is in two namespaces
//! has no way from one to the other, so networks are kept apart by the kernel and not by rules; the
//! host sees only the cable by which a network that is not internal leads out ([`uplink`]). A
//! service's address is one of the bridge's; the data plane listens there,
//! on the ports that the service publishes or exposes, or turns out to listen on ([`doors`]), so that
//! requests between services are balanced, repeated and parked like those from outside.
//!
//! Why not listen inside each container, at a loopback address? An application that listens at
//! `0.0.0.0:8080` listens at every address of its namespace: the data plane could not have port
//! 8080 there for *another* service, and its clients would reach the wrong one.

pub(crate) mod doors;
mod forward;
pub(crate) mod listening;
pub(crate) mod names;
pub(crate) mod net;
pub(crate) mod server;
pub(crate) mod switch;
pub(crate) mod uplink;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::model::Protocol;
use net::Net;

/// Who can be found in a network, as the brain tells the data plane.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Directory {
    /// The project: names end with `.PROJECT.internal`, or with nothing.
    pub(crate) project: String,
    /// The network.
    pub(crate) net: Net,
    /// The services that can be reached in it.
    pub(crate) services: BTreeMap<String, Entry>,
    /// The containers in it.
    pub(crate) members: BTreeMap<Ipv4Addr, Member>,
}

/// A container that asks.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Member {
    /// The [keys](Net::key) of its networks, of which this is one, in its order.
    pub(crate) networks: Vec<String>,
    /// Whom to ask for other names in its name; none is whom the host asks.
    pub(crate) servers: Vec<IpAddr>,
}

impl Directory {
    /// The service of that name, which may be one of its others.
    pub(crate) fn find(&self, name: &str) -> Option<(&str, &Entry)> {
        let own = self.services.get_key_value(name);
        let other = || self.services.iter().find(|(_, entry)| entry.aliases.contains(name));
        own.or_else(other).map(|(name, entry)| (name.as_str(), entry))
    }
}

/// A service that can be found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Where the data plane listens for it.
    pub(crate) address: Ipv4Addr,
    /// At which ports, and what is spoken there.
    pub(crate) ports: Vec<(u16, Protocol)>,
    /// Other names that it is found by.
    #[serde(default)]
    pub(crate) aliases: BTreeSet<String>,
    /// Its name leads to its replicas, not to its address.
    #[serde(default)]
    pub(crate) direct: bool,
}
