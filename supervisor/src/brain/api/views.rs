//! What the API answers with, as the command line understands it again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use minisup_core::event::Event;
use minisup_core::instance::Route;
use minisup_core::state::State;
use serde::{Deserialize, Serialize};

use crate::brain::engine::Brain;
use crate::brain::meter::Sample;
use crate::brain::networks::NetworkView;
use crate::model::{Publish, ServiceSpec, Stack};
use crate::store::Stored;

/// What there is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StateView {
    /// What the core knows.
    pub(crate) state: State,
    /// What was asked for.
    pub(crate) stack: Stack,
    /// The first process of each instance that runs.
    pub(crate) pids: BTreeMap<String, i32>,
    /// Its networks.
    #[serde(default)]
    pub(crate) networks: Vec<NetworkView>,
}

/// Who supervises a project.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SupervisorView {
    /// The program's version.
    pub(crate) version: String,
    /// Where the program was when the brain started.
    pub(crate) program: PathBuf,
    /// The processes; 0 is one that is not there.
    pub(crate) keeper: u32,
    pub(crate) brain: u32,
    pub(crate) plane: u32,
}

/// What happened.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EventView {
    /// Its number.
    pub(crate) seq: i64,
    /// When, in milliseconds since 1970.
    pub(crate) wall_ms: i64,
    /// What, and why.
    pub(crate) event: Event,
}

/// What an instance uses.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StatsView {
    /// Its name.
    pub(crate) instance: String,
    /// CPU use in the last second, in percent of one CPU; `None` in the first second.
    pub(crate) cpu_percent: Option<f64>,
    /// The latest measurement.
    pub(crate) latest: Sample,
}

/// Where a service is found.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ServiceView {
    /// The ports of the host that lead to it.
    pub(crate) publish: Vec<Publish>,
    /// Its instances and whether they get requests.
    pub(crate) instances: BTreeMap<String, Entry>,
}

/// One instance in the registry.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Whether it gets requests.
    pub(crate) route: Route,
    /// Its first process; its network is `/proc/PID/ns/net`.
    pub(crate) pid: Option<i32>,
}

/// Who can be reached, and since which change.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RegistryView {
    /// Counts changes of routes.
    pub(crate) generation: u64,
    /// Every service by its name.
    pub(crate) services: BTreeMap<String, ServiceView>,
}

impl From<Stored> for EventView {
    fn from(stored: Stored) -> EventView {
        EventView { seq: stored.seq, wall_ms: stored.wall_ms, event: stored.event }
    }
}

impl Brain {
    /// What there is.
    pub(super) fn state_view(&self) -> StateView {
        StateView {
            state: self.state.clone(),
            stack: self.stack.clone(),
            pids: self.pids(),
            networks: self.network_views(),
        }
    }

    fn pids(&self) -> BTreeMap<String, i32> {
        self.running.iter().map(|(id, running)| (id.to_string(), running.pid)).collect()
    }

    /// What every running instance uses.
    pub(super) fn stats(&mut self) -> Vec<StatsView> {
        self.asked_for_use = Some(crate::clock::now());
        let view =
            |(id, meter): (&minisup_core::name::InstanceId, &mut super::super::meter::Meter)| {
                if meter.samples.is_empty() {
                    meter.sample();
                }
                let latest = meter.samples.back().cloned().unwrap_or_default();
                StatsView { instance: id.to_string(), cpu_percent: meter.cpu_percent(), latest }
            };
        self.meters.iter_mut().map(view).collect()
    }

    /// Who can be reached.
    pub(super) fn registry(&self) -> RegistryView {
        let routes = self.state.routes();
        let pids = self.pids();
        let service = |(name, spec): (&String, &ServiceSpec)| {
            let key = name.as_str().into();
            let routed = routes.services.get(&key);
            let instances =
                self.state.slots_of(&key).flat_map(|slot| &slot.instances).map(|instance| {
                    let route = routed.and_then(|routed| routed.get(&instance.id));
                    let id = instance.id.to_string();
                    let pid = pids.get(&id).copied();
                    (id, Entry { route: route.copied().unwrap_or(Route::Absent), pid })
                });
            let publish = spec.publish.clone();
            let instances = instances.collect();
            (name.clone(), ServiceView { publish, instances })
        };
        RegistryView {
            generation: routes.generation,
            services: self.stack.services.iter().map(service).collect(),
        }
    }
}
