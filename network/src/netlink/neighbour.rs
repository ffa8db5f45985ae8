//! Neighbours: which hardware address an IP address has on a link, arp(7).

use std::net::IpAddr;

use netlink_bindings::rt_neigh::{
    Ndmsg, NeighbourAttrs, NudState, OpDelneighDo, OpGetneighDump, OpNewneighDo,
};

use super::address::family;
use super::{Batch, Connection, REPLACE, Result, Verb};
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
        let mut header = neighbour(link, address);
        header.ndm_state = NudState::Permanent as u16;
        let shown = format!("{address} lladdr {hardware} dev {link} permanent");
        self.push(Verb::NEW_NEIGH, shown, REPLACE, |bytes| {
            OpNewneighDo::encode_request(bytes, &header)
                .push_dst(address)
                .push_lladdr(&hardware.bytes());
        })
    }

    /// Forgets a neighbour.
    pub fn delete_neighbour(&mut self, link: u32, address: IpAddr) -> &mut Self {
        self.push(Verb::DEL_NEIGH, format!("{address} dev {link}"), 0, |bytes| {
            OpDelneighDo::encode_request(bytes, &neighbour(link, address)).push_dst(address);
        })
    }
}

impl Connection {
    /// The neighbours that the host was told of, on all interfaces.
    pub fn told_neighbours(&mut self) -> Result<Vec<Neighbour>> {
        let ask = |bytes: &mut Vec<u8>| {
            OpGetneighDump::encode_request(bytes, &Ndmsg::new());
        };
        self.dump(Verb::GET_NEIGH, ask, |answer| {
            let (header, attributes) = OpNewneighDo::decode_request(answer);
            if header.ndm_state != NudState::Permanent as u16 {
                return None;
            }
            let link = header.ndm_ifindex.cast_unsigned();
            attributes.flatten().find_map(|attribute| match attribute {
                NeighbourAttrs::Dst(address) => Some(Neighbour { link, address }),
                _ => None,
            })
        })
    }
}

fn neighbour(link: u32, address: IpAddr) -> Ndmsg {
    let mut header = Ndmsg::new();
    header.ndm_family = family(address);
    header.ndm_ifindex = link.cast_signed();
    header
}
