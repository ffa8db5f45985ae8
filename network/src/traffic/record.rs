//! What was asked for, beside the leases.
//!
//! ```text
//! RUN/traffic/
//!   10.112.0.5                one container's rates and faults (JSON)
//! ```
//! A record whose lease is gone is removed by [`collect`](crate::collect).

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::lease::Lease;
use crate::process::Process;
use crate::store::{LockedStore, Store, entries, write_whole};
use crate::traffic::relay::Relay;
use crate::traffic::{Direction, Fault, Rates};

/// The rates and faults of one interface of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Whose they are.
    pub lease: Lease,
    /// How fast it may be.
    #[serde(default)]
    pub rates: Rates,
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Whether the container could remove queues at its own end, so that the host has to hold
    /// them.
    pub guarded: bool,
    /// The process that does what of the fault the kernel does not; it may have died since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<Relay>,
}

impl Record {
    /// The process that makes the fault of one direction, if it takes one. When that does not live
    /// any more, neither does the fault.
    pub fn relayed(&self, direction: Direction) -> Option<Process> {
        let relay = self.relay.filter(|relay| !relay.work.towards(direction).is_none());
        relay.map(|relay| relay.process)
    }

    /// The same without a fault whose relay has died.
    pub(super) fn without_what_is_over(self) -> Self {
        match self.relay {
            Some(relay) if !relay.process.is_alive() => Self { fault: None, relay: None, ..self },
            _ => self,
        }
    }
}

/// All records, by address.
pub fn records(store: &Store) -> Result<Vec<Record>> {
    let mut found = Vec::new();
    for name in entries(&dir(store))? {
        let Ok(address) = name.parse::<Ipv4Addr>() else { continue };
        found.extend(read(store, address)?);
    }
    Ok(found)
}

/// The record of that address.
pub(super) fn read(store: &Store, address: Ipv4Addr) -> Result<Option<Record>> {
    let path = dir(store).join(address.to_string());
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| Error::Damaged { path, source }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("reading", &path)(error)),
    }
}

/// Keeps a record; the lock is held so that two do not write at once.
pub(super) fn write(locked: &LockedStore<'_>, record: &Record) -> Result<()> {
    let dir = dir(locked.store());
    std::fs::create_dir_all(&dir).map_err(Error::file("making", &dir))?;
    write_whole(&dir, &dir.join(record.lease.ipv4.to_string()), record, false)
}

/// Removes the record of that address.
pub(crate) fn remove(store: &Store, address: Ipv4Addr) -> Result<()> {
    let path = dir(store).join(address.to_string());
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("removing", &path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes the records whose lease is not among `leased`, and says whether there were any. Their
/// relays have ended with their interfaces; one that could not (it was stopped) is killed.
pub(crate) fn keep_only(store: &Store, leased: impl Fn(Ipv4Addr) -> bool) -> Result<bool> {
    let mut removed = false;
    for name in entries(&dir(store))? {
        let Ok(address) = name.parse::<Ipv4Addr>() else { continue };
        if !leased(address) {
            if let Ok(Some(Record { relay: Some(relay), .. })) = read(store, address) {
                relay.process.kill()?;
            }
            remove(store, address)?;
            removed = true;
        }
    }
    Ok(removed)
}

fn dir(store: &Store) -> PathBuf {
    store.run().join("traffic")
}
