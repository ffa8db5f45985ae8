//! Neighbours: which hardware address an IP address has on a link, arp(7).

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};

use super::address::family;
use super::{Batch, Connection, REPLACE, Result};
use crate::hardware::HardwareAddress;

/// A neighbour that the host was told of, instead of having asked the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// The number of the interface.
    pub link: u32,
    /// The neighbour's IP address.
    pub address: IpAddr,
}

impl Batch {
    /// Tells the host where an address is, for good.
    ///
    /// Told entries do not count towards the limit of the neighbour table (`gc_thresh3`, 1024 by
    /// default, for the whole machine): with more containers than that, a host that had to ask for
    /// each would lose packets.
    pub fn add_neighbour(
        &mut self,
        link: u32,
        address: IpAddr,
        hardware: HardwareAddress,
    ) -> &mut Self {
        let mut message = neighbour(link, address);
        message.header.state = NeighbourState::Permanent;
        let bytes = hardware.bytes().to_vec();
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(bytes));
        let message = RouteNetlinkMessage::NewNeighbour(message);
        let shown = format!("{address} lladdr {hardware} dev {link} permanent");
        self.push("RTM_NEWNEIGH", shown, REPLACE, message)
    }

    /// Forgets a neighbour.
    pub fn delete_neighbour(&mut self, link: u32, address: IpAddr) -> &mut Self {
        let message = RouteNetlinkMessage::DelNeighbour(neighbour(link, address));
        self.push("RTM_DELNEIGH", format!("{address} dev {link}"), 0, message)
    }
}

impl Connection {
    /// The neighbours that the host was told of, on all interfaces.
    pub fn told_neighbours(&mut self) -> Result<Vec<Neighbour>> {
        let message = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        self.dump("RTM_GETNEIGH", message, |answer| {
            let RouteNetlinkMessage::NewNeighbour(message) = answer else { return None };
            if message.header.state != NeighbourState::Permanent {
                return None;
            }
            let link = message.header.ifindex;
            message.attributes.into_iter().find_map(|attribute| {
                let address = match attribute {
                    NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => ip.into(),
                    NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => ip.into(),
                    _ => return None,
                };
                Some(Neighbour { link, address })
            })
        })
    }
}

fn neighbour(link: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = link;
    message.attributes.push(NeighbourAttribute::Destination(match address {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    }));
    message
}
