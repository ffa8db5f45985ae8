//! What a network is: a name, its subnets, and who may leave it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The network that `--net bridge` means. It is made when it is first used.
pub const DEFAULT_NETWORK: &str = "bridge";

/// Ports of one bridge that containers get. The kernel's limit is 1023 (`BR_MAX_PORTS`); the rest
/// is for the cables between the bridges of one network.
pub const PORTS_PER_BRIDGE: u32 = 950;

/// The most bridges of one network: 950 ports and 69 cables still fit into 1023.
pub const BRIDGES_PER_NETWORK: u32 = 70;

/// The smallest MTU over which IPv6 works, RFC 8200 §5; IPv4 alone gets along with it too.
const SMALLEST_MTU: u32 = 1280;
const LARGEST_MTU: u32 = 65_535;

/// A network, as it is kept on disk and as `network inspect` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Its name: letters, digits, `_`, `.`, `-`.
    pub name: String,
    /// Its number on this host; the bridges are `minirun<number>`, `minirun<number>.1` …
    pub number: u32,
    /// The IPv4 side.
    pub ipv4: Subnet<Ipv4Net, Ipv4Addr>,
    /// The IPv6 side, when it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Subnet<Ipv6Net, Ipv6Addr>>,
    /// Nothing leaves it: no default route, no masquerade, no forwarding.
    pub internal: bool,
    /// The largest packet in bytes; the kernel's choice (1500) when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// One address family of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subnet<Net, Address> {
    /// All its addresses.
    pub subnet: Net,
    /// The host's own address in it.
    pub gateway: Address,
    /// Where addresses are taken from when a container asks for none in particular; everywhere
    /// when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<Net>,
    /// Addresses that are never given.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub reserved: Vec<Address>,
}

/// What someone asks for who creates a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// Its name.
    pub name: String,
    /// At most one subnet per family; without an IPv4 one a free subnet is chosen.
    pub subnets: Vec<IpNet>,
    /// At most one gateway per family; the first address when absent.
    pub gateways: Vec<IpAddr>,
    /// At most one range per family.
    pub ranges: Vec<IpNet>,
    /// Addresses never to give.
    pub reserved: Vec<IpAddr>,
    /// An IPv6 subnet is wanted; one is chosen when `subnets` has none.
    pub ipv6: bool,
    /// Nothing shall leave it.
    pub internal: bool,
    /// The largest packet in bytes.
    pub mtu: Option<u32>,
}

impl Wish {
    /// The network that this wish describes, under that number and with these subnets.
    pub(crate) fn settle(
        &self,
        number: u32,
        ipv4: Ipv4Net,
        ipv6: Option<Ipv6Net>,
    ) -> Result<Network> {
        check_name(&self.name)?;
        if let Some(mtu) = self.mtu
            && !(SMALLEST_MTU..=LARGEST_MTU).contains(&mtu)
        {
            let why = format!("must be {SMALLEST_MTU} to {LARGEST_MTU} bytes");
            return Err(Error::invalid("mtu", mtu.to_string(), why));
        }
        let no_ipv6 = |value: String| {
            Err(Error::invalid("address", value, "the network has no IPv6 subnet; add --ipv6"))
        };
        let mut four =
            Subnet { subnet: ipv4, gateway: first_host4(ipv4)?, range: None, reserved: Vec::new() };
        let mut six = ipv6.map(first_host6).transpose()?;
        for address in &self.gateways {
            match (address, &mut six) {
                (IpAddr::V4(address), _) => four.gateway = *address,
                (IpAddr::V6(address), Some(six)) => six.gateway = *address,
                (IpAddr::V6(address), None) => return no_ipv6(address.to_string()),
            }
        }
        for range in &self.ranges {
            match (range, &mut six) {
                (IpNet::V4(range), _) => four.range = Some(range.trunc()),
                (IpNet::V6(range), Some(six)) => six.range = Some(range.trunc()),
                (IpNet::V6(range), None) => return no_ipv6(range.to_string()),
            }
        }
        for address in &self.reserved {
            match (address, &mut six) {
                (IpAddr::V4(address), _) => four.reserved.push(*address),
                (IpAddr::V6(address), Some(six)) => six.reserved.push(*address),
                (IpAddr::V6(address), None) => return no_ipv6(address.to_string()),
            }
        }
        let (name, internal, mtu) = (self.name.clone(), self.internal, self.mtu);
        let network = Network { name, number, ipv4: four, ipv6: six, internal, mtu };
        network.check()?;
        Ok(network)
    }
}

impl Network {
    /// The name of its first bridge, which has the gateway's addresses.
    pub fn bridge(&self) -> String {
        format!("minirun{}", self.number)
    }

    /// The name of its bridge number `shard`.
    pub fn bridge_of(&self, shard: u32) -> String {
        if shard == 0 { self.bridge() } else { format!("minirun{}.{shard}", self.number) }
    }

    /// The bridge that the owner of this address is a port of: addresses are spread so that no
    /// bridge gets more than [`PORTS_PER_BRIDGE`] ports.
    pub fn shard_of(&self, address: Ipv4Addr) -> u32 {
        let offset = address.to_bits().saturating_sub(self.ipv4.subnet.network().to_bits());
        (offset / PORTS_PER_BRIDGE) % BRIDGES_PER_NETWORK
    }

    /// How many bridges it can have.
    pub fn shards(&self) -> u32 {
        (self.shard_of(self.ipv4.subnet.broadcast()) + 1).max(
            // A subnet that is larger than all bridges together wraps around.
            if self.ipv4.subnet.prefix_len() < 16 { BRIDGES_PER_NETWORK } else { 1 },
        )
    }

    /// The subnets.
    pub fn subnets(&self) -> impl Iterator<Item = IpNet> {
        let six = self.ipv6.as_ref().map(|six| IpNet::V6(six.subnet));
        std::iter::once(IpNet::V4(self.ipv4.subnet)).chain(six)
    }

    /// The gateway's addresses, each with the prefix of its subnet.
    pub fn gateways(&self) -> impl Iterator<Item = IpNet> {
        let prefix = self.ipv4.subnet.prefix_len();
        let four = Ipv4Net::new(self.ipv4.gateway, prefix).ok().map(IpNet::V4);
        let six = self
            .ipv6
            .as_ref()
            .and_then(|six| Ipv6Net::new(six.gateway, six.subnet.prefix_len()).ok().map(IpNet::V6));
        four.into_iter().chain(six)
    }

    fn check(&self) -> Result<()> {
        let four = &self.ipv4;
        let outside = |what, address: String, net: String| {
            Err(Error::invalid(what, address, format!("is not an address for hosts of {net}")))
        };
        if four.subnet.prefix_len() < 8 || four.subnet.prefix_len() > 30 {
            let why = "the prefix must have 8 to 30 bits";
            return Err(Error::invalid("subnet", four.subnet.to_string(), why));
        }
        if !is_host4(four.subnet, four.gateway) {
            return outside("gateway", four.gateway.to_string(), four.subnet.to_string());
        }
        if let Some(range) = four.range.filter(|range| !four.subnet.contains(range)) {
            return outside("range", range.to_string(), four.subnet.to_string());
        }
        if let Some(address) = four.reserved.iter().find(|a| !four.subnet.contains(*a)) {
            return outside("reserved address", address.to_string(), four.subnet.to_string());
        }
        let Some(six) = &self.ipv6 else { return Ok(()) };
        if six.subnet.prefix_len() < 32 || six.subnet.prefix_len() > 112 {
            let why = "the prefix must have 32 to 112 bits";
            return Err(Error::invalid("subnet", six.subnet.to_string(), why));
        }
        if !six.subnet.contains(&six.gateway) || six.gateway == six.subnet.network() {
            return outside("gateway", six.gateway.to_string(), six.subnet.to_string());
        }
        if let Some(range) = six.range.filter(|range| !six.subnet.contains(range)) {
            return outside("range", range.to_string(), six.subnet.to_string());
        }
        if let Some(address) = six.reserved.iter().find(|a| !six.subnet.contains(*a)) {
            return outside("reserved address", address.to_string(), six.subnet.to_string());
        }
        Ok(())
    }
}

/// Whether an interface may have this address: neither the subnet's own nor its broadcast address.
pub(crate) fn is_host4(net: Ipv4Net, address: Ipv4Addr) -> bool {
    net.contains(&address) && address != net.network() && address != net.broadcast()
}

fn first_host4(net: Ipv4Net) -> Result<Ipv4Addr> {
    let hosts = net.hosts().next();
    hosts.ok_or_else(|| Error::invalid("subnet", net.to_string(), "has no address for hosts"))
}

fn first_host6(net: Ipv6Net) -> Result<Subnet<Ipv6Net, Ipv6Addr>> {
    let first = net.network().to_bits().checked_add(1).map(Ipv6Addr::from_bits);
    let gateway = first
        .ok_or_else(|| Error::invalid("subnet", net.to_string(), "has no address for hosts"))?;
    Ok(Subnet { subnet: net, gateway, range: None, reserved: Vec::new() })
}

/// Refuses names that would be confusing or dangerous as file names, or that mean something else
/// in `--net`.
pub fn check_name(name: &str) -> Result<()> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let why = if name.is_empty() || name.len() > 64 {
        "must have 1 to 64 characters"
    } else if !name.bytes().all(legal) || !name.as_bytes()[0].is_ascii_alphanumeric() {
        "may have letters, digits, '_', '.' and '-', and begins with a letter or digit"
    } else if ["none", "host", "container", "ns", "pasta", "slirp4netns"].contains(&name) {
        "is the name of a mode of --net"
    } else {
        return Ok(());
    };
    Err(Error::invalid("network name", name, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish() -> Wish {
        Wish { name: "web".into(), ..Wish::default() }
    }

    fn four() -> Ipv4Net {
        "10.9.0.0/20".parse().unwrap()
    }

    #[test]
    fn the_gateway_is_the_first_address_unless_asked_otherwise() {
        let six = Some("fd00:9::/64".parse().unwrap());
        let network = wish().settle(3, four(), six).unwrap();
        let gateways: Vec<_> = network.gateways().map(|net| net.to_string()).collect();
        assert_eq!(gateways, ["10.9.0.1/20", "fd00:9::1/64"]);
        let other = Wish { gateways: vec!["10.9.0.9".parse().unwrap()], ..wish() };
        assert_eq!(other.settle(3, four(), None).unwrap().ipv4.gateway.to_string(), "10.9.0.9");
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let cases = [
            (Wish { gateways: vec![address("10.8.0.1")], ..wish() }, "gateway"),
            (Wish { gateways: vec![address("10.9.15.255")], ..wish() }, "gateway"),
            (Wish { gateways: vec![address("fd00::1")], ..wish() }, "address"),
            (Wish { ranges: vec!["10.9.0.0/16".parse().unwrap()], ..wish() }, "range"),
            (Wish { reserved: vec![address("10.9.16.1")], ..wish() }, "reserved address"),
            (Wish { mtu: Some(500), ..wish() }, "mtu"),
            (Wish { name: "../x".into(), ..wish() }, "network name"),
            (Wish { name: "host".into(), ..wish() }, "network name"),
        ];
        for (wish, expected) in cases {
            match wish.settle(0, four(), None) {
                Err(Error::Invalid { what, .. }) => assert_eq!(what, expected),
                other => panic!("{wish:?} gave {other:?}"),
            }
        }
        assert!(wish().settle(0, "10.9.0.0/31".parse().unwrap(), None).is_err());
    }

    #[test]
    fn no_bridge_gets_more_ports_than_it_has() {
        let network = wish().settle(2, four(), None).unwrap();
        let mut ports = std::collections::BTreeMap::new();
        for host in network.ipv4.subnet.hosts() {
            *ports.entry(network.shard_of(host)).or_insert(0_u32) += 1;
        }
        assert_eq!(ports.len(), 5);
        assert_eq!(network.shards(), 5);
        assert!(ports.values().all(|count| *count <= PORTS_PER_BRIDGE));
        const { assert!(PORTS_PER_BRIDGE + BRIDGES_PER_NETWORK <= 1023) };
        assert_eq!(network.bridge_of(0), "minirun2");
        assert_eq!(network.bridge_of(4), "minirun2.4");
    }
}
