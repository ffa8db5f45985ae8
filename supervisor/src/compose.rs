//! From a Compose file to what the supervisor keeps.
//!
//! The file is understood by `minisup-compose`; here its services become [`ServiceSpec`]s. What
//! this supervisor cannot do yet is refused with its place in the file, found by what a service
//! *says* (its canonical form) and not by what we thought of asking, so that nothing is ever
//! ignored in silence.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use minisup_compose::minisup::{LbProtocol, ServiceExtension};
use minisup_compose::model::{
    self, Condition, Deploy, Healthcheck, Mode, PortMode, PublishedPort, RestartCondition, Rollout,
    Test,
};
use minisup_compose::{Disk, Loader, find};
use minisup_core::restart::{RestartOn, RestartPolicy};
use minisup_core::spec::{self, Need, Order};

use crate::balance::Balance;
use crate::model::{Health, Probe, Protocol, Publish, ServiceSpec};

/// The keys of a service that have an effect here, or need none.
const KEYS: [&str; 14] = [
    "attach",
    "command",
    "depends_on",
    "deploy",
    "entrypoint",
    "environment",
    "expose",
    "healthcheck",
    "image",
    "logging",
    "networks",
    "ports",
    "stop_grace_period",
    "stop_signal",
];
/// The keys of `deploy` that have an effect here, or need none.
const DEPLOY_KEYS: [&str; 7] = [
    "endpoint_mode",
    "mode",
    "replicas",
    "resources",
    "restart_policy",
    "rollback_config",
    "update_config",
];

/// A project from its files.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) name: String,
    pub(crate) services: BTreeMap<String, ServiceSpec>,
    /// What is understood and has no effect, in words.
    pub(crate) warnings: Vec<String>,
}

/// Loads the given files, or those that the working directory stands for.
///
/// # Errors
/// Every mistake with its place; or the first thing that is not supported yet, with its place.
pub(crate) fn load(files: &[PathBuf], name: Option<&str>) -> Result<Loaded> {
    let here = std::env::current_dir()?;
    let files = match files {
        [] => find(&Disk, &here)
            .context("there is no compose.yaml here; name a bundle, or a file with --file")?,
        given => given.to_vec(),
    };
    let first = files.first().map(std::path::absolute).transpose()?;
    let directory = first.as_deref().and_then(Path::parent).unwrap_or(&here).to_path_buf();
    let mut loader = Loader::new(&Disk, files).directory(&directory).environment(std::env::vars());
    if let Some(name) = name {
        loader = loader.name(name);
    }
    let (project, found) = loader.load().map_err(|errors| anyhow!("{errors}"))?;
    let mut warnings: Vec<String> = found.iter().map(ToString::to_string).collect();
    let mut services = BTreeMap::new();
    for (key, service) in &project.services {
        let here = Place { project: &project, service: key };
        here.check(service)?;
        let usual = Rollout { parallelism: 1, order: None, ..Rollout::default() };
        let update = service.deploy.update_config.clone();
        if (Rollout { parallelism: 1, order: None, ..update }) != usual {
            let message = "only parallelism and order have an effect yet";
            let warning = here.project.warning_at(
                &here.path("deploy.update_config"),
                message,
                "an update that fails stands still",
            );
            warnings.push(warning.to_string());
        }
        services.insert(key.clone(), here.spec(service, &directory)?);
    }
    if services.len() > 1 {
        let alone = services.iter().filter(|(_, spec): &(_, &ServiceSpec)| !spec.is_reachable());
        warnings.extend(alone.map(|(name, _)| {
            format!("other services cannot reach {name}: it has neither `ports` nor `expose`")
        }));
    }
    Ok(Loaded { name: project.name.clone(), services, warnings })
}

/// Where in the file something is.
struct Place<'a> {
    project: &'a minisup_compose::Project,
    service: &'a str,
}

impl Place<'_> {
    fn path(&self, key: &str) -> String {
        format!("services.{}.{key}", self.service)
    }

    /// An error at a key of the service.
    fn refuse(&self, key: &str, message: &str, remedy: &str) -> anyhow::Error {
        anyhow!("{}", self.project.error_at(&self.path(key), message, remedy))
    }

    /// Refuses what the service says and this supervisor cannot do.
    fn check(&self, service: &model::Service) -> Result<()> {
        let said = serde_json::to_value(service)?;
        let keys = |value: &serde_json::Value| -> Vec<String> {
            value.as_object().into_iter().flat_map(|map| map.keys().cloned()).collect()
        };
        let unknown = |key: &&String| !KEYS.contains(&key.as_str()) && !key.starts_with("x-");
        let mut missing: Vec<String> = keys(&said).iter().filter(unknown).cloned().collect();
        let deploy = keys(&said["deploy"]);
        missing.extend(
            deploy
                .iter()
                .filter(|key| !DEPLOY_KEYS.contains(&key.as_str()))
                .map(|key| format!("deploy.{key}")),
        );
        let lb = service.minisup.lb.clone();
        if service.minisup != (ServiceExtension { lb, ..ServiceExtension::default() }) {
            missing.push("x-minisup".to_string());
        }
        if service.networks.keys().any(|name| name != "default") {
            missing.push("networks".to_string());
        }
        if service.logging != model::Logging::default() {
            missing.push("logging".to_string());
        }
        if !matches!(service.deploy.mode, Mode::Replicated | Mode::Global) {
            missing.push("deploy.mode".to_string());
        }
        if service.depends_on.values().any(|dependency| dependency.restart) {
            missing.push("depends_on".to_string());
        }
        match missing.first() {
            None => Ok(()),
            Some(key) => Err(self.refuse(key, "is not supported yet", "leave it out")),
        }
    }

    fn spec(&self, service: &model::Service, directory: &Path) -> Result<ServiceSpec> {
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
        let order = match deploy.update_config.order {
            Some(model::Order::StopFirst) => Order::StopFirst,
            Some(model::Order::StartFirst) | None => Order::StartFirst,
        };
        let parallelism = match deploy.update_config.parallelism {
            0 => deploy.replicas.max(1), // all at a time
            some => some,
        };
        Ok(ServiceSpec {
            bundle: self.bundle(&service.image, directory)?,
            replicas: deploy.replicas,
            command: command(service),
            env: service.environment.iter().map(|(k, v)| format!("{k}={v}")).collect(),
            memory_bytes: limits.memory.map(|bytes| bytes.0),
            reserved_bytes: Some(reserved.memory.map_or(0, |bytes| bytes.0)),
            cpu_millis: limits.cpus.map(cpu_millis),
            reserved_cpu_millis: reserved.cpus.map_or(0, cpu_millis),
            pids: limits.pids.filter(|pids| *pids > 0),
            publish: publish?,
            expose: expose(service),
            balance: Balance::from(&service.minisup.lb),
            health: self.health(service.healthcheck.as_ref())?,
            stop_signal: service.stop_signal.clone().unwrap_or_else(|| "TERM".to_string()),
            stop_grace_ms: service.stop_grace_period.0,
            drain_ms: service.minisup.lb.drain.0,
            restart: restart(deploy),
            order,
            parallelism,
            needs: needs.collect(),
        })
    }

    /// A bundle directory; images of the store come later.
    fn bundle(&self, image: &str, directory: &Path) -> Result<PathBuf> {
        let bundle = directory.join(image);
        if !bundle.join("config.json").is_file() {
            let message = format!("there is no bundle at {}", bundle.display());
            let remedy = "name a directory with config.json; `rootfs-tools` makes one of an image";
            return Err(self.refuse("image", &message, remedy));
        }
        Ok(bundle.canonicalize()?)
    }

    fn publish(&self, port: &PublishedPort, default: LbProtocol) -> Result<Publish> {
        if port.protocol == model::Protocol::Udp {
            return Err(self.refuse("ports", "UDP is not supported yet", "publish TCP ports"));
        }
        if port.mode == PortMode::Host {
            return Err(self.refuse("ports", "mode: host is not supported yet", "leave it out"));
        }
        let Some(outside) = port.published.filter(|range| range.first == range.last) else {
            let remedy = "write HOST_PORT:CONTAINER_PORT";
            return Err(self.refuse("ports", "any free port is not supported yet", remedy));
        };
        let protocol = match port.app_protocol.as_deref() {
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
        Ok(Publish { host: SocketAddr::new(address, outside.first), port: port.target, protocol })
    }

    fn health(&self, check: Option<&Healthcheck>) -> Result<Option<Health>> {
        let Some(check) = check.filter(|check| !check.disable) else { return Ok(None) };
        let command = match &check.test {
            Some(Test::Command(words)) => words.clone(),
            Some(Test::Shell(line)) => vec!["/bin/sh".into(), "-c".into(), line.clone()],
            None => {
                let message = "has no test, and a bundle has none either";
                return Err(self.refuse("healthcheck", message, "add `test:`"));
            }
        };
        let or = |time: Option<minisup_compose::Millis>, ms| time.map_or(ms, |time| time.0);
        Ok(Some(Health {
            probe: Probe::Exec(command),
            interval_ms: or(check.interval, 30_000),
            timeout_ms: or(check.timeout, 30_000),
            retries: check.retries.unwrap_or(3),
            start_period_ms: or(check.start_period, 0),
            start_interval_ms: or(check.start_interval, 250),
        }))
    }
}

/// Ports for other services. What is spoken at them is found out by listening.
fn expose(service: &model::Service) -> Vec<u16> {
    let tcp = service.expose.iter().filter(|port| port.protocol == model::Protocol::Tcp);
    tcp.flat_map(|port| port.range.first..=port.range.last).collect()
}

/// Entry point and command together replace the bundle's; it has no two parts.
fn command(service: &model::Service) -> Option<Vec<String>> {
    let parts = [&service.entrypoint, &service.command];
    let words: Vec<String> = parts.into_iter().flatten().flatten().cloned().collect();
    (!words.is_empty()).then_some(words)
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
