//! Queueing disciplines: how packets wait for their turn, tc(8).
//!
//! `netlink-packet-route` knows almost none of them, so their options are laid out here by hand, as
//! linux/pkt_sched.h and linux/pkt_cls.h give them.

use netlink_packet_core::{DefaultNla, Nla};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcStats2};

use super::{Batch, CREATE, Connection, REPLACE, Result};

const TCA_OPTIONS: u16 = 2;
const ETH_P_ALL_BIG_ENDIAN: u16 = 0x0003_u16.to_be();

/// The root queue of an interface: its kind and the bytes of its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qdisc {
    /// `tbf`, `netem`, `htb` …
    pub kind: &'static str,
    /// What `TCA_OPTIONS` holds.
    pub options: Vec<u8>,
    /// What people read in a recording.
    pub shown: String,
}

/// A queue that an interface has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledQdisc {
    /// The interface's number.
    pub link: u32,
    /// Its kind.
    pub kind: String,
    /// The class or queue that it hangs under; `None` at the root.
    pub parent: Option<(u16, u16)>,
    /// Bytes that passed.
    pub bytes: u64,
    /// Packets that passed.
    pub packets: u64,
    /// Packets that it threw away.
    pub drops: u64,
    /// How often a packet had to wait.
    pub overlimits: u64,
}

impl Batch {
    /// Sets the root queue of an interface.
    pub fn set_root_qdisc(&mut self, link: u32, qdisc: &Qdisc) -> &mut Self {
        let place = Place { handle: TcHandle { major: 1, minor: 0 }, parent: TcHandle::ROOT };
        self.push_qdisc(link, place, REPLACE, qdisc)
    }

    /// Puts a queue below the queue `1:`, at its class `minor`.
    pub fn set_child_qdisc(&mut self, link: u32, minor: u16, qdisc: &Qdisc) -> &mut Self {
        let handle = TcHandle { major: 0x10 + minor, minor: 0 };
        let place = Place { handle, parent: TcHandle { major: 1, minor } };
        self.push_qdisc(link, place, REPLACE, qdisc)
    }

    /// Removes the root queue; the kernel puts its default in its place.
    pub fn delete_root_qdisc(&mut self, link: u32) -> &mut Self {
        let mut message = TcMessage::with_index(link.cast_signed());
        message.header.parent = TcHandle::ROOT;
        let message = RouteNetlinkMessage::DelQueueDiscipline(message);
        self.push("RTM_DELQDISC", format!("dev {link} root"), 0, message)
    }

    /// Removes what [`redirect_ingress`](Self::redirect_ingress) has set.
    pub fn delete_ingress(&mut self, link: u32) -> &mut Self {
        let mut message = TcMessage::with_index(link.cast_signed());
        message.header.parent = TcHandle::INGRESS;
        let message = RouteNetlinkMessage::DelQueueDiscipline(message);
        self.push("RTM_DELQDISC", format!("dev {link} ingress"), 0, message)
    }

    /// Sends all that comes in at `from` through `to` (an ifb) before anything else sees it.
    pub fn redirect_ingress(&mut self, from: u32, to: u32) -> &mut Self {
        let ingress = Qdisc { kind: "ingress", options: Vec::new(), shown: "ingress".to_owned() };
        let handle = TcHandle { major: TcHandle::INGRESS.major, minor: 0 };
        self.push_qdisc(from, Place { handle, parent: TcHandle::INGRESS }, CREATE, &ingress);
        let mut message = TcMessage::with_index(from.cast_signed());
        message.header.parent = handle;
        message.header.info = (1 << 16) | u32::from(ETH_P_ALL_BIG_ENDIAN);
        message.attributes.push(TcAttribute::Kind("u32".into()));
        message.attributes.push(raw(TCA_OPTIONS, everything_redirected_to(to)));
        let message = RouteNetlinkMessage::NewTrafficFilter(message);
        let shown = format!("dev {from} ingress u32 match all redirect to {to}");
        self.push("RTM_NEWTFILTER", shown, CREATE, message)
    }

    fn push_qdisc(&mut self, link: u32, place: Place, flags: u16, qdisc: &Qdisc) -> &mut Self {
        let mut message = TcMessage::with_index(link.cast_signed());
        message.header.handle = place.handle;
        message.header.parent = place.parent;
        message.attributes.push(TcAttribute::Kind(qdisc.kind.into()));
        if !qdisc.options.is_empty() {
            message.attributes.push(raw(TCA_OPTIONS, qdisc.options.clone()));
        }
        let message = RouteNetlinkMessage::NewQueueDiscipline(message);
        self.push("RTM_NEWQDISC", format!("dev {link} {}", qdisc.shown), flags, message)
    }
}

#[derive(Clone, Copy)]
struct Place {
    handle: TcHandle,
    parent: TcHandle,
}

fn raw(kind: u16, value: Vec<u8>) -> TcAttribute {
    TcAttribute::Other(DefaultNla::new(kind, value))
}

/// One netlink attribute in bytes, padded.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let attribute = DefaultNla::new(kind, value.to_vec());
    let length = 4 + attribute.value_len();
    let mut bytes = u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// The options of a u32 filter that matches every packet and redirects it: `struct tc_u32_sel` with
/// one key whose mask is 0, and the action `mirred` (`struct tc_mirred`).
fn everything_redirected_to(link: u32) -> Vec<u8> {
    const TCA_U32_SEL: u16 = 5;
    const TCA_U32_ACT: u16 = 7;
    const TCA_ACT_KIND: u16 = 1;
    const TCA_ACT_OPTIONS: u16 = 2;
    const TCA_MIRRED_PARMS: u16 = 2;
    const TC_U32_TERMINAL: u8 = 1;
    const TC_ACT_STOLEN: u32 = 4;
    const TCA_EGRESS_REDIR: u32 = 1;
    // tc_u32_sel: flags, offshift, nkeys, pad, offmask, off, offoff, hoff, hmask; tc_u32_key:
    // mask, val, off, offmask.
    let mut selector = vec![TC_U32_TERMINAL, 0, 1, 0];
    selector.extend([0; 12]);
    selector.extend([0; 16]);
    // tc_mirred: index, capab, action, refcnt, bindcnt, eaction, ifindex.
    let mut parameters = Vec::new();
    for value in [0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, link] {
        parameters.extend(value.to_ne_bytes());
    }
    let mut action = attribute(TCA_ACT_KIND, b"mirred\0");
    action.extend(attribute(TCA_ACT_OPTIONS, &attribute(TCA_MIRRED_PARMS, &parameters)));
    let mut options = attribute(TCA_U32_SEL, &selector);
    options.extend(attribute(TCA_U32_ACT, &attribute(1, &action)));
    options
}

impl Connection {
    /// All queues of all interfaces.
    pub fn qdiscs(&mut self) -> Result<Vec<InstalledQdisc>> {
        let message = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        self.dump("RTM_GETQDISC", message, described)
    }
}

fn described(answer: RouteNetlinkMessage) -> Option<InstalledQdisc> {
    let RouteNetlinkMessage::NewQueueDiscipline(message) = answer else { return None };
    let parent = message.header.parent;
    let mut found = InstalledQdisc {
        link: message.header.index.cast_unsigned(),
        kind: String::new(),
        parent: (parent != TcHandle::ROOT).then_some((parent.major, parent.minor)),
        bytes: 0,
        packets: 0,
        drops: 0,
        overlimits: 0,
    };
    for attribute in message.attributes {
        match attribute {
            TcAttribute::Kind(kind) => found.kind = kind,
            TcAttribute::Stats2(parts) => {
                for part in parts {
                    match part {
                        TcStats2::Basic(basic) => {
                            (found.bytes, found.packets) = (basic.bytes, basic.packets.into());
                        }
                        TcStats2::Queue(queue) => {
                            found.drops = queue.drops.into();
                            found.overlimits = queue.overlimits.into();
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(found)
}
