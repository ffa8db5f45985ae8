//! A project as the supervisor keeps it: what containers are made from and how they are reached.
//!
//! The decision core sees only [`ServiceSpec::to_core`]; everything else here is for the driver
//! and the data plane. The revision of a service is a hash of its whole specification without
//! what may change while it runs (the number of replicas), so that equal text is an equal
//! revision.

mod room;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Result, bail};
use linux::inet::Transport;
use minisup_core::action::Role;
use minisup_core::name::{Revision, ServiceName};
use minisup_core::restart::RestartPolicy;
use minisup_core::spec::{
    Condition, Need, Order, Probes, Project, Reserve, Service, Startup, StopPolicy, Timing,
};
use minisup_core::time::Span;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::balance::Balance;
use crate::door::Door;
pub(crate) use crate::publish::{Protocol, Publish};
use crate::settings::Settings;

/// Everything that shall run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Stack {
    /// The OCI runtime's program.
    pub(crate) runtime: PathBuf,
    /// The services by name.
    pub(crate) services: BTreeMap<String, ServiceSpec>,
    /// Its networks as the file has them, beyond what containers depend on: names and labels.
    #[serde(default)]
    pub(crate) networks: BTreeMap<String, Named>,
    /// No network leads out, whatever the file says.
    #[serde(default)]
    pub(crate) no_way_out: bool,
    /// The named volumes that are the project's own, for `down --volumes`.
    #[serde(default)]
    pub(crate) volumes: BTreeSet<String>,
}

/// What people call a network.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Named {
    /// Its name, `PROJECT_KEY` unless the file has another.
    pub(crate) name: String,
    /// Its labels.
    pub(crate) labels: BTreeMap<String, String>,
}

/// One service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ServiceSpec {
    /// The bundle its containers are made from, absolute.
    pub(crate) bundle: PathBuf,
    /// How many of it.
    pub(crate) replicas: u32,
    /// Replaces the bundle's command, if given.
    pub(crate) command: Option<Vec<String>>,
    /// Added to the bundle's environment, `NAME=value`.
    pub(crate) env: Vec<String>,
    /// The memory limit of one container, in bytes.
    pub(crate) memory_bytes: Option<u64>,
    /// The memory one container is promised; `None` is as much as its limit.
    pub(crate) reserved_bytes: Option<u64>,
    /// The CPU limit of one container, in thousandths of a CPU.
    pub(crate) cpu_millis: Option<u64>,
    /// The CPU time one container is promised, in thousandths of a CPU.
    pub(crate) reserved_cpu_millis: u64,
    /// How many processes and threads one container may have.
    pub(crate) pids: Option<i64>,
    /// Host ports and what they lead to.
    pub(crate) publish: Vec<Publish>,
    /// Ports that only other services reach, by TCP.
    #[serde(default)]
    pub(crate) expose: Vec<u16>,
    /// The same by UDP.
    #[serde(default)]
    pub(crate) expose_udp: Vec<u16>,
    /// How requests are given to its replicas.
    #[serde(default)]
    pub(crate) balance: Balance,
    /// How its health is found out; by default, connecting to the first published port.
    pub(crate) health: Option<Health>,
    /// What asks it to stop, a signal's name or number.
    pub(crate) stop_signal: String,
    /// How long it may take to exit.
    pub(crate) stop_grace_ms: u64,
    /// How long requests in flight may take to finish.
    pub(crate) drain_ms: u64,
    /// What follows an exit.
    pub(crate) restart: RestartPolicy,
    /// Which comes first when one container replaces another.
    pub(crate) order: Order,
    /// The same where it only has to move into the namespaces of another.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) moves: Order,
    /// How many slots an update takes out at a time.
    pub(crate) parallelism: u32,
    /// The services that must be there before the first start.
    pub(crate) needs: BTreeMap<String, Need>,
    /// What the containers get beside their image.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) settings: Settings,
    /// Checks for single roles, instead of `health`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) roles: Roles,
    /// Labels of the service, for people and programs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) labels: BTreeMap<String, String>,
    /// The revisions of services that it is replaced with.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) follows: BTreeMap<String, String>,
    /// Whether `up` in the foreground shows what it prints.
    #[serde(default = "yes")]
    pub(crate) attach: bool,
}

fn yes() -> bool {
    true
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Checks for single roles.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Roles {
    /// Must pass once before the others begin.
    pub(crate) startup: Option<Health>,
    /// Turns requests away while it fails.
    pub(crate) ready: Option<Health>,
    /// Has the instance replaced when it fails.
    pub(crate) live: Option<Health>,
}

/// A health check in all its roles.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Health {
    /// What is done.
    pub(crate) probe: Probe,
    /// Pause between two probes.
    pub(crate) interval_ms: u64,
    /// How long one may take.
    pub(crate) timeout_ms: u64,
    /// Failures in a row that mean unhealthy.
    pub(crate) retries: u32,
    /// How long after the start failures do not count.
    pub(crate) start_period_ms: u64,
    /// Pause before the second probe while starting.
    pub(crate) start_interval_ms: u64,
    /// Passes in a row that mean ready again.
    #[serde(default = "once")]
    pub(crate) rise: u32,
}

fn once() -> u32 {
    1
}

/// What a probe does, always from within the container's namespaces.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Probe {
    /// Runs a command in the container; status 0 is healthy.
    Exec(Vec<String>),
    /// Asks over HTTP; status 200 to 399 is healthy.
    Http {
        /// The port.
        port: u16,
        /// The path with its query.
        path: String,
        /// The Host field, where it is not `localhost` with the port.
        #[serde(default, skip_serializing_if = "is_default")]
        host: Option<String>,
    },
    /// Connects.
    Tcp {
        /// The port.
        port: u16,
    },
    /// Asks the health service of gRPC; SERVING is healthy.
    Grpc {
        /// The port.
        port: u16,
        /// The service asked for; empty is the server as a whole.
        service: String,
    },
    /// Connects to a unix socket.
    Unix {
        /// Its path in the container.
        path: String,
    },
}

impl ServiceSpec {
    /// What the containers are made from, as a short hash.
    pub(crate) fn revision(&self) -> Revision {
        let balance = Balance::default();
        // What may change while containers run.
        let mut constant = ServiceSpec {
            replicas: 0,
            balance,
            expose: vec![],
            expose_udp: vec![],
            labels: BTreeMap::new(),
            attach: true,
            ..self.clone()
        };
        // Containers do not know where they are published; how they are probed may follow from it.
        constant.health = self.health();
        constant.publish.clear();
        constant.settings.aliases.clear();
        constant.settings.settle_networks();
        constant.settings.direct = false;
        let text = serde_json::to_vec(&constant).unwrap_or_default();
        let hash = Sha256::digest(&text);
        let hex: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Revision::from(hex.as_str())
    }

    /// Whether anybody can send it something: at ports that are known, or, in a network, directly.
    pub(crate) fn is_reachable(&self) -> bool {
        !self.ports().is_empty() || !self.settings.attached().is_empty()
    }

    /// The ports at which other services reach it, and what is spoken there.
    pub(crate) fn ports(&self) -> Vec<(u16, Protocol)> {
        let published = self.publish.iter().map(|publish| (publish.port, publish.protocol));
        let exposed = self.expose.iter().map(|port| (*port, Protocol::Auto));
        let datagrams = self.expose_udp.iter().map(|port| (*port, Protocol::Udp));
        // What a published port says of itself wins.
        let all = exposed.chain(datagrams).chain(published);
        let by_port: BTreeMap<(u16, Transport), Protocol> =
            all.map(|(port, protocol)| ((port, protocol.transport()), protocol)).collect();
        by_port.into_iter().map(|((port, _), protocol)| (port, protocol)).collect()
    }

    /// The health check that is in force: the given one, or a connection to the first TCP port
    /// that is published. Nobody can know what a UDP port would answer to.
    pub(crate) fn health(&self) -> Option<Health> {
        let default = || {
            let stream = |publish: &&Publish| publish.protocol.transport() == Transport::Tcp;
            let port = self.publish.iter().find(stream)?.port;
            Some(Health {
                probe: Probe::Tcp { port },
                interval_ms: 1000,
                timeout_ms: 1000,
                retries: 3,
                start_period_ms: 30_000,
                start_interval_ms: 10,
                rise: 1,
            })
        };
        self.health.clone().or_else(default)
    }

    /// What is asked in a role. The health check fills the roles that have none of their own; a
    /// check for one role does for the start, too.
    pub(crate) fn check(&self, role: Role) -> Option<Health> {
        let Roles { startup, ready, live } = self.roles.clone();
        match role {
            Role::Startup => startup.or_else(|| self.health()).or(ready).or(live),
            Role::Ready => ready,
            Role::Live => live.or_else(|| self.health()),
        }
    }

    /// What decisions depend on.
    pub(crate) fn to_core(&self) -> Service {
        let check = |role| self.check(role);
        let joins = self.settings.joins.values().map(|of| ServiceName::from(of.as_str()));
        let joins: BTreeSet<ServiceName> = joins.collect();
        let asked = self.needs.iter().map(|(on, need)| (on.as_str().into(), *need));
        let mut needs: BTreeMap<ServiceName, Need> = asked.collect();
        for joined in &joins {
            let need = Need { condition: Condition::Started, required: true };
            needs.entry(joined.clone()).or_insert(need);
        }
        Service {
            revision: self.revision(),
            replicas: self.replicas,
            parallelism: self.parallelism,
            order: self.order,
            moves: self.moves,
            restart: self.restart,
            probes: Probes {
                startup: check(Role::Startup).as_ref().map(Health::startup),
                ready: check(Role::Ready).as_ref().map(Health::timing),
                live: check(Role::Live).as_ref().map(Health::timing),
            },
            stop: StopPolicy {
                pre_stop: !self.settings.pre_stop.is_empty(),
                drain: Span::from_ms(self.drain_ms),
                grace: Span::from_ms(self.stop_grace_ms),
            },
            needs,
            joins,
            reserve: Reserve {
                memory_bytes: self.reserved_bytes.or(self.memory_bytes).unwrap_or_default(),
                cpu_millis: self.reserved_cpu_millis,
            },
            routed: self.is_reachable(),
        }
    }
}

impl Health {
    fn startup(&self) -> Startup {
        let interval = Span::from_ms(self.interval_ms);
        Startup {
            first_interval: Span::from_ms(self.start_interval_ms),
            interval,
            timeout: Span::from_ms(self.timeout_ms),
            within: Span::from_ms(self.start_period_ms) + interval * self.retries,
        }
    }

    fn timing(&self) -> Timing {
        let interval = Span::from_ms(self.interval_ms);
        let timeout = Span::from_ms(self.timeout_ms);
        Timing {
            interval,
            timeout,
            retries: self.retries,
            rise: self.rise,
            confirm_interval: Span::from_ms(200).min(interval),
            confirm_timeout: Span::from_ms(500).min(timeout),
        }
    }
}

impl Stack {
    /// Checks that nothing is wanted twice that there is once.
    ///
    /// # Errors
    /// What it is, and who wants it.
    pub(crate) fn check(&self) -> Result<()> {
        for (name, spec) in &self.services {
            let last = name.rsplit('.').next().filter(|last| *last != name);
            if last.is_some_and(|last| last.chars().all(|c| c.is_ascii_digit())) {
                bail!(
                    "{name} cannot be the name of a service: what ends with a dot and a number \
                     is a replica (web.1); write {} instead",
                    name.replace('.', "-")
                );
            }
            if self.no_way_out && spec.settings.needs_way_out() {
                bail!(
                    "{name} has a name for the host (`extra_hosts`, `host-gateway`), and with \
                     `--way-out no` nothing leads there; give one of the two up"
                );
            }
        }
        self.check_room(|name| self.services.get(name).map_or(0, |spec| spec.replicas))?;
        self.check_ports()
    }

    /// Checks that no host port is published twice.
    fn check_ports(&self) -> Result<()> {
        let mut taken: BTreeMap<Door, (&str, Publish)> = BTreeMap::new();
        for (name, spec) in &self.services {
            let certain = spec.publish.iter().filter(|publish| !publish.is_open());
            for publish in certain.flat_map(Publish::families) {
                let door = publish.door();
                let this = (name.as_str(), publish);
                let first = taken.entry(door).or_insert_with(|| this.clone());
                // The same may be said twice, as by `8080:3000` and `[::]:8080:3000`.
                if *first != this {
                    bail!("{door} is published by {} and by {name}", first.0);
                }
            }
        }
        Ok(())
    }

    /// What decisions depend on.
    pub(crate) fn to_core(&self) -> Project {
        let service = |(name, spec): (&String, &ServiceSpec)| {
            (ServiceName::from(name.as_str()), spec.to_core())
        };
        Project { services: self.services.iter().map(service).collect() }
    }
}

#[cfg(test)]
mod tests;
