//! From a Compose file to what the supervisor keeps.
//!
//! The file is understood by `minisup-compose`; here its services become [`ServiceSpec`]s. What
//! this supervisor cannot do yet is refused with its place in the file, found by what a service
//! *says* (its canonical form) and not by what we thought of asking, so that nothing is ever
//! ignored in silence.

mod confine;
mod container;
mod extension;
mod networks;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use linux::inet::Transport;
use minisup_compose::minisup::LbProtocol;
use minisup_compose::model::{
    self, Condition, Deploy, Healthcheck, MountKind, NetworkMode, PublishedPort, PullPolicy,
    RestartCondition, Test,
};
use minisup_compose::{Disk, Loader, find};
use minisup_core::restart::{RestartOn, RestartPolicy};
use minisup_core::spec::{self, Need, Order};

use crate::balance::Balance;
use crate::discovery::net::Net;
use crate::image::{Images, Made, Pull};
use crate::layout::Layout;
use crate::model::{Health, Named, Probe, Protocol, Publish, ServiceSpec};

/// A project from its files.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) services: BTreeMap<String, ServiceSpec>,
    /// The named volumes that are its own.
    pub(crate) volumes: BTreeSet<String>,
    /// What its networks are called.
    pub(crate) networks: BTreeMap<String, Named>,
    /// What is understood and has no effect, in words.
    pub(crate) warnings: Vec<String>,
}

/// Which files, and what of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choice {
    /// None are those that the working directory stands for.
    pub(crate) files: Vec<PathBuf>,
    /// None are all whose profiles are active.
    pub(crate) services: Vec<String>,
    pub(crate) profiles: Vec<String>,
    /// None is `.env`.
    pub(crate) env_files: Vec<PathBuf>,
}

/// A project as its files have it.
#[derive(Debug)]
pub(crate) struct File {
    project: minisup_compose::Project,
    paths: Vec<PathBuf>,
    /// The services that were asked for, with what they need; none are all.
    chosen: BTreeSet<String>,
    /// Where relative paths start.
    directory: PathBuf,
    warnings: Vec<String>,
}

impl File {
    /// Reads the given files, or those that the working directory stands for.
    ///
    /// # Errors
    /// Every mistake with its place.
    pub(crate) fn read(choice: &Choice, name: Option<&str>) -> Result<File> {
        let here = std::env::current_dir()?;
        let files = match choice.files.as_slice() {
            [] => find(&Disk, &here)
                .context("there is no compose.yaml here; name a bundle, or a file with --file")?,
            given => given.to_vec(),
        };
        let first = files.first().map(std::path::absolute).transpose()?;
        let directory = first.as_deref().and_then(Path::parent).unwrap_or(&here).to_path_buf();
        let mut loader =
            Loader::new(&Disk, files.clone()).directory(&directory).environment(std::env::vars());
        loader = loader.profiles(choice.profiles.clone()).targets(choice.services.clone());
        if !choice.env_files.is_empty() {
            loader = loader.env_files(choice.env_files.clone());
        }
        if let Some(name) = name {
            loader = loader.name(name);
        }
        let (project, found) = loader.load().map_err(|errors| anyhow!("{errors}"))?;
        let warnings = found.iter().map(ToString::to_string).collect();
        let chosen = with_needs(&project, &choice.services)?;
        Ok(File { project, paths: files, chosen, directory, warnings })
    }

    /// The project's name.
    pub(crate) fn name(&self) -> &str {
        &self.project.name
    }

    /// The files that were read, without those that they include.
    pub(crate) fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// What the supervisor keeps of it. Images are made bundles on the way.
    ///
    /// # Errors
    /// The first thing that is not supported yet, with its place.
    pub(crate) fn services(&self, images: &Images, layout: &Layout) -> Result<Loaded> {
        let mut warnings = self.warnings.clone();
        let nets = networks::read(&self.project)?;
        let place = |key| Place { project: &self.project, service: key, nets: &nets };
        for (key, service) in &self.project.services {
            place(key).check(service)?;
        }
        let mut services = BTreeMap::new();
        let is_chosen = |key: &String| self.chosen.is_empty() || self.chosen.contains(key);
        // Each after those it depends on, because it may follow their revisions.
        for key in self.project.startup_order() {
            let Some(service) = self.project.services.get(key) else { continue };
            if !is_chosen(&key.to_string()) {
                continue;
            }
            let here = place(key);
            warnings.extend(here.without_effect(service));
            let mut spec = here.spec(service, &self.directory, images, layout)?;
            let followed = service.depends_on.iter().filter(|(_, dependency)| dependency.restart);
            for (on, _) in followed {
                let revision = services.get(on).map(ServiceSpec::revision);
                spec.follows.extend(revision.map(|found| (on.clone(), found.as_str().to_string())));
            }
            services.insert(key.to_string(), spec);
        }
        let is_own = |volume: &&model::Volume| !volume.external && volume.driver_opts.is_empty();
        let own = self.project.volumes.values().filter(is_own);
        let volumes = own.map(|volume| volume.name.clone()).collect();
        let networks = networks::named(&self.project);
        Ok(Loaded { services, volumes, networks, warnings })
    }
}

/// The named services and everything that they depend on.
fn with_needs(project: &minisup_compose::Project, named: &[String]) -> Result<BTreeSet<String>> {
    let mut chosen = BTreeSet::new();
    let mut open: Vec<String> = named.to_vec();
    while let Some(name) = open.pop() {
        let Some(service) = project.services.get(&name) else {
            let known: Vec<&str> = project.services.keys().map(String::as_str).collect();
            bail!("there is no service {name}; the file has {}", known.join(", "));
        };
        if chosen.insert(name) {
            open.extend(service.depends_on.keys().cloned());
        }
    }
    Ok(chosen)
}

/// Where in the file something is.
struct Place<'a> {
    project: &'a minisup_compose::Project,
    service: &'a str,
    /// The project's networks.
    nets: &'a BTreeMap<String, Net>,
}

impl Place<'_> {
    fn path(&self, key: &str) -> String {
        format!("services.{}.{key}", self.service)
    }

    /// An error at a key of the service.
    fn refuse(&self, key: &str, message: &str, remedy: &str) -> anyhow::Error {
        anyhow!("{}", self.project.error_at(&self.path(key), message, remedy))
    }

    fn spec(
        &self,
        service: &model::Service,
        directory: &Path,
        images: &Images,
        layout: &Layout,
    ) -> Result<ServiceSpec> {
        let made = self.made(service, directory, images)?;
        let mut settings = self.settings(service, layout, &made.bundle)?;
        settings.networks = self.attached(service)?;
        let is_fixed = settings.networks.iter().any(|one| one.address.is_some());
        let limits = &service.deploy.resources.limits;
        let reserved = &service.deploy.resources.reservations;
        let publish: Result<Vec<Publish>> = service
            .ports
            .iter()
            .map(|port| self.publish(port, service.minisup.lb.protocol))
            .collect();
        let needs = service.depends_on.iter().map(|(on, dependency)| {
            let condition = match dependency.condition {
                Condition::Started => spec::Condition::Started,
                Condition::Healthy => spec::Condition::Healthy,
                Condition::CompletedSuccessfully => spec::Condition::Completed,
            };
            (on.clone(), Need { condition, required: dependency.required })
        });
        let deploy = &service.deploy;
        let (order, moves) = self.orders(service, is_fixed)?;
        let parallelism = match deploy.update_config.parallelism {
            0 => deploy.replicas.max(1), // all at a time
            some => some,
        };
        Ok(ServiceSpec {
            bundle: made.bundle,
            replicas: deploy.replicas,
            command: command(service, &made.entrypoint),
            env: service.environment.iter().map(|(k, v)| format!("{k}={v}")).collect(),
            memory_bytes: limits.memory.map(|bytes| bytes.0),
            reserved_bytes: Some(reserved.memory.map_or(0, |bytes| bytes.0)),
            cpu_millis: limits.cpus.map(cpu_millis),
            reserved_cpu_millis: reserved.cpus.map_or(0, cpu_millis),
            pids: limits.pids.filter(|pids| *pids > 0),
            publish: publish?,
            expose: expose(service, &made.exposed, Transport::Tcp),
            expose_udp: expose(service, &made.exposed, Transport::Udp),
            balance: Balance::from(&service.minisup.lb),
            health: self.health(service.healthcheck.as_ref(), made.health)?,
            stop_signal: service
                .stop_signal
                .clone()
                .or(made.stop_signal)
                .unwrap_or_else(|| "TERM".to_string()),
            stop_grace_ms: service.stop_grace_period.0,
            drain_ms: service.minisup.lb.drain.0,
            restart: restart(deploy),
            order,
            // Of no meaning to one that joins nobody.
            moves: if settings.joins.is_empty() { Order::StartFirst } else { moves },
            parallelism,
            needs: needs.collect(),
            settings,
            roles: extension::roles(&service.minisup.probes),
            labels: deploy.labels.clone(),
            follows: BTreeMap::new(),
            attach: service.attach.unwrap_or(true),
        })
    }

    /// Which comes first in an update, and in a mere move; `is_fixed` says that its address is.
    fn orders(&self, service: &model::Service, is_fixed: bool) -> Result<(Order, Order)> {
        // Two containers at once could write over each other.
        let single = is_fixed || writes_to_disk(service);
        let moves = if single { Order::StopFirst } else { Order::StartFirst };
        Ok(match service.deploy.update_config.order {
            Some(model::Order::StopFirst) => (Order::StopFirst, Order::StopFirst),
            Some(model::Order::StartFirst) if is_fixed => {
                let message = "two containers cannot have one address at a time";
                let remedy = "write `stop-first`, or remove `ipv4_address`";
                return Err(self.refuse("deploy.update_config.order", message, remedy));
            }
            Some(model::Order::StartFirst) => (Order::StartFirst, Order::StartFirst),
            // Two programs cannot listen at one port of one network; of two networks they can.
            None if joins_network(service) => (Order::StopFirst, moves),
            None => (moves, moves),
        })
    }

    /// The bundle of its image.
    fn made(&self, service: &model::Service, directory: &Path, images: &Images) -> Result<Made> {
        let pull = match service.pull_policy {
            PullPolicy::Missing => Pull::Missing,
            PullPolicy::Always => Pull::Always,
            PullPolicy::Never => Pull::Never,
            PullPolicy::Build => Pull::Build,
        };
        let built = match &service.build {
            Some(build) => images.built(&service.image, build, pull),
            None => images.bundle(&service.image, directory, pull),
        };
        built.map_err(|error| {
            let (key, remedy) = match service.build {
                Some(_) => ("build", "`rootfs-tools build` is what does it"),
                None => (
                    "image",
                    "name a bundle directory, an archive, or an image of `rootfs-tools ls`",
                ),
            };
            self.refuse(key, &format!("{error:#}"), remedy)
        })
    }

    fn publish(&self, port: &PublishedPort, default: LbProtocol) -> Result<Publish> {
        let (outside, among) = match port.published {
            Some(range) if range.first == range.last => (range.first, None),
            Some(range) => (0, Some((range.first, range.last))),
            None => (0, Some((0, 0))),
        };
        let protocol = match port.app_protocol.as_deref() {
            _ if port.protocol == model::Protocol::Udp => Protocol::Udp,
            None if default == LbProtocol::Tcp => Protocol::Tcp,
            None => Protocol::Auto,
            Some("http") => Protocol::Http,
            Some("h2c" | "grpc") => Protocol::H2c,
            Some("tcp") => Protocol::Tcp,
            Some(_) => {
                let message = "this app_protocol is not supported yet";
                return Err(self.refuse("ports", message, "write http, h2c, grpc or tcp"));
            }
        };
        let address = port.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let host = SocketAddr::new(address, outside);
        let ipv6_too = port.host_ip.is_none();
        Ok(Publish { host, among, ipv6_too, port: port.target, protocol })
    }

    /// The check of the file; what it leaves out comes from that of the image.
    fn health(&self, check: Option<&Healthcheck>, image: Option<Health>) -> Result<Option<Health>> {
        let Some(check) = check else { return Ok(image) };
        if check.disable {
            return Ok(None);
        }
        let probe = match (&check.test, &image) {
            (Some(Test::Command(words)), _) => Probe::Exec(words.clone()),
            (Some(Test::Shell(line)), _) => {
                Probe::Exec(vec!["/bin/sh".into(), "-c".into(), line.clone()])
            }
            (None, Some(image)) => image.probe.clone(),
            // `disable: false`, and nothing else: as the image has it.
            (None, None) if *check == Healthcheck::default() => return Ok(None),
            (None, None) => {
                let message = "has no test, and neither has the image";
                return Err(self.refuse("healthcheck", message, "add `test:`"));
            }
        };
        let image = image.as_ref();
        let or = |time: Option<minisup_compose::Millis>, ms: Option<u64>, usual| {
            time.map(|time| time.0).or(ms).unwrap_or(usual)
        };
        Ok(Some(Health {
            probe,
            interval_ms: or(check.interval, image.map(|i| i.interval_ms), 30_000),
            timeout_ms: or(check.timeout, image.map(|i| i.timeout_ms), 30_000),
            retries: check.retries.or(image.map(|i| i.retries)).unwrap_or(3),
            start_period_ms: or(check.start_period, image.map(|i| i.start_period_ms), 0),
            start_interval_ms: or(check.start_interval, image.map(|i| i.start_interval_ms), 250),
            rise: 1,
        }))
    }
}

/// Whether a container writes to something that its replacement would have at the same time.
fn writes_to_disk(service: &model::Service) -> bool {
    let is_shared = |mount: &model::Mount| {
        !mount.read_only && matches!(mount.kind, MountKind::Volume { .. } | MountKind::Bind { .. })
    };
    service.volumes.iter().any(is_shared)
}

/// Whether its containers are in the network of another service's.
fn joins_network(service: &model::Service) -> bool {
    matches!(service.network_mode, Some(NetworkMode::Service(_)))
}

/// Entry point and command together replace the image's; a command alone keeps its entry point.
fn command(service: &model::Service, entrypoint: &[String]) -> Option<Vec<String>> {
    let words = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    match (&service.entrypoint, &service.command) {
        (None, None) => None,
        (None, Some(command)) => Some([entrypoint, command].concat()),
        (Some(_), _) => Some([words(&service.entrypoint), words(&service.command)].concat()),
    }
}

/// Ports for other services: those of the file and those of the image. What is spoken at them is
/// found out by listening.
fn expose(service: &model::Service, of_image: &[(u16, Transport)], by: Transport) -> Vec<u16> {
    let protocol = match by {
        Transport::Tcp => model::Protocol::Tcp,
        Transport::Udp => model::Protocol::Udp,
    };
    let ports = service.expose.iter().filter(|port| port.protocol == protocol);
    let ports = ports.flat_map(|port| port.range.first..=port.range.last);
    let of_image = of_image.iter().filter(|(_, transport)| *transport == by);
    let all: BTreeSet<u16> = ports.chain(of_image.map(|(port, _)| *port)).collect();
    all.into_iter().collect()
}

fn restart(deploy: &Deploy) -> RestartPolicy {
    let policy = &deploy.restart_policy;
    let span = |time: minisup_compose::Millis| minisup_core::time::Span::from_ms(time.0);
    RestartPolicy {
        on: match policy.condition {
            RestartCondition::None => RestartOn::Never,
            RestartCondition::OnFailure => RestartOn::Failure,
            RestartCondition::Any | RestartCondition::UnlessStopped => RestartOn::Any,
        },
        delay: policy.delay.map(span).unwrap_or_default(),
        max_attempts: policy.max_attempts,
        window: policy.window.map(span),
    }
}

/// Thousandths of a CPU.
fn cpu_millis(cpus: minisup_compose::Cpus) -> u64 {
    cpus.0 / (CPU / 1000)
}

/// One CPU in the unit of the Compose model.
const CPU: u64 = 1_000_000_000;
