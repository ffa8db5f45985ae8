//! Interfaces: bridges, veth pairs, and what a container sees as `eth0`.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_bindings::rt_link::{
    IfinfoFlags, Ifinfomsg, LinkAttrs, OpNewlinkDo, PushLinkAttrs, RtextFilter,
};
use netlink_bindings::traits::Pusher;
use netlink_bindings::utils::{finalize_nested_header, push_nested_header};

use super::{Batch, CREATE, Connection, Result, Verb};
use crate::hardware::HardwareAddress;

/// Of linux/if_link.h.
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;

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
    /// Where the other end of a cable is, when that is another namespace: the number that this
    /// namespace has for it, as [`Connection::number_of`] tells it.
    pub far_namespace: Option<i32>,
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
    /// No addresses of the kernel's own choice, so that it never speaks for itself.
    NoOwnAddresses,
    /// How many packets may wait for it.
    QueueLength(u32),
}

impl Batch {
    /// Makes a bridge, down: that it is up shall mean that it is complete.
    pub fn add_bridge(&mut self, bridge: Bridge<'_>) -> &mut Self {
        let shown = format!("{} type bridge address {}", bridge.name, bridge.hardware);
        self.push(Verb::NEW_LINK, shown, CREATE, |bytes| {
            let mut attributes = named(bytes, bridge.name, false);
            attributes = attributes.push_address(&bridge.hardware.bytes());
            if let Some(mtu) = bridge.mtu {
                attributes = attributes.push_mtu(mtu);
            }
            // Snooping loses the multicast of IPv6 neighbour discovery until a querier exists.
            attributes.nested_linkinfo().nested_data_bridge().push_mcast_snooping(0);
        });
        // The kernel ignores an alias in the request that makes the interface.
        self.set_alias(bridge.name, bridge.alias)
    }

    /// Makes a veth pair in one request: the far end is born inside its namespace under its final
    /// name, so that nothing has to be moved, renamed or cleaned up half way.
    ///
    /// The near end is up afterwards. The far end is not: the kernel opens it before it knows its
    /// partner and refuses (`ENOTCONN`), so its namespace has to do that.
    pub fn add_veth(&mut self, veth: Veth<'_>) -> &mut Self {
        let place =
            veth.peer_namespace.map_or(String::new(), |fd| format!(" netns {}", fd.as_raw_fd()));
        let shown = format!(
            "{} type veth master {} peer {}{place}",
            veth.name, veth.controller, veth.peer_name
        );
        self.push(Verb::NEW_LINK, shown, CREATE, |bytes| encode_veth(bytes, veth));
        self.set_alias(veth.name, veth.alias);
        // Nor does it take the far end's bridge there.
        if let Some(controller) = veth.peer_controller {
            self.set_by_name(veth.peer_name, format!("master {controller}"), |attributes| {
                attributes.push_master(controller);
            });
        }
        self
    }

    /// Makes an intermediate functional block, up: where incoming traffic can wait in a queue.
    pub fn add_ifb(&mut self, name: &str) -> &mut Self {
        self.push(Verb::NEW_LINK, format!("{name} type ifb up"), CREATE, |bytes| {
            named(bytes, name, true).nested_linkinfo().push_kind(c"ifb");
        })
    }

    /// Removes an interface by name, and with a veth its other end.
    pub fn delete_link(&mut self, name: &str) -> &mut Self {
        self.push(Verb::DEL_LINK, name.to_owned(), 0, |bytes| {
            named(bytes, name, false);
        })
    }

    /// Changes an interface.
    pub fn change_link(&mut self, index: u32, change: LinkChange<'_>) -> &mut Self {
        let mut header = header(matches!(change, LinkChange::Up(true)));
        header.ifi_index = index.cast_signed();
        let shown = match change {
            LinkChange::Up(up) => {
                header.ifi_change = IfinfoFlags::Up as u32;
                if up { "up" } else { "down" }.to_owned()
            }
            LinkChange::Controller(bridge) => format!("master {bridge}"),
            LinkChange::Namespace(fd, name) => format!("netns {} name {name}", fd.as_raw_fd()),
            LinkChange::Mtu(bytes) => format!("mtu {bytes}"),
            LinkChange::NoOwnAddresses => "addrgenmode none".to_owned(),
            LinkChange::QueueLength(packets) => format!("txqueuelen {packets}"),
        };
        self.push(Verb::SET_LINK, format!("{index} {shown}"), 0, |bytes| {
            let attributes = OpNewlinkDo::encode_request(bytes, &header);
            match change {
                LinkChange::Up(_) => attributes,
                LinkChange::Controller(bridge) => attributes.push_master(bridge),
                LinkChange::Namespace(fd, name) => attributes
                    .push_net_ns_fd(fd.as_raw_fd().cast_unsigned())
                    .push_ifname_bytes(name.as_bytes()),
                LinkChange::Mtu(bytes) => attributes.push_mtu(bytes),
                LinkChange::NoOwnAddresses => attributes
                    .nested_af_spec()
                    .nested_inet6()
                    .push_addr_gen_mode(IN6_ADDR_GEN_MODE_NONE)
                    .end_nested()
                    .end_nested(),
                LinkChange::QueueLength(packets) => attributes.push_txqlen(packets),
            };
        })
    }

    /// Sets the free text of an interface.
    pub fn set_alias(&mut self, name: &str, alias: &str) -> &mut Self {
        self.set_by_name(name, format!("alias {alias:?}"), |attributes| {
            attributes.push_ifalias_bytes(alias.as_bytes());
        })
    }

    fn set_by_name(
        &mut self,
        name: &str,
        shown: String,
        change: impl FnOnce(Attributes<'_>),
    ) -> &mut Self {
        self.push(Verb::SET_LINK, format!("{name} {shown}"), 0, |bytes| {
            change(named(bytes, name, false));
        })
    }
}

impl Connection {
    /// The interface of that name; `ENODEV` when there is none.
    pub fn link(&mut self, name: &str) -> Result<Link> {
        let ask = |bytes: &mut Vec<u8>| {
            named(bytes, name, false);
        };
        self.ask(Verb::GET_LINK, name, ask, described)
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
        let ask = |bytes: &mut Vec<u8>| {
            OpNewlinkDo::encode_request(bytes, &header(false))
                .push_ext_mask(RtextFilter::SkipStats as u32);
        };
        self.dump(Verb::GET_LINK, ask, |answer| Some(described(answer)))
    }
}

type Attributes<'a> = PushLinkAttrs<&'a mut Vec<u8>>;

fn header(up: bool) -> Ifinfomsg {
    let mut header = Ifinfomsg::new();
    if up {
        header.ifi_flags = IfinfoFlags::Up as u32;
        header.ifi_change = IfinfoFlags::Up as u32;
    }
    header
}

fn named<'a>(bytes: &'a mut Vec<u8>, name: &str, up: bool) -> Attributes<'a> {
    OpNewlinkDo::encode_request(bytes, &header(up)).push_ifname_bytes(name.as_bytes())
}

fn encode_veth(bytes: &mut Vec<u8>, veth: Veth<'_>) {
    const IFLA_INFO_DATA: u16 = 2;
    const VETH_INFO_PEER: u16 = 1;
    let mut near = named(bytes, veth.name, true).push_master(veth.controller);
    if let Some(mtu) = veth.mtu {
        near = near.push_mtu(mtu);
    }
    // The kernel's description of its messages, which the crate is made from, has no veth: what
    // describes the far end is a whole second message of this kind.
    let mut information = near.nested_linkinfo().push_kind(c"veth");
    let bytes = information.as_vec_mut();
    let data = push_nested_header(bytes, IFLA_INFO_DATA);
    let peer = push_nested_header(bytes, VETH_INFO_PEER);
    let mut far = named(bytes, veth.peer_name, false);
    if let Some(hardware) = veth.peer_hardware {
        far = far.push_address(&hardware.bytes());
    }
    if let Some(mtu) = veth.mtu {
        far = far.push_mtu(mtu);
    }
    if let Some(fd) = veth.peer_namespace {
        far = far.push_net_ns_fd(fd.as_raw_fd().cast_unsigned());
    }
    drop(far);
    finalize_nested_header(bytes, peer);
    finalize_nested_header(bytes, data);
}

fn described(answer: &[u8]) -> Link {
    let (header, attributes) = OpNewlinkDo::decode_request(answer);
    let mut link = Link {
        index: header.ifi_index.cast_unsigned(),
        name: String::new(),
        up: header.ifi_flags & IfinfoFlags::Up as u32 != 0,
        controller: None,
        hardware: None,
        far_namespace: None,
        mtu: 0,
        alias: None,
        traffic: Traffic::default(),
    };
    for attribute in attributes.flatten() {
        match attribute {
            LinkAttrs::Ifname(name) => link.name = name.to_string_lossy().into_owned(),
            LinkAttrs::Master(index) => link.controller = Some(index),
            LinkAttrs::Address(bytes) => {
                link.hardware = bytes.try_into().ok().map(HardwareAddress::new);
            }
            LinkAttrs::LinkNetnsid(number) => link.far_namespace = Some(number),
            LinkAttrs::Mtu(bytes) => link.mtu = bytes,
            LinkAttrs::Ifalias(text) => link.alias = Some(text.to_string_lossy().into_owned()),
            LinkAttrs::Stats64(stats) => {
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
    link
}
