//! How many containers a project may have: what is too much is refused before it is begun.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::Stack;

/// Containers of a project. A thousand have been measured; their number has a cost for each step.
const CONTAINERS: u32 = 2000;
/// Containers in a network: a bridge has 1023 ports (`BR_MAX_PORTS`), and a replacement that starts
/// first needs one more for a while.
const IN_A_NETWORK: u32 = 1000;

impl Stack {
    /// Checks that every network has room for its containers, and that they are not too many in
    /// all; `count` is the number of replicas of a service.
    ///
    /// # Errors
    /// What has no room, and how much there is.
    pub(crate) fn check_room(&self, count: impl Fn(&str) -> u32) -> Result<()> {
        let mut all = 0_u32;
        let mut networks: BTreeMap<String, (u32, u32, String)> = BTreeMap::new();
        for (name, spec) in &self.services {
            let replicas = count(name);
            spec.settings.check_addresses(name, replicas)?;
            all = all.saturating_add(replicas);
            for one in spec.settings.attached() {
                let room = one.net.room().min(IN_A_NETWORK);
                let entry = networks.entry(one.net.key()).or_insert((0, room, one.net.name));
                entry.0 = entry.0.saturating_add(replicas);
            }
        }
        if all > CONTAINERS {
            bail!("{all} replicas are more than one project may have here, which is {CONTAINERS}");
        }
        for (wanted, room, name) in networks.into_values() {
            if wanted > room {
                bail!(
                    "the network {name} has room for {room} replicas, not for {wanted}; divide \
                     them among networks, or give it a larger subnet if that is what is small"
                );
            }
        }
        Ok(())
    }
}
