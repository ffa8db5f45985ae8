//! Routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_bindings::rt_route::{
    OpDelrouteDo, OpGetrouteDump, OpNewrouteDo, RouteAttrs, RtmType, Rtmsg,
};

use super::address::{family, family_of_version};
use super::{Batch, Connection, REPLACE, Result, Verb};

const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_HOST: u8 = 254;
const RT_SCOPE_NOWHERE: u8 = 255;

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
        let mut header = Rtmsg::new();
        header.rtm_family = family(gateway);
        header.rtm_table = RT_TABLE_MAIN;
        header.rtm_protocol = RTPROT_STATIC;
        header.rtm_scope = RT_SCOPE_UNIVERSE;
        header.rtm_type = RtmType::Unicast as u8;
        let shown = format!("default via {gateway} dev {link}");
        self.push(Verb::NEW_ROUTE, shown, REPLACE, |bytes| {
            OpNewrouteDo::encode_request(bytes, &header).push_gateway(gateway).push_oif(link);
        })
    }

    /// Makes every packet that is looked up in `table` one for this host itself: the second half of
    /// a transparent socket, see [`MarkRule`](super::MarkRule).
    pub fn add_local_everything(&mut self, table: u8, loopback: u32, ipv6: bool) -> &mut Self {
        let mut header = local(table, ipv6);
        header.rtm_protocol = RTPROT_STATIC;
        header.rtm_scope = RT_SCOPE_HOST;
        let shown = format!("local default dev {loopback} table {table} ipv6={ipv6}");
        self.push(Verb::NEW_ROUTE, shown, REPLACE, |bytes| {
            OpNewrouteDo::encode_request(bytes, &header).push_oif(loopback);
        })
    }

    /// Removes what [`add_local_everything`](Self::add_local_everything) added.
    pub fn delete_local_everything(&mut self, table: u8, loopback: u32, ipv6: bool) -> &mut Self {
        let mut header = local(table, ipv6);
        header.rtm_scope = RT_SCOPE_NOWHERE;
        let shown = format!("local default dev {loopback} table {table} ipv6={ipv6}");
        self.push(Verb::DEL_ROUTE, shown, 0, |bytes| {
            OpDelrouteDo::encode_request(bytes, &header).push_oif(loopback);
        })
    }
}

impl Connection {
    /// The routes of the main table, both families.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut found = Vec::new();
        for ipv6 in [false, true] {
            let ask = |bytes: &mut Vec<u8>| {
                let mut header = Rtmsg::new();
                header.rtm_family = family_of_version(ipv6);
                OpGetrouteDump::encode_request(bytes, &header);
            };
            found.extend(self.dump(Verb::GET_ROUTE, ask, described)?);
        }
        Ok(found)
    }
}

fn local(table: u8, ipv6: bool) -> Rtmsg {
    let mut header = Rtmsg::new();
    header.rtm_family = family_of_version(ipv6);
    header.rtm_table = table;
    header.rtm_type = RtmType::Local as u8;
    header
}

fn described(answer: &[u8]) -> Option<Route> {
    let (header, attributes) = OpNewrouteDo::decode_request(answer);
    if header.rtm_table != RT_TABLE_MAIN {
        return None;
    }
    let mut destination = match header.rtm_family {
        family if family == family_of_version(false) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        family if family == family_of_version(true) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let (mut gateway, mut link) = (None, None);
    for attribute in attributes.flatten() {
        match attribute {
            RouteAttrs::Dst(address) => destination = address,
            RouteAttrs::Gateway(address) => gateway = Some(address),
            RouteAttrs::Oif(index) => link = Some(index),
            _ => {}
        }
    }
    let destination = IpNet::new(destination, header.rtm_dst_len).ok()?;
    Some(Route { destination, gateway, link })
}
