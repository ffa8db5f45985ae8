//! Settings of the host that a network needs: changed only when they must be, and always told.
//!
//! Forwarding is one switch for the whole host: there is no way to forward only for containers,
//! because the answers come in at the host's other interfaces. What may pass then is decided by the
//! rules of [`crate::rules`] for our networks, and by the host's own firewall for everything else.
//!
//! Nothing is switched back when the last network goes: by then others may rely on it.
//!
//! `net.bridge.bridge-nf-call-iptables` is never changed: our rules are right with it and without.

use std::path::{Path, PathBuf};

use linux::{OFlag, fd, path};
use serde::{Deserialize, Serialize};

use crate::error::{During, Error, Result};
use std::os::fd::AsFd;

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// A setting that was changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostChange {
    /// Its file, below `/proc/sys`.
    pub setting: PathBuf,
    /// What it was.
    pub before: String,
    /// What it is now.
    pub after: String,
    /// Why.
    pub why: String,
}

impl std::fmt::Display for HostChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let setting = self.setting.strip_prefix("/proc/sys").unwrap_or(&self.setting);
        let Self { before, after, why, .. } = self;
        write!(f, "{} was {before}, is {after}: {why}", setting.display())
    }
}

/// Lets the host forward packets.
pub fn allow_forwarding(ipv6: bool) -> Result<Vec<HostChange>> {
    let mut changes = Vec::new();
    let why = "containers reach the outside only through a host that forwards";
    changes.extend(set(Path::new(FORWARD), "1", why)?);
    let everywhere = Path::new("/proc/sys/net/ipv6/conf/all/forwarding");
    if ipv6 && everywhere.exists() && read(everywhere)? != "1" {
        changes.extend(keep_router_advertisements()?);
        changes.extend(set(everywhere, "1", why)?);
    }
    Ok(changes)
}

/// A host that forwards IPv6 stops listening to router advertisements and so loses its own default
/// route, unless `accept_ra` is 2 (ip-sysctl, "accept_ra").
fn keep_router_advertisements() -> Result<Vec<HostChange>> {
    let base = Path::new("/proc/sys/net/ipv6/conf");
    let mut changes = Vec::new();
    for name in crate::store::entries(base)? {
        let own = name.starts_with("minirun") || name.starts_with("mr");
        if own || ["all", "default", "lo"].contains(&&*name) {
            continue;
        }
        let file = base.join(&name).join("accept_ra");
        if read(&file)? == "1" {
            let why = "a host that forwards would otherwise lose the default route that it learned";
            changes.extend(set(&file, "2", why)?);
        }
    }
    Ok(changes)
}

/// Refuses where the host does not forward and cannot be told to, as in a container of another
/// runtime, whose `/proc/sys` is read-only.
pub(crate) fn check_forwarding() -> Result<()> {
    let file = Path::new(FORWARD);
    if read(file)? == "1" {
        return Ok(());
    }
    let opened = path::open(file, OFlag::O_WRONLY);
    opened.during(|| format!("setting {} to 1", file.display())).map(drop)
}

fn set(file: &Path, wanted: &str, why: &str) -> Result<Option<HostChange>> {
    let before = read(file)?;
    if before == wanted {
        return Ok(None);
    }
    let write = || {
        let file = path::open(file, OFlag::O_WRONLY)?;
        fd::write_at_once(file.as_fd(), wanted.as_bytes())
    };
    write().during(|| format!("setting {} to {wanted}", file.display()))?;
    let (setting, after, why) = (file.to_owned(), wanted.to_owned(), why.to_owned());
    Ok(Some(HostChange { setting, before, after, why }))
}

fn read(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file).map_err(Error::file("reading", file))?;
    Ok(text.trim().to_owned())
}
