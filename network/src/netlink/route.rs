//! Routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::address::family;
use super::{Batch, Connection, REPLACE, Result};

const RT_TABLE_MAIN: u8 = 254;

/// A route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where it leads to; all zero with a prefix of 0 bits for the default route.
    pub destination: IpNet,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// The number of the interface that it leaves by.
    pub link: Option<u32>,
}

impl Batch {
    /// Adds the default route of the gateway's address family.
    pub fn add_default_route(&mut self, gateway: IpAddr, link: u32) -> &mut Self {
        let mut message = RouteMessage::default();
        message.header.address_family = family(gateway);
        message.header.table = RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Gateway(gateway.into()));
        message.attributes.push(RouteAttribute::Oif(link));
        let message = RouteNetlinkMessage::NewRoute(message);
        self.push("RTM_NEWROUTE", format!("default via {gateway} dev {link}"), REPLACE, message)
    }

    /// Makes every packet that is looked up in `table` one for this host itself: the second half of
    /// a transparent socket, see [`MarkRule`](super::MarkRule).
    pub fn add_local_everything(&mut self, table: u8, loopback: u32, ipv6: bool) -> &mut Self {
        let mut message = RouteMessage::default();
        message.header.address_family =
            if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        message.header.table = table;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Host;
        message.header.kind = RouteType::Local;
        message.attributes.push(RouteAttribute::Oif(loopback));
        let shown = format!("local default dev {loopback} table {table} ipv6={ipv6}");
        self.push("RTM_NEWROUTE", shown, REPLACE, RouteNetlinkMessage::NewRoute(message))
    }

    /// Removes what [`add_local_everything`](Self::add_local_everything) added.
    pub fn delete_local_everything(&mut self, table: u8, loopback: u32, ipv6: bool) -> &mut Self {
        let mut message = RouteMessage::default();
        message.header.address_family =
            if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        message.header.table = table;
        message.header.scope = RouteScope::NoWhere;
        message.header.kind = RouteType::Local;
        message.attributes.push(RouteAttribute::Oif(loopback));
        let shown = format!("local default dev {loopback} table {table} ipv6={ipv6}");
        self.push("RTM_DELROUTE", shown, 0, RouteNetlinkMessage::DelRoute(message))
    }
}

impl Connection {
    /// The routes of the main table, both families.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut found = Vec::new();
        for address_family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = address_family;
            let message = RouteNetlinkMessage::GetRoute(message);
            found.extend(self.dump("RTM_GETROUTE", message, described)?);
        }
        Ok(found)
    }
}

fn described(answer: RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = answer else { return None };
    if message.header.table != RT_TABLE_MAIN {
        return None;
    }
    let mut destination = match message.header.address_family {
        AddressFamily::Inet => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let (mut gateway, mut link) = (None, None);
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(&address)?,
            RouteAttribute::Gateway(address) => gateway = ip(&address),
            RouteAttribute::Oif(index) => link = Some(index),
            _ => {}
        }
    }
    let destination = IpNet::new(destination, message.header.destination_prefix_length).ok()?;
    Some(Route { destination, gateway, link })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
