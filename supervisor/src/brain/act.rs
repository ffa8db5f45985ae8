//! What the core asks for, done. Each action starts a task and is answered by news.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use minisup_core::action::{Action, Role};
use minisup_core::input::{Input, Outcome};
use minisup_core::instance::Route;
use minisup_core::name::{InstanceId, Revision};
use tokio::sync::mpsc::UnboundedSender;

use super::connect::Cable;
use super::container::{self, Running};
use super::engine::Brain;
use super::exec::{self, Ended};
use super::hosts::Hosts;
use super::joined::Joined;
use super::log::{self, Log};
use super::meter::Meter;
use super::runtime::Runtime;
use super::streams::Streams;
use super::{News, bundle, probe};
use crate::discovery::server;
use crate::keeper::client::Keeper;
use crate::layout::Layout;
use crate::model::ServiceSpec;
use crate::plane::protocol::Order;
use crate::settings::{Hook, Network, Part};

/// How long each hook after a start may take.
const POST_START: Duration = Duration::from_secs(60);
/// How many dead instances of a slot keep their logs.
const LOGS: u64 = 5;

/// Everything a launch needs, so that it can go on beside the loop.
struct Launch {
    instance: InstanceId,
    revision: Revision,
    spec: ServiceSpec,
    layout: Layout,
    keeper: Keeper,
    runtime: Runtime,
    /// To its networks.
    cables: Vec<Cable>,
    /// The namespaces of others; open until it is made.
    joined: Joined,
    /// What its /etc/hosts says beyond its own name.
    hosts: Hosts,
    news: UnboundedSender<News>,
}

impl Brain {
    /// Sets an action going.
    pub(crate) fn act(&mut self, action: Action) {
        match action {
            Action::Launch { instance, revision, joined } => {
                self.launch(instance, revision, &joined);
            }
            Action::Probe { instance, role, attempt, after, timeout } => {
                self.probe(instance, role, attempt, after.ms(), timeout);
            }
            Action::Hook { instance } => self.hook(instance),
            Action::Signal { instance } => {
                let signal = self.state.instance(&instance).map(|i| i.revision.clone());
                let spec = signal.and_then(|revision| self.spec(revision.as_str()));
                let signal = spec.map_or_else(|| "TERM".to_string(), |spec| spec.stop_signal);
                self.signal(&instance, signal);
            }
            Action::Kill { instance } => self.signal(&instance, "KILL".to_string()),
            Action::Delete { instance } | Action::Destroy { instance } => self.delete(instance),
            Action::PublishRoutes { .. } => self.publish(),
        }
    }

    fn launch(&mut self, instance: InstanceId, revision: Revision, joined: &BTreeSet<InstanceId>) {
        self.busy.insert(instance.clone());
        self.touched.insert(instance.clone());
        let Some(spec) = self.spec(revision.as_str()) else {
            let result = Err(format!("revision {revision} is not in the store"));
            let _ = self.news.send(News::Launched { instance, result });
            return;
        };
        let (cables, joined, hosts) = match self.places(&instance, &spec, joined) {
            Ok(places) => places,
            Err(error) => {
                let result = Err(format!("{error:#}"));
                let _ = self.news.send(News::Launched { instance, result });
                return;
            }
        };
        let launch = Launch {
            instance: instance.clone(),
            revision,
            spec,
            layout: self.layout.clone(),
            keeper: self.keeper.clone(),
            runtime: self.runtime.clone(),
            cables,
            joined,
            hosts,
            news: self.news.clone(),
        };
        let news = self.news.clone();
        tokio::task::spawn_local(async move {
            let result = launch.run().await.map_err(|error| format!("{error:#}"));
            let _ = news.send(News::Launched { instance, result });
        });
    }

    /// Where a container is to be, and whom it knows by name.
    fn places(
        &mut self,
        instance: &InstanceId,
        spec: &ServiceSpec,
        owners: &BTreeSet<InstanceId>,
    ) -> Result<(Vec<Cable>, Joined, Hosts)> {
        let cables = self.cables(instance, &spec.settings.attached())?;
        let joined = self.joined(instance, spec, owners)?;
        let hosts = self.hosts(joined.names.as_ref().unwrap_or(&spec.settings))?;
        Ok((cables, joined, hosts))
    }

    fn probe(
        &mut self,
        instance: InstanceId,
        role: Role,
        attempt: u32,
        after_ms: u64,
        timeout: minisup_core::time::Span,
    ) {
        self.stop_probe(&instance, role);
        let revision = self.state.instance(&instance).map(|i| i.revision.clone());
        let health =
            revision.and_then(|revision| self.spec(revision.as_str())).and_then(|s| s.check(role));
        let running = self.running.get(&instance).cloned();
        let container = self.layout.container(&instance.to_string());
        let (runtime, news) = (self.runtime.clone(), self.news.clone());
        let key = (instance.clone(), role);
        let task = tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(after_ms)).await;
            let outcome = match &health {
                Some(health) => {
                    probe::run(&health.probe, running, &runtime, &container, timeout).await
                }
                None => Outcome::Impossible("its specification is not in the store".to_string()),
            };
            let _ = news.send(News::Input(Input::Probed { instance, role, attempt, outcome }));
        });
        self.probes.insert(key, task.abort_handle());
    }

    pub(crate) fn stop_probe(&mut self, instance: &InstanceId, role: Role) {
        if let Some(probe) = self.probes.remove(&(instance.clone(), role)) {
            probe.abort();
        }
    }

    /// Runs the pre-stop hooks, one after the other, until one fails or time is up.
    fn hook(&mut self, instance: InstanceId) {
        let revision = self.state.instance(&instance).map(|i| i.revision.clone());
        let spec = revision.and_then(|revision| self.spec(revision.as_str()));
        let (runtime, news) = (self.runtime.clone(), self.news.clone());
        let id = self.layout.container(&instance.to_string());
        tokio::task::spawn_local(async move {
            let mut result = Ok(());
            if let Some(spec) = spec {
                let limit = Duration::from_millis(spec.stop_grace_ms);
                result = run_hooks(&runtime, &id, &spec.settings.pre_stop, limit).await;
            }
            let _ = news.send(News::Input(Input::Hooked { instance, result }));
        });
    }

    fn signal(&mut self, instance: &InstanceId, signal: String) {
        let (runtime, id) = (self.runtime.clone(), self.layout.container(&instance.to_string()));
        tokio::task::spawn_local(async move {
            if let Err(error) = runtime.kill(&id, &signal).await {
                // Gone already, most likely; if not, the grace period ends with a kill.
                eprintln!("minisup brain: {id}: {error:#}");
            }
        });
    }

    fn delete(&mut self, instance: InstanceId) {
        self.busy.insert(instance.clone());
        self.touched.insert(instance.clone());
        let (runtime, news) = (self.runtime.clone(), self.news.clone());
        let name = instance.to_string();
        let (id, bundle) = (self.layout.container(&name), self.layout.bundle(&name));
        let (writable, memory) = (self.layout.writable(&name), self.layout.shared_memory(&name));
        tokio::task::spawn_local(async move {
            let deleted = async {
                runtime.delete(&id).await?;
                let _ = std::fs::remove_dir_all(&writable); // the runtime has, if it made it
                let _ = std::fs::remove_dir_all(&memory);
                match std::fs::remove_dir_all(&bundle) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        Err(error).context("the bundle cannot be removed")
                    }
                    _ => Ok(()),
                }
            };
            let result = deleted.await.map_err(|error: anyhow::Error| format!("{error:#}"));
            let _ = news.send(News::Deleted { instance, result });
        });
    }

    /// Takes hold of a container: its end will be heard, its output read.
    pub(crate) fn hold(&mut self, instance: InstanceId, running: Running) {
        self.note_addresses(&instance);
        self.mend_cables(&instance, &running);
        let name = instance.to_string();
        let revision = self.state.instance(&instance).map(|instance| instance.revision.clone());
        let spec = revision.and_then(|revision| self.spec(revision.as_str()));
        let settings = spec.map(|spec| spec.settings).unwrap_or_default();
        let log = Log::open(&self.layout.log(&name), settings.log);
        for stream in ["stdout", "stderr"] {
            if let Some(pipe) = self.keeper.get(&format!("{stream}/{name}")) {
                tokio::task::spawn_local(log::carry(pipe, stream, log.clone()));
            }
        }
        let watch = container::watch(instance.clone(), running.clone(), self.news.clone());
        tokio::task::spawn_local(async move {
            if let Err(error) = watch.await {
                eprintln!("minisup brain: {error:#}");
            }
        });
        let has_network = !matches!(settings.network, Network::Host | Network::Joined);
        if let Some(mut meter) = Meter::of(running.pid, has_network) {
            meter.sample();
            self.meters.insert(instance.clone(), meter);
        }
        self.running.insert(instance, running);
        if !settings.resolver.servers.is_empty() || settings.networks.len() > 1 {
            self.offer_directories(); // whom to ask in its name, and what it may see
        }
    }

    /// Nothing is left of a container: what was kept of it can go.
    pub(crate) fn let_go(&mut self, instance: &InstanceId) {
        self.running.remove(instance);
        self.addresses.forget(instance);
        if self.networks.len() > 1 {
            self.close_networks(); // it may have been the last in one
        }
        for stream in ["stdin", "stdout", "stderr"] {
            self.keeper.release(&format!("{stream}/{instance}"));
        }
        // The last words of the latest instances are kept, not those of all there ever were.
        if let Some(old) = instance.serial.checked_sub(LOGS).filter(|serial| *serial > 0) {
            let old = instance.slot.instance(old).to_string();
            log::remove(&self.layout.log(&old));
            let _ = std::fs::remove_file(self.layout.autopsy(&old));
        }
    }

    /// Tells the data plane the routes, and before that where their instances are.
    pub(crate) fn publish(&mut self) {
        if !self.link.is_connected() {
            return; // it will say hello and be told then
        }
        self.offer_rules();
        self.offer_listeners();
        self.offer_directories();
        let routes = self.state.routes();
        for (id, route) in routes.services.values().flatten() {
            if *route == Route::Absent || self.link.endpoints.contains(id) {
                continue;
            }
            if let Some(running) = self.running.get(id) {
                let namespace = running.namespace.clone();
                let addresses = self.addresses.of(id);
                let order = Order::Endpoint { instance: id.clone(), addresses };
                self.link.tell(&order, Some(&namespace));
                self.link.endpoints.insert(id.clone());
            }
        }
        self.link
            .endpoints
            .retain(|id| routes.services.values().any(|instances| instances.contains_key(id)));
        self.link.tell(&Order::Routes(routes), None);
    }
}

impl Launch {
    /// Makes the bundle, creates the container, and starts it once everything that must survive
    /// us is with the keeper.
    async fn run(self) -> Result<()> {
        let name = self.instance.to_string();
        let id = self.layout.container(&name);
        self.runtime.delete(&id).await.context("cannot clean up before the start")?;
        let bundle = self.layout.bundle(&name);
        let written = self.write_bundle(&bundle);
        let (cables, parts) =
            written.with_context(|| format!("cannot make {}", bundle.display()))?;
        let streams = Streams::make(&self.spec.settings, &name, &bundle, &self.keeper)?;
        let (pid, terminal) = self.runtime.create(&id, &bundle, streams).await?;
        if let Some(terminal) = terminal {
            self.keeper.put(&format!("stdout/{name}"), terminal);
        }
        let running = Running::hold(pid)?;
        parts.iter().try_for_each(|part| part.check(pid))?;
        for cable in cables {
            if let Err(error) = cable.lay(&running) {
                eprintln!("minisup brain: {name} is not in one of its networks: {error:#}");
            }
        }
        let instance = self.instance.clone();
        let _ = self.news.send(News::Created { instance, running });
        self.runtime.start(&id).await?;
        let hooks = &self.spec.settings.post_start;
        let done = run_hooks(&self.runtime, &id, hooks, POST_START).await;
        done.map_err(|error| anyhow!("post_start: {error}"))
    }

    /// Writes what the container is made from; the answer is the cables that it gets, and what has
    /// to be checked when it is made.
    fn write_bundle(&self, bundle: &std::path::Path) -> Result<(&[Cable], Vec<Part>)> {
        let given = bundle::read(&self.spec.bundle)?;
        let name = self.instance.to_string();
        let place = bundle::Place {
            project: &self.layout.project,
            instance: &self.instance,
            writable: &self.layout.writable(&name),
            joined: &self.joined.paths,
        };
        let mut spec = self.spec.clone();
        self.joined.share_memory(&mut spec.settings)?;
        let volumes = self.layout.slot_volumes(&self.instance.slot.to_string());
        let parts = spec.settings.place(&volumes)?;
        let mut config = bundle::config(&given, &spec, &place)?;
        std::fs::create_dir_all(bundle).context("cannot make the instance's bundle")?;
        // A network that is joined is somebody else's, with names of its own.
        let cables = if bundle::joins_network(&config) { &[][..] } else { &self.cables };
        std::fs::write(bundle.join("addresses"), Cable::note(cables)?)?;
        std::fs::write(bundle.join("joined"), self.joined.note()?)?;
        // Who is in the network of another asks for names as that one does.
        let settings = self.joined.names.as_ref().unwrap_or(&spec.settings);
        let gateway = cables.first().map(|cable| cable.gateway).or(self.joined.gateway);
        let within = gateway.map(|gateway| (self.layout.project.as_str(), gateway));
        if let Some(text) = server::resolv_conf(within, &settings.resolver) {
            let file = bundle.join("resolv.conf");
            std::fs::write(&file, text)?;
            config = bundle::with_file(&config, &file, "/etc/resolv.conf")?;
        }
        if !self.hosts.is_empty() {
            let file = bundle.join("hosts");
            std::fs::write(&file, bundle::hosts(&config, &self.hosts)?)?;
            config = bundle::with_file(&config, &file, "/etc/hosts")?;
        }
        std::fs::write(bundle.join("config.json"), config)?;
        std::fs::write(bundle.join("revision"), self.revision.as_str())?;
        Ok((cables, parts))
    }
}

/// Runs hooks, one after the other, until one fails or takes too long.
async fn run_hooks(
    runtime: &Runtime,
    id: &str,
    hooks: &[Hook],
    limit: Duration,
) -> Result<(), String> {
    for hook in hooks {
        match exec::run(runtime, id, hook, limit).await {
            Ok(Ended::Status(0, _)) => {}
            Ok(Ended::Status(status, text)) => return Err(format!("status {status}: {text}")),
            Ok(Ended::Overdue) => return Err("it did not end in time".to_string()),
            Err(error) => return Err(format!("{error:#}")),
        }
    }
    Ok(())
}
