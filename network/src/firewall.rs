//! What is in the kernel's packet filter: whether our table is, and who else drops packets.
//!
//! Reading goes through netlink, because it is done at every start of a container and nft(8) would
//! cost 4 ms; writing goes through nft(8), whose language people can read, and is rare.

use std::io::Write;
use std::process::{Command, Stdio};

use linux::netlink::{Netlink, Protocol};
use linux::{Errno, trace};

use crate::error::{During, Error, Result};
use crate::netlink::attributes_of;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_USERDATA: u16 = 6;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NF_INET_FORWARD: u32 = 2;
const NF_DROP: u32 = 0;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// nlmsghdr and nfgenmsg.
const HEADERS_BYTES: usize = 16 + 4;

/// A chain of another program that drops forwarded packets unless a rule of its own accepts them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DroppingChain {
    /// `ip`, `ip6`, `inet`.
    pub family: &'static str,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
}

/// The packets that a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6, where they are routed.
    Inet,
    /// Frames on bridges.
    Bridge,
}

impl Family {
    fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Bridge => 7,
        }
    }
}

/// Whether the table `label` is there and, when a mark is given, carries it.
pub fn carries(family: Family, label: &str, mark: Option<&str>) -> Result<bool> {
    let mut kernel = Netlink::open(Protocol::Netfilter)
        .during(|| "looking for the rules of the networks".into())?;
    let name = [label.as_bytes(), &[0]].concat();
    let body = crate::netlink::attribute(NFTA_TABLE_NAME, &name);
    let request = request(NFT_MSG_GETTABLE, NLM_F_REQUEST, family.number(), &body);
    let look = |kernel: &mut Netlink| -> linux::Result<bool> {
        kernel.send(&request, || format!("NFT_MSG_GETTABLE {family:?} {label}"))?;
        let answer = kernel.receive()?;
        if kind_of(answer).is_none_or(|kind| kind == NLMSG_ERROR) {
            return Ok(false);
        }
        let Some(mark) = mark else { return Ok(true) };
        let userdata = attributes_of(answer.get(HEADERS_BYTES..).unwrap_or(&[]))
            .find(|(kind, _)| *kind == NFTA_TABLE_USERDATA);
        Ok(userdata.is_some_and(|(_, value)| {
            value.windows(mark.len().max(1)).any(|window| window == mark.as_bytes())
        }))
    };
    look(&mut kernel).during(|| "looking for the rules of the networks".into())
}

/// The chains of others at the forward hook whose policy is drop, sorted.
///
/// Only nf_tables is seen, and with it iptables-nft; for the old iptables-legacy see
/// [`legacy_filters`].
pub fn dropping_chains(own: &str) -> Result<Vec<DroppingChain>> {
    let dump = || -> linux::Result<Vec<DroppingChain>> {
        let mut kernel = Netlink::open(Protocol::Netfilter)?;
        let request = request(NFT_MSG_GETCHAIN, NLM_F_REQUEST | NLM_F_DUMP, 0, &[]);
        kernel.send(&request, || "NFT_MSG_GETCHAIN all".into())?;
        let mut found = Vec::new();
        loop {
            let mut bytes = kernel.receive()?;
            while let Some(length) = bytes.first_chunk().map(|b: &[u8; 4]| u32::from_ne_bytes(*b)) {
                let length = usize::try_from(length).unwrap_or(0);
                let Some(message) = bytes.get(..length).filter(|m| m.len() >= 16) else { break };
                match kind_of(message) {
                    // No nf_tables in this kernel, or none used: nobody drops.
                    None | Some(NLMSG_DONE | NLMSG_ERROR) => return Ok(found),
                    Some(_) => found.extend(dropping_chain(message)),
                }
                bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
            }
        }
    };
    let mut chains = dump().during(|| "listing the chains of other firewalls".into())?;
    chains.retain(|chain| chain.table != own);
    chains.sort();
    Ok(chains)
}

/// The programs of iptables-legacy that filter on this host. Which packets they drop only their own
/// interface tells, so a table that lets everything pass is among them.
pub fn legacy_filters() -> Vec<&'static str> {
    let files = [("ip_tables_names", "iptables-legacy"), ("ip6_tables_names", "ip6tables-legacy")];
    let filters = |file: &str| {
        // The network namespace is the thread's, and /proc/net the first thread's.
        let names = std::fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        names.is_ok_and(|names| names.lines().any(|name| name == "filter"))
    };
    let found = files.into_iter().filter(|(file, _)| filters(file));
    found.map(|(_, program)| program).collect()
}

fn dropping_chain(message: &[u8]) -> Option<DroppingChain> {
    if kind_of(message)? != (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_NEWCHAIN {
        return None;
    }
    let family = match *message.get(16)? {
        1 => "inet",
        2 => "ip",
        10 => "ip6",
        _ => return None,
    };
    let (mut table, mut chain, mut hook, mut policy) = (None, None, None, None);
    for (kind, value) in attributes_of(message.get(HEADERS_BYTES..)?) {
        let text = || String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into();
        match kind {
            NFTA_CHAIN_TABLE => table = Some(text()),
            NFTA_CHAIN_NAME => chain = Some(text()),
            NFTA_CHAIN_HOOK => {
                let number = attributes_of(value).find(|(kind, _)| *kind == NFTA_HOOK_HOOKNUM);
                hook = number.and_then(|(_, value)| big_endian(value));
            }
            NFTA_CHAIN_POLICY => policy = big_endian(value),
            _ => {}
        }
    }
    (hook == Some(NF_INET_FORWARD) && policy == Some(NF_DROP)).then_some(DroppingChain {
        family,
        table: table?,
        chain: chain?,
    })
}

/// The type of a netlink message.
fn kind_of(message: &[u8]) -> Option<u16> {
    message.get(4..6)?.try_into().ok().map(u16::from_ne_bytes)
}

fn big_endian(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

fn request(kind: u16, flags: u16, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADERS_BYTES + body.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(((NFNL_SUBSYS_NFTABLES << 8) | kind).to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, 0, 0, 0]);
    bytes.extend(body);
    bytes
}

/// Gives `rules` to nft(8), which applies all or nothing.
pub fn apply(table: &str, rules: &str) -> Result<()> {
    let fail = |answer: String| Error::Rules { table: table.to_owned(), answer };
    let spawned = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::Unsupported {
            what: "a network with bridges".into(),
            needs: "the program nft in PATH (Debian and Fedora: package nftables)".into(),
        },
        _ => fail(error.to_string()),
    })?;
    if let Some(mut input) = child.stdin.take() {
        // A broken pipe means that nft has ended, and its own words say why.
        let _ = input.write_all(rules.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| fail(error.to_string()))?;
    let answer = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let result = if output.status.success() { Ok(()) } else { Err(Errno::EINVAL) };
    // The rules are what `--explain` should show, as they would be typed.
    trace::observe("nft", || format!("-f - <<'RULES'\n{rules}RULES\n"), result)
        .map_err(|_| fail(answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::attribute;

    fn chain(policy: u32, hook: u32) -> Vec<u8> {
        let mut body = attribute(NFTA_CHAIN_TABLE, b"filter\0");
        body.extend(attribute(NFTA_CHAIN_NAME, b"FORWARD\0"));
        body.extend(attribute(NFTA_CHAIN_HOOK, &attribute(1, &hook.to_be_bytes())));
        body.extend(attribute(NFTA_CHAIN_POLICY, &policy.to_be_bytes()));
        request(NFT_MSG_NEWCHAIN, 0, 2, &body)
    }

    #[test]
    fn only_chains_that_drop_at_the_forward_hook_are_found() {
        let found = dropping_chain(&chain(NF_DROP, NF_INET_FORWARD)).unwrap();
        assert_eq!((found.family, &*found.table, &*found.chain), ("ip", "filter", "FORWARD"));
        assert_eq!(dropping_chain(&chain(1, NF_INET_FORWARD)), None);
        assert_eq!(dropping_chain(&chain(NF_DROP, 1)), None);
        assert_eq!(dropping_chain(&chain(NF_DROP, NF_INET_FORWARD)[..40]), None);
    }
}
