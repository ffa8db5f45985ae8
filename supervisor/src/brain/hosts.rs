//! `/etc/hosts` of containers, from the brain's side: names that the file gives, and the host's.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, bail};
use minisup_core::name::InstanceId;

use super::bundle;
use super::engine::Brain;
use super::networks::Way;
use crate::discovery::uplink;
use crate::settings::{Attached, Network, Settings};

/// Names and where they lead.
pub(super) type Hosts = BTreeMap<String, Vec<IpAddr>>;

impl Brain {
    /// The names beyond its own that a container is told.
    ///
    /// # Errors
    /// One of them leads to the host, and no network of the container does.
    pub(super) fn hosts(&self, settings: &Settings) -> Result<Hosts> {
        let mut hosts = settings.hosts.clone();
        if settings.host_names.is_empty() {
            return Ok(hosts);
        }
        let address = self.host_address(settings).context(
            "there is no way to the host, to which a name in `extra_hosts` leads (`host-gateway`)",
        )?;
        for name in &settings.host_names {
            hosts.entry(name.clone()).or_default().push(address.into());
        }
        Ok(hosts)
    }

    /// The address by which a container reaches the host.
    fn host_address(&self, settings: &Settings) -> Result<Ipv4Addr> {
        if settings.network == Network::Host {
            return Ok(Ipv4Addr::LOCALHOST);
        }
        let attached = settings.attached();
        let Some(Attached { net, .. }) = attached.iter().find(|one| one.leads_out) else {
            bail!("it is in no network that leads out");
        };
        match self.networks.get(&net.key()).map(|there| &there.way) {
            Some(Way::Open) => uplink::host(),
            Some(Way::Closed(why)) => bail!("the network {} has no way out: {why}", net.name),
            Some(Way::Internal) => bail!("the network {} is internal", net.name),
            None => bail!("there is no network {}", net.name),
        }
    }

    /// Tells a container that runs the host's address, which may be another than when it came.
    pub(super) fn tell_hosts(&mut self, instance: &InstanceId) {
        let revision = self.state.instance(instance).map(|instance| instance.revision.clone());
        let spec = revision.and_then(|revision| self.spec(revision.as_str()));
        let Some(settings) = spec.map(|spec| spec.settings) else { return };
        if settings.host_names.is_empty() {
            return;
        }
        let dir = self.layout.bundle(&instance.to_string());
        let written = self.hosts(&settings).and_then(|hosts| {
            let config = std::fs::read_to_string(dir.join("config.json"))?;
            // In place: the container has this file, not one of this name.
            Ok(std::fs::write(dir.join("hosts"), bundle::hosts(&config, &hosts)?)?)
        });
        if let Err(error) = written {
            eprintln!("minisup brain: {instance} does not learn the host's address: {error:#}");
        }
    }
}
