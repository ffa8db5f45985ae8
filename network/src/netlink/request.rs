//! One request in bytes: the header, then what `netlink-bindings` encodes.

use netlink_bindings::consts::NLM_F_REQUEST;

/// The length of `struct nlmsghdr`.
pub(super) const HEADER_BYTES: usize = 16;

/// What is asked for: its name and its number, linux/rtnetlink.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verb {
    /// What people know it by.
    pub(super) name: &'static str,
    number: u16,
}

impl Verb {
    pub(super) const NEW_LINK: Self = Self { name: "RTM_NEWLINK", number: 16 };
    pub(super) const DEL_LINK: Self = Self { name: "RTM_DELLINK", number: 17 };
    pub(super) const GET_LINK: Self = Self { name: "RTM_GETLINK", number: 18 };
    pub(super) const SET_LINK: Self = Self { name: "RTM_SETLINK", number: 19 };
    pub(super) const NEW_ADDR: Self = Self { name: "RTM_NEWADDR", number: 20 };
    pub(super) const DEL_ADDR: Self = Self { name: "RTM_DELADDR", number: 21 };
    pub(super) const GET_ADDR: Self = Self { name: "RTM_GETADDR", number: 22 };
    pub(super) const NEW_ROUTE: Self = Self { name: "RTM_NEWROUTE", number: 24 };
    pub(super) const DEL_ROUTE: Self = Self { name: "RTM_DELROUTE", number: 25 };
    pub(super) const GET_ROUTE: Self = Self { name: "RTM_GETROUTE", number: 26 };
    pub(super) const NEW_NEIGH: Self = Self { name: "RTM_NEWNEIGH", number: 28 };
    pub(super) const DEL_NEIGH: Self = Self { name: "RTM_DELNEIGH", number: 29 };
    pub(super) const GET_NEIGH: Self = Self { name: "RTM_GETNEIGH", number: 30 };
    pub(super) const NEW_RULE: Self = Self { name: "RTM_NEWRULE", number: 32 };
    pub(super) const DEL_RULE: Self = Self { name: "RTM_DELRULE", number: 33 };
    pub(super) const GET_RULE: Self = Self { name: "RTM_GETRULE", number: 34 };
    pub(super) const NEW_QDISC: Self = Self { name: "RTM_NEWQDISC", number: 36 };
    pub(super) const DEL_QDISC: Self = Self { name: "RTM_DELQDISC", number: 37 };
    pub(super) const GET_QDISC: Self = Self { name: "RTM_GETQDISC", number: 38 };
    pub(super) const NEW_FILTER: Self = Self { name: "RTM_NEWTFILTER", number: 44 };
    pub(super) const GET_NSID: Self = Self { name: "RTM_GETNSID", number: 90 };

    /// Whether `kind` is what answers this `RTM_GET…`: the kernel describes an object with the
    /// message that would make it, which is the first of the four of its kind.
    pub(super) fn is_answered_by(self, kind: u16) -> bool {
        kind == self.number & !3
    }
}

/// Appends a request to `bytes`; `encode` writes what follows the header.
pub(super) fn append(
    bytes: &mut Vec<u8>,
    verb: Verb,
    flags: u16,
    sequence: u32,
    encode: impl FnOnce(&mut Vec<u8>),
) {
    let start = bytes.len();
    bytes.extend([0; 4]);
    bytes.extend(verb.number.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST as u16 | flags).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    // The port of the sender: the kernel's own business.
    bytes.extend([0; 4]);
    encode(bytes);
    // Every message begins at a multiple of four bytes, netlink(7).
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let length = u32::try_from(bytes.len() - start).unwrap_or(u32::MAX);
    bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_knows_its_length_and_the_next_one_is_aligned() {
        let mut bytes = Vec::new();
        append(&mut bytes, Verb::GET_LINK, 0x300, 7, |bytes| bytes.extend([1, 2, 3, 4, 5]));
        append(&mut bytes, Verb::DEL_LINK, 0, 8, |_| {});
        assert_eq!(bytes.len(), 24 + 16);
        assert_eq!(bytes[..4], 24_u32.to_ne_bytes());
        assert_eq!(bytes[4..8], [18, 0, 1, 3]);
        assert_eq!(bytes[8..12], 7_u32.to_ne_bytes());
        assert_eq!(bytes[24..32], [16, 0, 0, 0, 17, 0, 1, 0]);
    }

    #[test]
    fn an_answer_is_the_message_that_would_make_the_object() {
        assert!(Verb::GET_LINK.is_answered_by(16));
        assert!(Verb::GET_QDISC.is_answered_by(36));
        assert!(!Verb::GET_ADDR.is_answered_by(16));
    }
}
