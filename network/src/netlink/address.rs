//! IP addresses of interfaces.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Batch, Connection, REPLACE, Result};

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
        let mut message = AddressMessage::default();
        message.header.family = family(address.addr());
        message.header.prefix_len = address.prefix_len();
        message.header.scope = AddressScope::Universe;
        message.header.index = link;
        message.attributes.push(AddressAttribute::Local(address.addr()));
        message.attributes.push(AddressAttribute::Address(address.addr()));
        match address {
            IpNet::V4(net) if net.prefix_len() < 31 => {
                message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
            }
            IpNet::V4(_) => {}
            IpNet::V6(_) => message.header.flags = AddressHeaderFlags::Nodad,
        }
        let message = RouteNetlinkMessage::NewAddress(message);
        self.push("RTM_NEWADDR", format!("{address} dev {link}"), REPLACE, message)
    }
}

impl Connection {
    /// All addresses of the namespace.
    pub fn addresses(&mut self) -> Result<Vec<AssignedAddress>> {
        let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.dump("RTM_GETADDR", message, |answer| {
            let RouteNetlinkMessage::NewAddress(message) = answer else { return None };
            let prefix = message.header.prefix_len;
            let mut found = None;
            for attribute in message.attributes {
                match attribute {
                    AddressAttribute::Local(address) => found = Some(address),
                    AddressAttribute::Address(address) => found = found.or(Some(address)),
                    _ => {}
                }
            }
            let address = IpNet::new(found?, prefix).ok()?;
            Some(AssignedAddress { link: message.header.index, address })
        })
    }
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
