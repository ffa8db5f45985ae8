//! Queues of interfaces and the filters in front of them, tc(8).

use netlink_bindings::tc::{
    GnetStatsBasic, GnetStatsQueue, OpDelqdiscDo, OpGetqdiscDump, OpNewqdiscDo, OpNewtfilterDo,
    PushActAttrs, PushU32Attrs, TcU32Key, TcU32Sel, Tcmsg,
};
use netlink_bindings::traits::Pusher;
use netlink_bindings::utils::{finalize_nested_header, push_header, push_nested_header};

use super::{Batch, CREATE, Connection, REPLACE, Result, Verb, attributes_of};

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_STATS2: u16 = 7;
const ETH_P_ALL_BIG_ENDIAN: u16 = 0x0003_u16.to_be();
/// Where the root queue hangs, and the queue of what comes in.
const TC_H_ROOT: u32 = 0xffff_ffff;
const TC_H_INGRESS: u32 = 0xffff_fff1;

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
        self.push_qdisc(header(link, handle(1, 0), TC_H_ROOT), REPLACE, qdisc)
    }

    /// Puts a queue below the queue `1:`, at its class `minor`.
    pub fn set_child_qdisc(&mut self, link: u32, minor: u16, qdisc: &Qdisc) -> &mut Self {
        self.push_qdisc(header(link, handle(0x10 + minor, 0), handle(1, minor)), REPLACE, qdisc)
    }

    /// Removes the root queue; the kernel puts its default in its place.
    pub fn delete_root_qdisc(&mut self, link: u32) -> &mut Self {
        self.delete_qdisc(link, TC_H_ROOT, "root")
    }

    /// Removes what [`redirect_ingress`](Self::redirect_ingress) has set.
    pub fn delete_ingress(&mut self, link: u32) -> &mut Self {
        self.delete_qdisc(link, TC_H_INGRESS, "ingress")
    }

    /// Sends all that comes in at `from` through `to` (an ifb) before anything else sees it.
    pub fn redirect_ingress(&mut self, from: u32, to: u32) -> &mut Self {
        let ingress = Qdisc { kind: "ingress", options: Vec::new(), shown: "ingress".to_owned() };
        let place = TC_H_INGRESS & 0xffff_0000;
        self.push_qdisc(header(from, place, TC_H_INGRESS), CREATE, &ingress);
        let mut header = header(from, 0, place);
        header.info = (1 << 16) | u32::from(ETH_P_ALL_BIG_ENDIAN);
        let shown = format!("dev {from} ingress u32 match all redirect to {to}");
        self.push(Verb::NEW_FILTER, shown, CREATE, |bytes| {
            let options = OpNewtfilterDo::encode_request(bytes, &header).nested_options_u32();
            redirect_everything(options, to);
        })
    }

    fn push_qdisc(&mut self, header: Tcmsg, flags: u16, qdisc: &Qdisc) -> &mut Self {
        let shown = format!("dev {} {}", header.ifindex, qdisc.shown);
        self.push(Verb::NEW_QDISC, shown, flags, |bytes| {
            let mut attributes =
                OpNewqdiscDo::encode_request(bytes, &header).push_kind_bytes(qdisc.kind.as_bytes());
            if !qdisc.options.is_empty() {
                let length = u16::try_from(qdisc.options.len()).unwrap_or(u16::MAX - 4);
                push_header(attributes.as_vec_mut(), TCA_OPTIONS, length);
                attributes.as_vec_mut().extend(&qdisc.options);
            }
        })
    }

    fn delete_qdisc(&mut self, link: u32, parent: u32, shown: &str) -> &mut Self {
        self.push(Verb::DEL_QDISC, format!("dev {link} {shown}"), 0, |bytes| {
            OpDelqdiscDo::encode_request(bytes, &header(link, 0, parent));
        })
    }
}

fn header(link: u32, handle: u32, parent: u32) -> Tcmsg {
    let mut header = Tcmsg::new();
    header.ifindex = link.cast_signed();
    header.handle = handle;
    header.parent = parent;
    header
}

fn handle(major: u16, minor: u16) -> u32 {
    u32::from(major) << 16 | u32::from(minor)
}

/// The options of a u32 filter that matches every packet, by one key whose mask is 0, and redirects
/// it with the action `mirred`.
fn redirect_everything(options: PushU32Attrs<impl Pusher>, link: u32) {
    const TC_U32_TERMINAL: u8 = 1;
    const TC_ACT_STOLEN: u32 = 4;
    const TCA_EGRESS_REDIR: u32 = 1;
    const TCA_U32_ACT: u16 = 7;
    let mut selector = TcU32Sel::new();
    selector.flags = TC_U32_TERMINAL;
    selector.nkeys = 1;
    selector.keys = TcU32Key::new();
    // struct tc_mirred: index, capab, action, refcnt, bindcnt, eaction, ifindex.
    let mut parameters = Vec::new();
    for value in [0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, link] {
        parameters.extend(value.to_ne_bytes());
    }
    // By hand, because the crate numbers actions from 0 on and the kernel from 1.
    let mut options = options.push_sel(selector);
    let bytes = options.as_vec_mut();
    let actions = push_nested_header(bytes, TCA_U32_ACT);
    let first = push_nested_header(bytes, 1);
    drop(PushActAttrs::new(&mut *bytes).nested_options_mirred().push_parms(&parameters));
    finalize_nested_header(bytes, first);
    finalize_nested_header(bytes, actions);
}

impl Connection {
    /// All queues of all interfaces.
    pub fn qdiscs(&mut self) -> Result<Vec<InstalledQdisc>> {
        let ask = |bytes: &mut Vec<u8>| {
            OpGetqdiscDump::encode_request(bytes, &Tcmsg::new());
        };
        self.dump(Verb::GET_QDISC, ask, |answer| Some(described(answer)))
    }
}

fn described(answer: &[u8]) -> InstalledQdisc {
    let (header, attributes) = OpNewqdiscDo::decode_request(answer);
    let (major, minor) = ((header.parent >> 16) as u16, header.parent as u16);
    let mut found = InstalledQdisc {
        link: header.ifindex.cast_unsigned(),
        kind: String::new(),
        parent: (header.parent != TC_H_ROOT).then_some((major, minor)),
        bytes: 0,
        packets: 0,
        drops: 0,
        overlimits: 0,
    };
    // Attribute by attribute: the crate's iterator would bring the options of every kind of queue.
    for (kind, value) in attributes_of(attributes.get_buf()) {
        match kind {
            TCA_KIND => found.kind = text(value),
            TCA_STATS2 => count(&mut found, value),
            _ => {}
        }
    }
    found
}

fn count(found: &mut InstalledQdisc, statistics: &[u8]) {
    const TCA_STATS_BASIC: u16 = 1;
    const TCA_STATS_QUEUE: u16 = 3;
    for (kind, value) in attributes_of(statistics) {
        match kind {
            TCA_STATS_BASIC => {
                let basic = GnetStatsBasic::new_from_zeroed(value);
                (found.bytes, found.packets) = (basic.bytes, basic.packets.into());
            }
            TCA_STATS_QUEUE => {
                let queue = GnetStatsQueue::new_from_zeroed(value);
                (found.drops, found.overlimits) = (queue.drops.into(), queue.overlimits.into());
            }
            _ => {}
        }
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}
