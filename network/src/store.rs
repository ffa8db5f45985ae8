//! The store: which networks there are, and which addresses are given.
//!
//! ```text
//! CONFIG/                     /var/lib/minirun/networks   outlives a reboot
//!   NAME.json                 a network; written once, then only read or removed
//! RUN/                        /run/minirun/network        gone after a reboot, as containers are
//!   lock                      flock: held while something below or in CONFIG is added
//!   transparent               exists once a port was published: the rules need one more chain
//!   leases/NAME/
//!     hand                    the address that was given last
//!     10.112.0.5              a lease (JSON, see `Lease`): its interface is made
//!     10.112.0.6,fd00::6      the same, with IPv6
//!     10.112.0.7~             a lease whose interface is being made
//!     .new                    a lease that is being written
//! ```
//!
//! **Why nothing is lost or given twice, whatever dies when.** A file appears under its name only
//! complete (`.new`, then rename). The name is the claim: an address is free if no file is called
//! so, and only the holder of the lock changes names. A lease with `~` belongs to the process that
//! is named in it: when that is dead, so is the lease. A lease without `~` lives as long as the
//! host's end of its cable (named after the address) exists, which the kernel removes together with
//! the container's namespace. Nothing has to be remembered that could be forgotten: see
//! [`collect`](crate::collect).
//!
//! The lock is the kernel's (flock(2)): it is free when its holder dies. `.new` of a dead holder is
//! overwritten by the next one, or removed by the next collection.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::allocate::{next_ipv4, next_ipv6};
use crate::definition::{Network, check_name, is_host4};
use crate::error::{Error, Result};
use crate::hardware::HardwareAddress;
use crate::lease::{Lease, LeaseName};
use crate::process::Process;

/// Where networks are kept.
pub const CONFIG: &str = "/var/lib/minirun/networks";
/// Where leases are kept.
pub const RUN: &str = "/run/minirun/network";

/// The networks of a host and their leases.
#[derive(Debug)]
pub struct Store {
    config: PathBuf,
    run: PathBuf,
    label: String,
}

/// The store, while nobody else changes it.
#[derive(Debug)]
pub struct LockedStore<'a> {
    store: &'a Store,
    _lock: File,
}

/// What a container wants in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim<'a> {
    /// The container.
    pub container: &'a str,
    /// The interface inside it.
    pub interface: &'a str,
    /// Addresses that it must get, at most one per family.
    pub addresses: &'a [IpAddr],
    /// The hardware address that it must get.
    pub hardware: Option<HardwareAddress>,
}

impl Store {
    /// The store at the usual places.
    pub fn open_default() -> Result<Self> {
        Self::open(Path::new(CONFIG), Path::new(RUN))
    }

    /// A store at these places, which are made when they are missing.
    pub fn open(config: &Path, run: &Path) -> Result<Self> {
        for dir in [config, run] {
            make_dir(dir)?;
        }
        let label = if run == Path::new(RUN) {
            "minirun".to_owned()
        } else {
            let hash = crate::fingerprint::of(run.as_os_str().as_encoded_bytes());
            format!("minirun_{:08x}", hash & 0xffff_ffff)
        };
        Ok(Self { config: config.into(), run: run.into(), label })
    }

    /// What the kernel objects of this store are marked with, so that two stores on one host leave
    /// each other's alone.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Where what belongs to running containers is kept.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Waits for the lock.
    pub fn lock(&self) -> Result<LockedStore<'_>> {
        let lock = self.open_lock()?;
        lock.lock().map_err(Error::file("locking", &self.run.join("lock")))?;
        Ok(LockedStore { store: self, _lock: lock })
    }

    /// Opens what is locked for writing, which fails where leases could not be written either.
    pub(crate) fn open_lock(&self) -> Result<File> {
        let path = self.run.join("lock");
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        options.open(&path).map_err(Error::file("opening", &path))
    }

    /// The network of that name.
    pub fn network(&self, name: &str) -> Result<Network> {
        check_name(name)?;
        let path = self.definition(name);
        match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|source| Error::Damaged { path, source })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Error::NotFound { what: "network", name: name.to_owned() })
            }
            Err(error) => Err(Error::file("reading", &path)(error)),
        }
    }

    /// All networks, by name.
    pub fn networks(&self) -> Result<Vec<Network>> {
        let names = entries(&self.config)?;
        let names = names.iter().filter_map(|name| name.strip_suffix(".json"));
        let mut networks = Vec::new();
        for name in names.filter(|name| check_name(name).is_ok()) {
            match self.network(name) {
                Ok(network) => networks.push(network),
                // Removed since the directory was read.
                Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(networks)
    }

    /// The leases of a network, by address. Those that are being made come too.
    pub fn leases(&self, network: &str) -> Result<Vec<Lease>> {
        let names = self.lease_names(network)?;
        Ok(names.into_iter().filter_map(|name| self.lease(network, name)).collect())
    }

    /// The lease of that name; `None` when it is gone, or is no lease.
    pub(crate) fn lease(&self, network: &str, name: LeaseName) -> Option<Lease> {
        let bytes = fs::read(self.lease_path(network, name)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Whether a pending lease is somebody's who lives. One that is not there any more says nothing
    /// about its successor.
    fn is_claimed(&self, network: &str, name: LeaseName) -> bool {
        match fs::read(self.lease_path(network, name)) {
            Ok(bytes) => {
                serde_json::from_slice::<Lease>(&bytes).is_ok_and(|lease| lease.claimant.is_alive())
            }
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
    }

    pub(crate) fn lease_names(&self, network: &str) -> Result<BTreeSet<LeaseName>> {
        let names = entries(&self.leases_dir(network))?;
        Ok(names.iter().filter_map(|name| LeaseName::parse(name)).collect())
    }

    /// The names of the networks that have a directory for leases.
    pub(crate) fn lease_dirs(&self) -> Result<Vec<String>> {
        entries(&self.run.join("leases"))
    }

    pub(crate) fn forget(&self, network: &str, name: LeaseName) -> Result<()> {
        remove_file(&self.lease_path(network, name))
    }

    /// Whether published ports need rules for transparent sockets, see [`crate::publish`].
    pub(crate) fn wants_transparent(&self) -> bool {
        self.transparent_flag().exists()
    }

    pub(crate) fn transparent_flag(&self) -> PathBuf {
        self.run.join("transparent")
    }

    fn definition(&self, name: &str) -> PathBuf {
        self.config.join(format!("{name}.json"))
    }

    pub(crate) fn leases_dir(&self, network: &str) -> PathBuf {
        self.run.join("leases").join(network)
    }

    fn lease_path(&self, network: &str, name: LeaseName) -> PathBuf {
        self.leases_dir(network).join(name.text())
    }
}

impl LockedStore<'_> {
    /// The store that is locked.
    pub fn store(&self) -> &Store {
        self.store
    }

    /// Adds a network, for good.
    pub fn add(&self, network: &Network) -> Result<()> {
        let path = self.store.definition(&network.name);
        if path.exists() {
            return Err(Error::AlreadyExists(network.name.clone()));
        }
        // A network outlives a power cut, so its bytes must be down before its name is.
        write_whole(&self.store.config, &path, network, true)
    }

    /// Removes files that a dead process had not finished writing.
    pub(crate) fn remove_unfinished(&self) -> Result<()> {
        let leases = self.store.lease_dirs()?.into_iter().map(|name| self.store.leases_dir(&name));
        let others = [self.store.config.clone(), self.store.run.join("traffic")];
        leases.chain(others).try_for_each(|dir| remove_file(&dir.join(".new")))
    }

    /// Removes a network. Its bridges and leases are left for [`collect`](crate::collect).
    pub fn remove(&self, name: &str) -> Result<()> {
        remove_file(&self.store.definition(name))
    }

    /// Gives a container addresses. The lease is pending until [committed](Self::commit).
    pub fn claim(&self, network: &Network, claim: &Claim<'_>) -> Result<Lease> {
        let dir = self.store.leases_dir(&network.name);
        make_dir(&dir)?;
        let names = self.store.lease_names(&network.name)?;
        let ipv4s: BTreeSet<Ipv4Addr> = names.iter().map(|name| name.ipv4).collect();
        let ipv6s: BTreeSet<Ipv6Addr> = names.iter().filter_map(|name| name.ipv6).collect();
        let wanted = Wanted::sort(network, claim.addresses)?;
        let taken = |address: IpAddr| self.taken(network, &names, address);
        let ipv4 = match wanted.ipv4 {
            Some(address) if ipv4s.contains(&address) => return Err(taken(address.into())),
            Some(address) => address,
            None => next_ipv4(network, &ipv4s, self.hand(&dir)).ok_or_else(|| {
                Error::Exhausted(format!(
                    "network {} has no free IPv4 address left ({} are given); \
                     make one with a larger --subnet or --ip-range",
                    network.name,
                    ipv4s.len()
                ))
            })?,
        };
        let ipv6 = match wanted.ipv6 {
            Some(address) if ipv6s.contains(&address) => return Err(taken(address.into())),
            Some(address) => Some(address),
            None => next_ipv6(network, &ipv6s, ipv4),
        };
        let lease = Lease {
            network: network.name.clone(),
            container: claim.container.to_owned(),
            interface: claim.interface.to_owned(),
            ipv4,
            ipv6,
            hardware: claim.hardware.unwrap_or_else(|| HardwareAddress::for_ipv4(ipv4)),
            claimant: Process::current(),
        };
        let path = self.store.lease_path(&network.name, lease.name(true));
        crash::point();
        write_whole(&dir, &path, &lease, false)?;
        crash::point();
        // A lost hand only makes the next address come from the beginning.
        let _ = fs::write(dir.join("hand"), ipv4.to_string());
        Ok(lease)
    }

    /// Says that the interface of a lease is made.
    ///
    /// Under the lock, because whoever reads a directory while a name in it changes may see neither
    /// the old name nor the new one, and would give the address to somebody else.
    pub fn commit(&self, lease: &Lease) -> Result<()> {
        crash::point();
        let (from, to) = (lease.name(true), lease.name(false));
        let path = self.store.lease_path(&lease.network, from);
        let to = self.store.lease_path(&lease.network, to);
        fs::rename(&path, to).map_err(Error::file("renaming", &path))
    }

    /// Whether this very lease is still there, and not a later one of the same address.
    pub fn holds(&self, lease: &Lease) -> bool {
        [false, true].iter().any(|pending| {
            self.store.lease(&lease.network, lease.name(*pending)).as_ref() == Some(lease)
        })
    }

    /// Frees the addresses of a lease, if it is still there. Its interface must be gone.
    pub fn release(&self, lease: &Lease) -> Result<()> {
        for pending in [false, true] {
            let name = lease.name(pending);
            if self.store.lease(&lease.network, name).as_ref() == Some(lease) {
                crash::point();
                self.store.forget(&lease.network, name)?;
            }
        }
        Ok(())
    }

    /// The leases of a network whose container is gone. The caller removes what is left of each
    /// and then [forgets](Store::forget) it.
    ///
    /// `among` chooses the leases to look at. `cable` tells whether the host's end of the cable to
    /// that address exists. A lease that is being made lives as long as its maker; a made one as
    /// long as its cable.
    pub(crate) fn sweep(
        &self,
        network: &str,
        among: impl Fn(&LeaseName) -> bool,
        mut cable: impl FnMut(Ipv4Addr) -> Result<bool>,
    ) -> Result<Vec<LeaseName>> {
        let mut dead = Vec::new();
        for name in self.store.lease_names(network)?.into_iter().filter(among) {
            let lives =
                if name.pending { self.store.is_claimed(network, name) } else { cable(name.ipv4)? };
            if !lives {
                dead.push(name);
            }
        }
        Ok(dead)
    }

    /// The address that was given last.
    pub(crate) fn hand(&self, leases: &Path) -> Option<Ipv4Addr> {
        fs::read_to_string(leases.join("hand")).ok()?.parse().ok()
    }

    fn taken(&self, network: &Network, names: &BTreeSet<LeaseName>, address: IpAddr) -> Error {
        let owner = names.iter().find(|name| {
            IpAddr::V4(name.ipv4) == address || name.ipv6.map(IpAddr::V6) == Some(address)
        });
        let lease = owner.and_then(|name| self.store.lease(&network.name, *name));
        let container = lease.map_or_else(|| "another container".into(), |lease| lease.container);
        Error::AddressTaken { address, network: network.name.clone(), container }
    }
}

/// Addresses that a container must get, checked.
#[derive(Debug, Default)]
struct Wanted {
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
}

impl Wanted {
    fn sort(network: &Network, addresses: &[IpAddr]) -> Result<Self> {
        let mut wanted = Self::default();
        for address in addresses {
            let why = match address {
                IpAddr::V4(ipv4) => {
                    let subnet = &network.ipv4;
                    if wanted.ipv4.replace(*ipv4).is_some() {
                        "is the second IPv4 address for one interface".into()
                    } else if !is_host4(subnet.subnet, *ipv4) {
                        format!("is no address for hosts of {}", subnet.subnet)
                    } else if *ipv4 == subnet.gateway || subnet.reserved.contains(ipv4) {
                        "is the gateway's, or reserved".into()
                    } else {
                        continue;
                    }
                }
                IpAddr::V6(ipv6) => match &network.ipv6 {
                    None => "is IPv6, which the network does not have".into(),
                    Some(_) if wanted.ipv6.replace(*ipv6).is_some() => {
                        "is the second IPv6 address for one interface".into()
                    }
                    Some(six) if !six.subnet.contains(ipv6) || *ipv6 == six.subnet.network() => {
                        format!("is no address for hosts of {}", six.subnet)
                    }
                    Some(six) if *ipv6 == six.gateway || six.reserved.contains(ipv6) => {
                        "is the gateway's, or reserved".into()
                    }
                    Some(_) => continue,
                },
            };
            return Err(Error::invalid("address", address.to_string(), why));
        }
        Ok(wanted)
    }
}

/// The names in a directory, sorted; none when it is not there.
pub(crate) fn entries(dir: &Path) -> Result<Vec<String>> {
    let found = match fs::read_dir(dir) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("reading", dir)(error)),
    };
    let mut names = Vec::new();
    for entry in found {
        let entry = entry.map_err(Error::file("reading", dir))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

fn make_dir(dir: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(Error::file("making", dir))
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::file("removing", path)(error))
        }
        _ => Ok(()),
    }
}

/// Makes a file appear complete or not at all. Only the holder of the lock may do that in `dir`.
pub(crate) fn write_whole(
    dir: &Path,
    path: &Path,
    value: &impl Serialize,
    durable: bool,
) -> Result<()> {
    let new = dir.join(".new");
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|source| Error::Damaged { path: path.to_owned(), source })?;
    bytes.push(b'\n');
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600);
    let mut file = options.open(&new).map_err(Error::file("making", &new))?;
    crash::point();
    file.write_all(&bytes).map_err(Error::file("writing", &new))?;
    crash::point();
    if durable {
        file.sync_all().map_err(Error::file("writing", &new))?;
    }
    fs::rename(&new, path).map_err(Error::file("renaming", &new))?;
    if durable {
        let dir_file = File::open(dir).map_err(Error::file("opening", dir))?;
        dir_file.sync_all().map_err(Error::file("writing", dir))?;
    }
    Ok(())
}

/// Places where a test lets the process die.
#[cfg(not(test))]
pub(crate) mod crash {
    #[inline(always)]
    pub(crate) fn point() {}
}

#[cfg(test)]
pub(crate) mod crash {
    use std::cell::Cell;

    thread_local! {
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// Dies at the point number `points` from now, or never.
    pub(crate) fn after(points: Option<u32>) {
        LEFT.set(points);
    }

    pub(crate) fn point() {
        match LEFT.get() {
            Some(0) => {
                LEFT.set(None);
                std::panic::resume_unwind(Box::new("crash"));
            }
            Some(left) => LEFT.set(Some(left - 1)),
            None => {}
        }
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
