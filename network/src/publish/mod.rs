//! Publishing: a port of the host that leads into a container.
//!
//! # What the kernel offers
//! A packet filter can rewrite the destination of packets (DNAT) before the host's firewall sees
//! them as its own. That is fast, and it is why a port that Docker publishes is open to the world
//! although ufw says it is closed: such packets are forwarded, and `INPUT` rules never see them.
//!
//! # What we do
//! A published port is an ordinary listening socket. The host's firewall rules for input apply,
//! `ss -l` shows it, a port that is taken is an error at once, and connections from the host itself
//! work like all others. A small process of its own, one for each container with published ports,
//! passes the bytes on; it ends with the container.
//!
//! The container still sees the client's address: the forwarder speaks to it in the client's name
//! (`IP_TRANSPARENT`). The container's answer then goes to the client's address, by way of the
//! gateway, which is this host. There a rule (`socket transparent`) recognizes packets that belong
//! to such a socket and marks them, and a routing rule says that marked packets are for the host
//! itself. So the answer ends in the forwarder, which passes it on.
//!
//! # Where the container sees the host's address instead
//! * the client is the host itself, by 127.0.0.1 or ::1: such addresses mean nothing elsewhere
//! * the client is on the same network as the container: its answer would go there directly
//! * the client speaks IPv6 and the container has IPv4 only
//! * the host has no `nft` or no `nft_socket`; `attach` warns then
//!
//! # What goes wrong without it
//! With a forwarder in its own name, every request in the container's log comes from the gateway,
//! and limits by client address lock everybody out at once.

mod holder;
mod listen;
mod serve;
mod stream;
mod udp;
mod wish;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use ipnet::IpNet;
use linux::Errno;
use linux::inet::Transport;
use serde::{Deserialize, Serialize};

use crate::attach::Attachment;
use crate::bridge::ensure_rules;
use crate::error::{During, Error, Result};
use crate::netlink::{Batch, Connection, MarkRule};
use crate::rules::TRANSPARENT_MARK;
use crate::store::Store;

pub use listen::listen;
pub use serve::{serve, serve_inherited, start};
pub use wish::{HostPort, Publication, parse};

/// The routing table for packets of transparent sockets, and the place of its rule: before the main
/// table (32766).
const TABLE: u8 = 177;
const PRIORITY: u32 = 17_700;
const LOOPBACK: u32 = 1;

/// A listening socket and where it leads.
#[derive(Debug)]
pub struct Published {
    /// The socket.
    pub socket: OwnedFd,
    /// Where it listens, with the port that it got.
    pub at: SocketAddr,
    /// Where it leads.
    pub target: Target,
}

/// Where a published port leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// TCP or UDP.
    #[serde(with = "transport_name")]
    pub transport: Transport,
    /// The container's addresses, at most one per family, with the prefixes of their subnets.
    pub addresses: Vec<IpNet>,
    /// The container's port.
    pub port: u16,
    /// Whether to speak in the client's name.
    pub transparent: bool,
}

impl Target {
    /// The container's address for a client, and the address to speak as, if it can be the
    /// client's.
    pub fn towards(&self, client: IpAddr) -> Option<(SocketAddr, Option<IpAddr>)> {
        let client = client.to_canonical();
        let same = self.addresses.iter().find(|net| net.addr().is_ipv4() == client.is_ipv4());
        let target = same.or(self.addresses.first())?;
        let speakable = self.transparent
            && same.is_some()
            && !client.is_loopback()
            && !is_link_local(client)
            && !self.addresses.iter().any(|net| net.contains(&client));
        Some((SocketAddr::new(target.addr(), self.port), speakable.then_some(client)))
    }
}

/// Such an address needs an interface to mean something, and the container's is another one.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ipv4) => ipv4.is_link_local(),
        IpAddr::V6(ipv6) => ipv6.is_unicast_link_local(),
    }
}

/// The container's side of what is published: the network that has the default route.
pub fn target_addresses(attachment: &Attachment) -> Result<Vec<IpNet>> {
    let endpoint = attachment.endpoints.iter().find(|endpoint| endpoint.default_route);
    let endpoint = endpoint.or(attachment.endpoints.first());
    endpoint.map(|endpoint| endpoint.addresses.clone()).ok_or_else(|| Error::Unsupported {
        what: "publishing a port".into(),
        needs: "a bridge network: without one the container has no address (with --net host its \
                ports are the host's already)"
            .into(),
    })
}

/// Makes the host able to carry transparent sockets. Where it cannot, the text says why, and
/// containers see the host's address instead of their clients'.
pub fn allow_transparent(store: &Store) -> Result<Option<String>> {
    let flag = store.transparent_flag();
    let known = flag.exists();
    if !known {
        std::fs::write(&flag, b"").map_err(Error::file("making", &flag))?;
    }
    if let Err(error) = ensure_rules(None, store) {
        if known {
            return Err(error);
        }
        std::fs::remove_file(&flag).map_err(Error::file("removing", &flag))?;
        ensure_rules(None, store)?;
        return Ok(Some(format!(
            "containers see the host's address instead of their clients': {}",
            crate::in_one_line(&error)
        )));
    }
    let mut kernel = crate::collect::connect()?;
    let step = || "routing the packets of transparent sockets to this host".to_owned();
    for ipv6 in [false, true] {
        if ipv6 && !std::path::Path::new("/proc/sys/net/ipv6").exists() {
            continue;
        }
        if !kernel.has_rule(rule(ipv6)).during(step)? {
            let mut batch = Batch::new();
            batch.add_local_everything(TABLE, LOOPBACK, ipv6);
            batch.add_rule(rule(ipv6)).unless(Errno::EEXIST);
            kernel.execute(&batch).during(step)?;
        }
    }
    Ok(None)
}

/// Takes back what [`allow_transparent`] did: nobody publishes any more.
pub(crate) fn forget_transparent(store: &Store) -> Result<()> {
    let flag = store.transparent_flag();
    if !flag.exists() {
        return Ok(());
    }
    let step = || "removing the routing rule of transparent sockets".to_owned();
    let mut kernel: Connection = crate::collect::connect()?;
    for ipv6 in [false, true] {
        if kernel.has_rule(rule(ipv6)).during(step)? {
            let mut batch = Batch::new();
            batch.delete_rule(rule(ipv6)).unless(Errno::ENOENT);
            batch.delete_local_everything(TABLE, LOOPBACK, ipv6).unless(Errno::ESRCH);
            kernel.execute(&batch).during(step)?;
        }
    }
    std::fs::remove_file(&flag).map_err(Error::file("removing", &flag))
}

fn rule(ipv6: bool) -> MarkRule {
    MarkRule { mark: TRANSPARENT_MARK, table: TABLE, priority: PRIORITY, ipv6 }
}

/// `tcp` and `udp`, for people and for files.
pub fn name(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    }
}

mod transport_name {
    use linux::inet::Transport;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Transport, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(super::name(*value))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Transport, D::Error> {
        match String::deserialize(from)?.as_str() {
            "tcp" => Ok(Transport::Tcp),
            "udp" => Ok(Transport::Udp),
            other => Err(serde::de::Error::custom(format!("no such transport: {other}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_named_where_its_answer_would_come_back() {
        let target = Target {
            transport: Transport::Tcp,
            addresses: vec!["10.1.0.5/24".parse().unwrap(), "fd00::5/64".parse().unwrap()],
            port: 80,
            transparent: true,
        };
        for (client, to, speaks) in [
            ("192.0.2.9", "10.1.0.5:80", true),
            ("::ffff:192.0.2.9", "10.1.0.5:80", true),
            ("fd00:2::9", "[fd00::5]:80", true),
            ("127.0.0.1", "10.1.0.5:80", false),
            ("::1", "[fd00::5]:80", false),
            ("10.1.0.6", "10.1.0.5:80", false),
            ("fe80::1", "[fd00::5]:80", false),
        ] {
            let client: IpAddr = client.parse().unwrap();
            let expected = speaks.then_some(client.to_canonical());
            assert_eq!(target.towards(client), Some((to.parse().unwrap(), expected)), "{client}");
        }
        let four = Target { addresses: vec!["10.1.0.5/24".parse().unwrap()], ..target };
        let (to, speaker) = four.towards("fd00:2::9".parse().unwrap()).unwrap();
        assert_eq!((to.to_string(), speaker), ("10.1.0.5:80".into(), None));
    }
}
