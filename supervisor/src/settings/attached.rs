//! Which networks a container is in.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::{Network, Settings};
use crate::discovery::net::Net;

/// A network that a container is in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Attached {
    /// The network.
    pub(crate) net: Net,
    /// The address that it must have there.
    pub(crate) address: Option<Ipv4Addr>,
    /// More names that the service is found by there. They may change while containers run.
    pub(crate) aliases: BTreeSet<String>,
    /// What is for the rest of the world goes this way.
    pub(crate) leads_out: bool,
}

impl Default for Attached {
    fn default() -> Attached {
        Attached { net: Net::default(), address: None, aliases: BTreeSet::new(), leads_out: true }
    }
}

impl Settings {
    /// The networks that a container is in, `eth0` first.
    pub(crate) fn attached(&self) -> Vec<Attached> {
        match self.network {
            Network::Host | Network::None | Network::Joined => Vec::new(),
            Network::Project if self.networks.is_empty() => vec![Attached::default()],
            Network::Project => self.networks.clone(),
        }
    }

    /// Whether it cannot be without a network that leads out.
    pub(crate) fn needs_way_out(&self) -> bool {
        self.network == Network::Project && !self.host_names.is_empty()
    }

    /// Refuses several containers that must have one address.
    ///
    /// # Errors
    /// The address and the service.
    pub(crate) fn check_addresses(&self, service: &str, replicas: u32) -> Result<()> {
        let fixed = self.attached().into_iter().find_map(|one| Some((one.address?, one.net.name)));
        match fixed.filter(|_| replicas > 1) {
            Some((address, net)) => bail!(
                "{replicas} replicas of {service} cannot have one address ({address} in the \
                 network {net}); remove its `ipv4_address`"
            ),
            None => Ok(()),
        }
    }

    /// Forgets of its networks what may change while containers run. One that says nothing but what
    /// holds without it is as good as not said.
    pub(crate) fn settle_networks(&mut self) {
        self.networks.iter_mut().for_each(|one| one.aliases.clear());
        if self.networks == [Attached::default()] {
            self.networks.clear();
        }
    }
}
