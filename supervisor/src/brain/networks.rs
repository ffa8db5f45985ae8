//! The project's networks, from the brain's side: each made once, kept by the keeper until no
//! container is in it, and led out unless it is internal.
//!
//! A network that cannot be made costs the names of services, and one without a way out costs the
//! rest of the world, but never the services: containers are reached by their own loopback in any
//! case ([`crate::netns`]). What is missing and why is in what the API shows, and `up` and `doctor`
//! tell it.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use anyhow::Context;
use minisup_core::name::InstanceId;
use serde::{Deserialize, Serialize};

use super::engine::Brain;
use crate::discovery::net::Net;
use crate::discovery::switch::{self, Switch};
use crate::discovery::uplink;
use crate::plane::protocol::Order;
use crate::settings::Attached;

/// What the keeper's names for networks begin with.
const KEPT: &str = "switch/";

/// A network that is there.
#[derive(Debug)]
pub(super) struct There {
    pub(super) net: Net,
    pub(super) switch: Switch,
    pub(super) way: Way,
    /// What was changed on the host for it, and what may stand in its way.
    told: Vec<String>,
}

/// The way from a network to the rest of the world.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// It shall have none.
    Internal,
    /// It is there.
    Open,
    /// It should be there, and is not, because of this.
    Closed(String),
}

/// A network, as the API shows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct NetworkView {
    /// Its key in the file.
    pub(crate) name: String,
    /// Its addresses.
    pub(crate) subnet: String,
    /// How it leads out.
    pub(crate) way: Way,
    /// What the last `up` changed on the host for it, and what may stand in its way.
    pub(crate) told: Vec<String>,
}

impl Brain {
    /// The networks that the project's services are in, and those that its instances still are in.
    fn wanted_networks(&mut self) -> BTreeMap<String, Net> {
        let ids: Vec<InstanceId> = self
            .state
            .slots()
            .flat_map(|slot| &slot.instances)
            .map(|instance| instance.id.clone())
            .collect();
        let mut attached: Vec<Attached> = ids.iter().flat_map(|id| self.attached(id)).collect();
        attached.extend(self.stack.services.values().flat_map(|spec| spec.settings.attached()));
        attached.into_iter().map(|one| (one.net.key(), one.net)).collect()
    }

    /// The networks of an instance, as those who made it wanted them.
    pub(super) fn attached(&mut self, id: &InstanceId) -> Vec<Attached> {
        let revision = self.state.instance(id).map(|instance| instance.revision.clone());
        let spec = revision.and_then(|revision| self.spec(revision.as_str()));
        spec.map(|spec| spec.settings.attached()).unwrap_or_default()
    }

    /// Makes the networks that are missing and looks after those that are there.
    pub(crate) fn open_networks(&mut self) {
        for (key, net) in self.wanted_networks() {
            match self.networks.remove(&key) {
                Some(mut there) => {
                    let was_open = there.way == Way::Open;
                    (there.way, there.told) = self.way(&net, &there.switch);
                    let opened = !was_open && there.way == Way::Open;
                    self.networks.insert(key.clone(), there);
                    if opened {
                        self.lead_out(&key);
                    }
                }
                None => self.open_network(&net),
            }
        }
        self.close_networks();
    }

    /// Makes a network, or takes it over from before our time.
    fn open_network(&mut self, net: &Net) {
        let kept = format!("{KEPT}{}", net.key());
        let open = || {
            let namespace = match self.keeper.get(&kept) {
                Some(namespace) => namespace,
                None => self.keeper.put(&kept, switch::make_namespace()?),
            };
            Switch::open(namespace, net).with_context(|| format!("cannot make {}", net.name))
        };
        match open() {
            Ok(switch) => {
                let (way, told) = self.way(net, &switch);
                let there = There { net: net.clone(), switch, way, told };
                self.networks.insert(net.key(), there);
            }
            Err(error) => {
                eprintln!("minisup brain: services cannot find each other: {error:#}");
            }
        }
    }

    /// Opens the way out, if there shall be one.
    fn way(&self, net: &Net, switch: &Switch) -> (Way, Vec<String>) {
        if net.internal {
            return (Way::Internal, Vec::new());
        }
        let owner = self.owner(&net.key());
        let laid = match self.stack.no_way_out {
            false => uplink::lay(switch.namespace().as_fd(), &owner),
            true => {
                let removed = uplink::remove(&owner);
                removed.and(Err(anyhow::anyhow!("`--way-out no` was given to `minisup up`")))
            }
        };
        match laid {
            Ok(told) => (Way::Open, told),
            Err(error) => {
                eprintln!("minisup brain: there is no way out of {}: {error:#}", net.name);
                (Way::Closed(format!("{error:#}")), Vec::new())
            }
        }
    }

    /// What a network is called on the host. Two projects of one name have two directories.
    fn owner(&self, key: &str) -> String {
        format!("minisup {} {key}", self.layout.run().display())
    }

    /// Tells the containers of a network of its way out, which was not there when they came.
    fn lead_out(&mut self, key: &str) {
        let running: Vec<_> = self.running.iter().map(|(id, r)| (id.clone(), r.clone())).collect();
        for (id, running) in running {
            let attached = self.attached(&id);
            let place = attached.iter().position(|one| one.leads_out && one.net.key() == key);
            let (Some(place), Some(there)) = (place, self.networks.get(key)) else { continue };
            let led = there.switch.lead_out(running.namespace.as_fd(), &format!("eth{place}"));
            if let Err(error) = led {
                eprintln!("minisup brain: {id} does not learn of the way out: {error:#}");
            }
            self.tell_hosts(&id);
        }
    }

    /// The network, made if it is not there yet; `None` if it cannot be made.
    pub(super) fn network(&mut self, net: &Net) -> Option<&There> {
        let key = net.key();
        if !self.networks.contains_key(&key) {
            self.open_network(net);
        }
        self.networks.get(&key)
    }

    /// Lets networks go that nothing is in any more.
    pub(crate) fn close_networks(&mut self) {
        let wanted = self.wanted_networks();
        let gone: Vec<String> =
            self.networks.keys().filter(|key| !wanted.contains_key(*key)).cloned().collect();
        for key in gone {
            self.link.tell(&Order::Forget { network: key.clone() }, None);
            self.link.directories.remove(&key);
            self.close_network(&key);
        }
    }

    fn close_network(&mut self, key: &str) {
        self.networks.remove(key);
        self.keeper.release(&format!("{KEPT}{key}"));
        if let Err(error) = uplink::remove(&self.owner(key)) {
            eprintln!("minisup brain: something of the way out of {key} is left: {error:#}");
        }
    }

    /// Lets all networks go, with everything that the host has of them.
    pub(crate) fn close_all_networks(&mut self) {
        for key in self.networks.keys().cloned().collect::<Vec<_>>() {
            self.close_network(&key);
        }
    }

    /// The networks, as the API shows them.
    pub(super) fn network_views(&self) -> Vec<NetworkView> {
        let view = |there: &There| NetworkView {
            name: there.net.name.clone(),
            subnet: there.net.subnet.to_string(),
            way: there.way.clone(),
            told: there.told.clone(),
        };
        self.networks.values().map(view).collect()
    }
}
