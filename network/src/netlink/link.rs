//! Interfaces: bridges, veth pairs, and what a container sees as `eth0`.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo,
    LinkMessage,
};

use super::{Batch, CREATE, Connection, Result};
use crate::hardware::HardwareAddress;

/// An interface as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in this namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is up.
    pub up: bool,
    /// The number of the bridge that it is a port of.
    pub controller: Option<u32>,
    /// Its hardware address, when it has one of six bytes.
    pub hardware: Option<HardwareAddress>,
    /// The largest packet in bytes.
    pub mtu: u32,
    /// The free text that `ip link` shows as `alias`.
    pub alias: Option<String>,
    /// What went through it.
    pub traffic: Traffic,
}

/// Counters of an interface, seen from its own namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Traffic {
    /// Bytes that came in.
    pub received_bytes: u64,
    /// Packets that came in.
    pub received_packets: u64,
    /// Packets that came in and were dropped.
    pub received_dropped: u64,
    /// Bytes that went out.
    pub sent_bytes: u64,
    /// Packets that went out.
    pub sent_packets: u64,
    /// Packets that should have gone out and were dropped.
    pub sent_dropped: u64,
}

/// A bridge to be made.
#[derive(Debug, Clone, Copy)]
pub struct Bridge<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its hardware address. A bridge without one of its own takes the lowest of its ports, so that
    /// it changes whenever a container comes or goes, and every neighbour's cache is wrong.
    pub hardware: HardwareAddress,
    /// The largest packet in bytes; the kernel's choice when `None`.
    pub mtu: Option<u32>,
    /// Free text for people who read `ip link`.
    pub alias: &'a str,
}

/// A pair of interfaces to be made: a cable with one end here and one in the container.
#[derive(Debug, Clone, Copy)]
pub struct Veth<'a> {
    /// The name of the end in this namespace.
    pub name: &'a str,
    /// The bridge that this end becomes a port of.
    pub controller: u32,
    /// The namespace of the other end; this one when `None`.
    pub peer_namespace: Option<BorrowedFd<'a>>,
    /// The name of the other end.
    pub peer_name: &'a str,
    /// The hardware address of the other end; the kernel's choice when `None`.
    pub peer_hardware: Option<HardwareAddress>,
    /// The bridge (in this namespace) that the other end becomes a port of.
    pub peer_controller: Option<u32>,
    /// The largest packet in bytes, on both ends; the kernel's choice when `None`.
    pub mtu: Option<u32>,
    /// Free text on this end for people who read `ip link`.
    pub alias: &'a str,
}

/// A change of an interface.
#[derive(Debug, Clone, Copy)]
pub enum LinkChange<'a> {
    /// Up, or down.
    Up(bool),
    /// Becomes a port of this bridge, or of none with 0.
    Controller(u32),
    /// Moves into another network namespace, under another name. It arrives there down.
    Namespace(BorrowedFd<'a>, &'a str),
    /// The largest packet in bytes.
    Mtu(u32),
}

impl Batch {
    /// Makes a bridge, down: that it is up shall mean that it is complete.
    pub fn add_bridge(&mut self, bridge: Bridge<'_>) -> &mut Self {
        let mut attributes = named(bridge.name);
        attributes.push(LinkAttribute::Address(bridge.hardware.bytes().to_vec()));
        attributes.extend(bridge.mtu.map(LinkAttribute::Mtu));
        attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            // Snooping loses the multicast of IPv6 neighbour discovery until a querier exists.
            LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)])),
        ]));
        let shown = format!("{} type bridge address {}", bridge.name, bridge.hardware);
        let message = RouteNetlinkMessage::NewLink(link_message(attributes, false));
        self.push("RTM_NEWLINK", shown, CREATE, message);
        // The kernel ignores an alias in the request that makes the interface.
        self.set_alias(bridge.name, bridge.alias)
    }

    /// Makes a veth pair in one request: the far end is born inside its namespace under its final
    /// name, so that nothing has to be moved, renamed or cleaned up half way.
    ///
    /// The near end is up afterwards. The far end is not: the kernel opens it before it knows its
    /// partner and refuses (`ENOTCONN`), so its namespace has to do that.
    pub fn add_veth(&mut self, veth: Veth<'_>) -> &mut Self {
        let mut peer = named(veth.peer_name);
        peer.extend(veth.peer_hardware.map(|mac| LinkAttribute::Address(mac.bytes().to_vec())));
        peer.extend(veth.mtu.map(LinkAttribute::Mtu));
        peer.extend(veth.peer_namespace.map(|fd| LinkAttribute::NetNsFd(fd.as_raw_fd())));
        let mut attributes = named(veth.name);
        attributes.extend(veth.mtu.map(LinkAttribute::Mtu));
        attributes.push(LinkAttribute::Controller(veth.controller));
        attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(link_message(peer, false)))),
        ]));
        let place =
            veth.peer_namespace.map_or(String::new(), |fd| format!(" netns {}", fd.as_raw_fd()));
        let shown = format!(
            "{} type veth master {} peer {}{place}",
            veth.name, veth.controller, veth.peer_name
        );
        let message = RouteNetlinkMessage::NewLink(link_message(attributes, true));
        self.push("RTM_NEWLINK", shown, CREATE, message);
        self.set_alias(veth.name, veth.alias);
        // Nor does it take the far end's bridge there.
        if let Some(controller) = veth.peer_controller {
            let attribute = LinkAttribute::Controller(controller);
            self.set_by_name(veth.peer_name, format!("master {controller}"), vec![attribute]);
        }
        self
    }

    /// Makes an intermediate functional block, up: where incoming traffic can wait in a queue.
    pub fn add_ifb(&mut self, name: &str) -> &mut Self {
        let mut attributes = named(name);
        attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]));
        let message = RouteNetlinkMessage::NewLink(link_message(attributes, true));
        self.push("RTM_NEWLINK", format!("{name} type ifb up"), CREATE, message)
    }

    /// Removes an interface by name, and with a veth its other end.
    pub fn delete_link(&mut self, name: &str) -> &mut Self {
        let message = link_message(named(name), false);
        self.push("RTM_DELLINK", name.to_owned(), 0, RouteNetlinkMessage::DelLink(message))
    }

    /// Changes an interface.
    pub fn change_link(&mut self, index: u32, change: LinkChange<'_>) -> &mut Self {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let shown = match change {
            LinkChange::Up(up) => {
                message.header.flags.set(LinkFlags::Up, up);
                message.header.change_mask = LinkFlags::Up;
                if up { "up" } else { "down" }.to_owned()
            }
            LinkChange::Controller(bridge) => {
                message.attributes.push(LinkAttribute::Controller(bridge));
                format!("master {bridge}")
            }
            LinkChange::Namespace(fd, name) => {
                message.attributes.push(LinkAttribute::NetNsFd(fd.as_raw_fd()));
                message.attributes.push(LinkAttribute::IfName(name.into()));
                format!("netns {} name {name}", fd.as_raw_fd())
            }
            LinkChange::Mtu(bytes) => {
                message.attributes.push(LinkAttribute::Mtu(bytes));
                format!("mtu {bytes}")
            }
        };
        let message = RouteNetlinkMessage::SetLink(message);
        self.push("RTM_SETLINK", format!("{index} {shown}"), 0, message)
    }

    /// Sets the free text of an interface.
    pub fn set_alias(&mut self, name: &str, alias: &str) -> &mut Self {
        let attribute = LinkAttribute::IfAlias(alias.into());
        self.set_by_name(name, format!("alias {alias:?}"), vec![attribute]);
        self
    }

    fn set_by_name(&mut self, name: &str, shown: String, changes: Vec<LinkAttribute>) {
        let mut attributes = named(name);
        attributes.extend(changes);
        let message = RouteNetlinkMessage::SetLink(link_message(attributes, false));
        self.push("RTM_SETLINK", format!("{name} {shown}"), 0, message);
    }
}

impl Connection {
    /// The interface of that name; `ENODEV` when there is none.
    pub fn link(&mut self, name: &str) -> Result<Link> {
        let message = link_message(named(name), false);
        let answer = self.ask("RTM_GETLINK", name, RouteNetlinkMessage::GetLink(message))?;
        described(answer)
            .ok_or_else(|| linux::Error::new("RTM_GETLINK", name, linux::Errno::EBADMSG))
    }

    /// The interface of that name, if there is one.
    pub fn find_link(&mut self, name: &str) -> Result<Option<Link>> {
        match self.link(name) {
            Ok(link) => Ok(Some(link)),
            Err(error) if error.errno == linux::Errno::ENODEV => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All interfaces of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        self.dump("RTM_GETLINK", RouteNetlinkMessage::GetLink(message), described)
    }
}

fn named(name: &str) -> Vec<LinkAttribute> {
    vec![LinkAttribute::IfName(name.into())]
}

fn link_message(attributes: Vec<LinkAttribute>, up: bool) -> LinkMessage {
    let mut message = LinkMessage::default();
    if up {
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
    }
    message.attributes = attributes;
    message
}

fn described(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        up: message.header.flags.contains(LinkFlags::Up),
        controller: None,
        hardware: None,
        mtu: 0,
        alias: None,
        traffic: Traffic::default(),
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Controller(index) => link.controller = Some(index),
            LinkAttribute::Address(bytes) => {
                link.hardware = bytes.try_into().ok().map(HardwareAddress::new);
            }
            LinkAttribute::Mtu(bytes) => link.mtu = bytes,
            LinkAttribute::IfAlias(text) => link.alias = Some(text),
            LinkAttribute::Stats64(stats) => {
                link.traffic = Traffic {
                    received_bytes: stats.rx_bytes,
                    received_packets: stats.rx_packets,
                    received_dropped: stats.rx_dropped,
                    sent_bytes: stats.tx_bytes,
                    sent_packets: stats.tx_packets,
                    sent_dropped: stats.tx_dropped,
                };
            }
            _ => {}
        }
    }
    Some(link)
}
