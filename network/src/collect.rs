//! Removing what dead containers and dead commands have left.
//!
//! Nothing here depends on anybody having said goodbye. What should be there follows from the store
//! and from the kernel, and everything else that carries our mark is removed. Every command that is
//! not on a container's way to its start collects all; a start collects only the leases that the
//! allocator's hand comes to next, so that its cost does not grow with the number of containers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use linux::Errno;

use crate::bridge::remove_link;
use crate::definition::Network;
use crate::error::{During, Error, Result};
use crate::lease::{LeaseName, host_interface};
use crate::netlink::{Batch, Connection};
use crate::store::{LockedStore, Store};

/// How many leases a start looks at: the next ones that the hand would come to.
const LOOK_AHEAD: usize = 16;

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Collected {
    /// Addresses that are free again.
    pub addresses: Vec<IpAddr>,
    /// Interfaces that nothing used.
    pub interfaces: Vec<String>,
    /// Networks that were removed (by `prune`).
    pub networks: Vec<String>,
}

/// Removes everything that is left of containers that are gone.
pub fn collect(store: &Store) -> Result<Collected> {
    let locked = store.lock()?;
    collect_locked(&locked)
}

pub(crate) fn collect_locked(locked: &LockedStore<'_>) -> Result<Collected> {
    let store = locked.store();
    let mut kernel = connect()?;
    let mut collected = Collected::default();
    locked.remove_unfinished()?;
    let networks = store.networks()?;
    let mut leased = BTreeSet::new();
    for dir in store.lease_dirs()? {
        let network = networks.iter().find(|network| network.name == dir);
        let dead = sweep(locked, &mut kernel, &dir, |_| true)?;
        for name in &dead {
            end(store, &mut kernel, network, &dir, *name)?;
            collected.addresses.push(name.ipv4.into());
            collected.addresses.extend(name.ipv6.map(IpAddr::V6));
        }
        leased.extend(store.lease_names(&dir)?);
        if network.is_none() {
            remove_dir(store, &dir)?;
        }
    }
    remove_interfaces(store, &mut kernel, &networks, &leased, &mut collected)?;
    remove_neighbours(store, &mut kernel, &networks, &leased)?;
    let has = |address| leased.iter().any(|name| name.ipv4 == address);
    if crate::traffic::keep_only(store, has)? {
        crate::traffic::refresh_losses(locked, false)?;
    }
    crate::traffic::forget_faults_of_the_dead(locked)?;
    Ok(collected)
}

/// Frees the dead leases among those that the allocator comes to next.
pub(crate) fn collect_ahead(
    locked: &LockedStore<'_>,
    kernel: &mut Connection,
    network: &Network,
) -> Result<()> {
    let store = locked.store();
    let names = store.lease_names(&network.name)?;
    if names.is_empty() {
        return Ok(());
    }
    let hand = locked.hand(&store.leases_dir(&network.name));
    let after = names.iter().filter(|name| hand.is_some_and(|hand| name.ipv4 > hand));
    let before = names.iter().filter(|name| hand.is_none_or(|hand| name.ipv4 <= hand));
    let ahead: BTreeSet<LeaseName> = after.chain(before).take(LOOK_AHEAD).copied().collect();
    for name in sweep(locked, kernel, &network.name, |name| ahead.contains(name))? {
        end(store, kernel, Some(network), &network.name, name)?;
    }
    Ok(())
}

fn sweep(
    locked: &LockedStore<'_>,
    kernel: &mut Connection,
    network: &str,
    among: impl Fn(&LeaseName) -> bool,
) -> Result<Vec<LeaseName>> {
    locked.sweep(network, among, |address| {
        let name = host_interface(address);
        let link =
            kernel.find_link(&name).during(|| format!("looking for the interface {name}"))?;
        Ok(link.is_some())
    })
}

/// Removes what a dead lease may have left, and the lease last.
fn end(
    store: &Store,
    kernel: &mut Connection,
    network: Option<&Network>,
    dir: &str,
    name: LeaseName,
) -> Result<()> {
    remove_link(kernel, &host_interface(name.ipv4))?;
    if let Some(network) = network {
        forget_neighbours(kernel, network, name.ipv4.into(), name.ipv6.map(IpAddr::V6))?;
    }
    store.forget(dir, name)
}

pub(crate) fn forget_neighbours(
    kernel: &mut Connection,
    network: &Network,
    ipv4: IpAddr,
    ipv6: Option<IpAddr>,
) -> Result<()> {
    let bridge = network.bridge();
    let link = kernel.find_link(&bridge).during(|| format!("looking for the bridge {bridge}"))?;
    let Some(link) = link else { return Ok(()) };
    let mut batch = Batch::new();
    for address in std::iter::once(ipv4).chain(ipv6) {
        batch.delete_neighbour(link.index, address).unless(Errno::ENOENT);
    }
    kernel.execute(&batch).during(|| format!("forgetting {ipv4} on {bridge}"))
}

/// Interfaces with our mark that no network and no lease accounts for.
fn remove_interfaces(
    store: &Store,
    kernel: &mut Connection,
    networks: &[Network],
    leased: &BTreeSet<LeaseName>,
    collected: &mut Collected,
) -> Result<()> {
    let ours = format!("{} ", store.label());
    let wanted: BTreeSet<String> = leased
        .iter()
        .flat_map(|name| [host_interface(name.ipv4), crate::traffic::ifb_name(name.ipv4)])
        .chain(leased.iter().flat_map(|name| crate::traffic::relay::tap_names(name.ipv4)))
        .chain(networks.iter().flat_map(|network| {
            (0..network.shards())
                .map(|shard| network.bridge_of(shard))
                .flat_map(|bridge| [format!("{bridge}u"), format!("{bridge}d"), bridge])
        }))
        .collect();
    let links = kernel.links().during(|| "listing the host's interfaces".into())?;
    for link in links {
        let marked = link.alias.is_some_and(|alias| alias.starts_with(&ours));
        if marked && !wanted.contains(&link.name) {
            remove_link(kernel, &link.name)?;
            collected.interfaces.push(link.name);
        }
    }
    collected.interfaces.sort();
    Ok(())
}

/// Neighbours on our bridges that no lease accounts for.
fn remove_neighbours(
    store: &Store,
    kernel: &mut Connection,
    networks: &[Network],
    leased: &BTreeSet<LeaseName>,
) -> Result<()> {
    let mut bridges = BTreeSet::new();
    for network in networks {
        let name = network.bridge();
        let link = kernel.find_link(&name).during(|| format!("looking for the bridge {name}"))?;
        let alias = crate::bridge::alias(store, network);
        bridges.extend(link.filter(|l| l.alias.as_ref() == Some(&alias)).map(|link| link.index));
    }
    let addresses: BTreeSet<IpAddr> = leased
        .iter()
        .flat_map(|name| [Some(IpAddr::V4(name.ipv4)), name.ipv6.map(IpAddr::V6)])
        .flatten()
        .collect();
    let told = kernel.told_neighbours().during(|| "listing the host's neighbours".into())?;
    let mut batch = Batch::new();
    for neighbour in told {
        if bridges.contains(&neighbour.link) && !addresses.contains(&neighbour.address) {
            batch.delete_neighbour(neighbour.link, neighbour.address).unless(Errno::ENOENT);
        }
    }
    kernel.execute(&batch).during(|| "forgetting neighbours of the bridges".into())
}

/// The directory of leases of a network that is gone, once it is empty.
fn remove_dir(store: &Store, name: &str) -> Result<()> {
    if !store.lease_names(name)?.is_empty() {
        return Ok(());
    }
    let dir = store.leases_dir(name);
    std::fs::remove_dir_all(&dir).map_err(Error::file("removing", &dir))
}

pub(crate) fn connect() -> Result<Connection> {
    Connection::open().during(|| "connecting to the kernel's network code".into())
}
