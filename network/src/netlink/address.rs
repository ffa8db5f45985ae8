//! IP addresses of interfaces.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_bindings::rt_addr::{
    AddrAttrs, IfaFlags, Ifaddrmsg, OpDeladdrDo, OpGetaddrDump, OpNewaddrDo,
};

use super::{Batch, Connection, REPLACE, Result, Verb};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const RT_SCOPE_UNIVERSE: u8 = 0;

/// An address of an interface, with the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssignedAddress {
    /// The interface's number.
    pub link: u32,
    /// The address and its prefix.
    pub address: IpNet,
}

impl Batch {
    /// Gives an interface an address. The kernel adds the route to its prefix.
    ///
    /// IPv6 addresses are usable at once: duplicate address detection would hold them back for a
    /// second, and the allocator has already made sure that there is no duplicate.
    pub fn add_address(&mut self, link: u32, address: IpNet) -> &mut Self {
        let mut header = Ifaddrmsg::new();
        header.ifa_family = family(address.addr());
        header.ifa_prefixlen = address.prefix_len();
        header.ifa_scope = RT_SCOPE_UNIVERSE;
        header.ifa_index = link;
        if let IpNet::V6(_) = address {
            header.ifa_flags = IfaFlags::Nodad as u8;
        }
        self.push(Verb::NEW_ADDR, format!("{address} dev {link}"), REPLACE, |bytes| {
            let attributes = OpNewaddrDo::encode_request(bytes, &header)
                .push_local(address.addr())
                .push_address(address.addr());
            if let IpNet::V4(net) = address
                && net.prefix_len() < 31
            {
                attributes.push_broadcast(net.broadcast());
            }
        })
    }

    /// Takes an address from an interface.
    pub fn delete_address(&mut self, link: u32, address: IpNet) -> &mut Self {
        let mut header = Ifaddrmsg::new();
        header.ifa_family = family(address.addr());
        header.ifa_prefixlen = address.prefix_len();
        header.ifa_index = link;
        self.push(Verb::DEL_ADDR, format!("{address} dev {link}"), 0, |bytes| {
            OpDeladdrDo::encode_request(bytes, &header).push_local(address.addr());
        })
    }
}

impl Connection {
    /// All addresses of the namespace.
    pub fn addresses(&mut self) -> Result<Vec<AssignedAddress>> {
        let ask = |bytes: &mut Vec<u8>| {
            OpGetaddrDump::encode_request(bytes, &Ifaddrmsg::new());
        };
        self.dump(Verb::GET_ADDR, ask, |answer| {
            let (header, attributes) = OpNewaddrDo::decode_request(answer);
            let mut found = None;
            for attribute in attributes.flatten() {
                match attribute {
                    AddrAttrs::Local(address) => found = Some(address),
                    AddrAttrs::Address(address) => found = found.or(Some(address)),
                    _ => {}
                }
            }
            let address = IpNet::new(found?, header.ifa_prefixlen).ok()?;
            Some(AssignedAddress { link: header.ifa_index, address })
        })
    }
}

/// The kernel's number of an address family.
pub(super) fn family(address: IpAddr) -> u8 {
    family_of_version(address.is_ipv6())
}

pub(super) fn family_of_version(ipv6: bool) -> u8 {
    if ipv6 { AF_INET6 } else { AF_INET }
}
