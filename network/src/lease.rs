//! A lease: the addresses that one container has in one network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::hardware::HardwareAddress;
use crate::process::Process;

/// What a container has been given in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The network.
    pub network: String,
    /// The container.
    pub container: String,
    /// The interface inside the container.
    pub interface: String,
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address, when the network has IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
    /// Its hardware address.
    pub hardware: HardwareAddress,
    /// Who is making the interface, until it is made.
    pub claimant: Process,
}

/// What the name of a lease's file tells, so that free addresses are found without opening files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LeaseName {
    pub(crate) ipv4: Ipv4Addr,
    pub(crate) ipv6: Option<Ipv6Addr>,
    /// The interface is still being made.
    pub(crate) pending: bool,
}

impl LeaseName {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (addresses, pending) = match name.strip_suffix('~') {
            Some(addresses) => (addresses, true),
            None => (name, false),
        };
        let (ipv4, ipv6) = match addresses.split_once(',') {
            Some((ipv4, ipv6)) => (ipv4, Some(ipv6.parse().ok()?)),
            None => (addresses, None),
        };
        Some(Self { ipv4: ipv4.parse().ok()?, ipv6, pending })
    }

    pub(crate) fn text(self) -> String {
        let ipv6 = self.ipv6.map_or_else(String::new, |ipv6| format!(",{ipv6}"));
        format!("{}{ipv6}{}", self.ipv4, if self.pending { "~" } else { "" })
    }
}

impl Lease {
    pub(crate) fn name(&self, pending: bool) -> LeaseName {
        LeaseName { ipv4: self.ipv4, ipv6: self.ipv6, pending }
    }

    /// The name of the host's end of its cable.
    pub fn host_interface(&self) -> String {
        host_interface(self.ipv4)
    }

    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        std::iter::once(IpAddr::V4(self.ipv4)).chain(self.ipv6.map(IpAddr::V6))
    }
}

/// The name of the host's end of the cable to the owner of that address. No two networks of a host
/// overlap, so the address makes the name unique, and it is found without asking any file.
pub(crate) fn host_interface(address: Ipv4Addr) -> String {
    format!("mr{:08x}", address.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_say_which_addresses_are_given() {
        for text in ["10.9.0.5", "10.9.0.5~", "10.9.0.5,fd00::5", "10.9.0.5,fd00::5~"] {
            assert_eq!(LeaseName::parse(text).unwrap().text(), text);
        }
        for text in ["hand", ".new", "10.9.0", "10.9.0.5,", "10.9.0.5~~", ""] {
            assert_eq!(LeaseName::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn interface_names_fit_into_the_kernels_fifteen_bytes() {
        let name = host_interface(Ipv4Addr::new(255, 255, 255, 255));
        assert_eq!(name, "mrffffffff");
        assert!(name.len() <= 15);
    }
}
