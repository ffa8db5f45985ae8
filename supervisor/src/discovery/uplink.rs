//! The way out of a network: one cable from its namespace to the host.
//!
//! ```text
//!   web.1 ── eth0 ─ bridge0 ──(masquerade)── uplink ══ mr0a700002 ─ minirun0 ──(masquerade)── world
//!           10.77.64.5                      10.112.0.2             10.112.0.1
//!           └───────── the network's namespace ──────┘ └────────────── the host ─────────────┘
//! ```
//!
//! # What we do
//! To the host, the whole network is one container of the network `minisup`, one of those that
//! `minirun network ls` shows: its bridge, its rules in a table of our own, its leases, and that what
//! a killed process leaves is found by the next command, are those of the crate `network`. The
//! project's own addresses never appear on the host, so they cannot clash with any route there, and
//! two projects may use the same. In the namespace packets get the address of the cable and are let
//! out; nothing comes in that was not asked for, also not from the network of another project.
//!
//! # By hand
//! ```text
//! ip link add mr0a700002 master minirun0 up type veth peer name uplink netns switch
//! ip -n switch addr add 10.112.0.2/20 dev uplink && ip -n switch link set uplink up
//! ip -n switch route add default via 10.112.0.1
//! ip netns exec switch nft -f RULES && ip netns exec switch sysctl net.ipv4.ip_forward=1
//! ```

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use anyhow::{Result, anyhow};
use network::attach::{Request, attach, detach_container};
use network::definition::Wish;
use network::firewall::{self, Family};
use network::netlink::Connection;
use network::store::{self, Store};
use network::{Error, fingerprint, host, networks};

use crate::netns;

/// The host's network that all ways out are in, and our table in each namespace.
const NAME: &str = "minisup";
/// The namespace's end of the cable.
const INSIDE: &str = "uplink";
/// How often a network is made once more that another project has just removed.
const ATTEMPTS: usize = 8;

/// What packets may do in the namespace. Whoever is at the bridge gets out; from outside comes only
/// what was asked for. (From bridge to bridge: where the kernel shows frames to the packet filter,
/// `net.bridge.bridge-nf-call-iptables`, containers would not reach each other without it.)
const RULES: &str = "\
\tchain forward {
\t\ttype filter hook forward priority filter; policy drop;
\t\tct state established,related accept
\t\tiifname \"bridge0\" oifname { \"bridge0\", \"uplink\" } accept
\t}
\tchain input {
\t\ttype filter hook input priority filter; policy accept;
\t\tiifname \"uplink\" ct state established,related accept
\t\tiifname \"uplink\" drop
\t}
\tchain postrouting {
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\toifname \"uplink\" masquerade
\t}
";

/// Lays the cable, or looks after one that is there; the answer is what was changed on the host and
/// what may stand in the way, for people. After an error there is none.
pub(crate) fn lay(namespace: BorrowedFd<'_>, owner: &str) -> Result<Vec<String>> {
    let laid = try_to_lay(namespace, owner);
    if laid.is_err() {
        // The first error is the one to tell.
        let _ = remove(owner);
    }
    laid.map_err(|error| anyhow!("{}", network::in_one_line(&error)))
}

fn try_to_lay(namespace: BorrowedFd<'_>, owner: &str) -> network::Result<Vec<String>> {
    let store = Store::open_default()?;
    // Before the cable, so that there is no moment without rules.
    within(namespace, ensure_rules)?;
    let mut told = Vec::new();
    let there = within(namespace, || find(Connection::open))?;
    if !there {
        let attachment = join(&store, namespace, owner)?;
        told.extend(attachment.changes.iter().map(ToString::to_string));
        told.extend(attachment.warnings);
    }
    // Somebody may have switched it off since another project needed it.
    told.extend(host::allow_forwarding(false)?.iter().map(ToString::to_string));
    within(namespace, || host::allow_forwarding(false))?;
    Ok(told)
}

fn within<T>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce() -> network::Result<T>,
) -> network::Result<T> {
    netns::within(namespace, work).unwrap_or_else(|error| {
        let what = format!("the way out of a network ({error:#})");
        Err(Error::Unsupported { what, needs: "a network namespace that can be entered".into() })
    })
}

/// Whether the cable is there, in the namespace that `open` leads to.
fn find(open: impl Fn() -> linux::Result<Connection>) -> network::Result<bool> {
    let look = || Ok(open()?.find_link(INSIDE)?.is_some());
    look().map_err(|source| Error::Kernel { step: format!("looking for {INSIDE}"), source })
}

fn ensure_rules() -> network::Result<()> {
    let mark = format!("rules of minisup {:016x}", fingerprint::of(RULES.as_bytes()));
    if firewall::carries(Family::Inet, NAME, Some(&mark))? {
        return Ok(());
    }
    let text = format!(
        "add table inet {NAME}\ndelete table inet {NAME}\n\
         table inet {NAME} {{\n\tcomment \"{mark}\"\n{RULES}}}\n"
    );
    firewall::apply(NAME, &text)
}

fn join(
    store: &Store,
    namespace: BorrowedFd<'_>,
    owner: &str,
) -> network::Result<network::attach::Attachment> {
    let interface = Some(INSIDE.to_string());
    let request = Request { network: NAME.to_string(), interface, ..Request::default() };
    let mut attempt = 1;
    loop {
        match networks::create(store, &Wish { name: NAME.to_string(), ..Wish::default() }) {
            Ok(_) | Err(Error::AlreadyExists(_)) => {}
            Err(error) => return Err(error),
        }
        match attach(store, namespace.as_fd(), owner, std::slice::from_ref(&request)) {
            // The last project that used it went in between.
            Err(Error::NotFound { .. }) if attempt < ATTEMPTS => attempt += 1,
            other => return other,
        }
    }
}

/// The host's address at the other end of the cables: that of its bridge.
///
/// # Errors
/// The host's network is not there.
pub(crate) fn host() -> Result<Ipv4Addr> {
    let network = Store::open_default().and_then(|store| store.network(NAME));
    Ok(network.map_err(|error| anyhow!("{}", network::in_one_line(&error)))?.ipv4.gateway)
}

/// Takes the cable of that owner away, and with the last one the host's network.
pub(crate) fn remove(owner: &str) -> Result<()> {
    if !is_used() {
        return Ok(());
    }
    let store = Store::open_default()?;
    detach_container(&store, owner)?;
    sweep()
}

/// Removes the host's network, with what killed projects have left of it, if no project uses it.
pub(crate) fn sweep() -> Result<()> {
    if !is_used() {
        return Ok(());
    }
    match networks::remove(&Store::open_default()?, NAME) {
        Ok(_) | Err(Error::InUse { .. } | Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(anyhow!("{}", network::in_one_line(&error))),
    }
}

/// Whether the host's network is there. Asking makes no directory.
fn is_used() -> bool {
    Path::new(store::CONFIG).join(format!("{NAME}.json")).exists()
}
