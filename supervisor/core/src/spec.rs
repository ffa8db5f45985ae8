//! What the user wants, reduced to what decisions depend on.
//!
//! Commands, images, mounts and probe addresses are the driver's business; the core sees only a
//! [`Revision`] that changes when any of them does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::{Revision, ServiceName};
use crate::restart::RestartPolicy;
use crate::time::Span;

/// Everything that should run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Project {
    /// The services by name.
    pub services: BTreeMap<ServiceName, Service>,
}

/// One service: `replicas` interchangeable instances of one revision.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Service {
    /// Changes when anything that a container is made from changes.
    pub revision: Revision,
    /// How many slots the service has.
    pub replicas: u32,
    /// How many slots may be taken out of service at a time by our own choice. At least 1.
    pub parallelism: u32,
    /// Whether a replacement starts before the old instance stops.
    pub order: Order,
    /// The same for an instance that only has to move into the namespaces of another.
    #[serde(default)]
    pub moves: Order,
    /// What follows an exit.
    pub restart: RestartPolicy,
    /// How health is found out.
    pub probes: Probes,
    /// How an instance is stopped.
    pub stop: StopPolicy,
    /// The services that must be there before the first start.
    pub needs: BTreeMap<ServiceName, Need>,
    /// The services whose namespaces its instances are in, see [`crate::joined`]. Each is one of
    /// `needs`, too.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub joins: BTreeSet<ServiceName>,
    /// What one instance is guaranteed of the host.
    pub reserve: Reserve,
    /// Whether the data plane sends it requests.
    pub routed: bool,
}

/// Which of two instances of a slot comes first when one replaces the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The replacement must be ready before the old one is stopped.
    #[default]
    StartFirst,
    /// The old one must be gone before the replacement starts: never two of a slot at once, as a
    /// volume with a single writer demands.
    StopFirst,
}

/// What a dependent waits for before its first start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// Some container of every slot has been started.
    Started,
    /// Every slot is ready.
    Healthy,
    /// Every slot has run to its end with success.
    Completed,
}

/// A dependency on another service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Need {
    /// What must be true of the other service.
    pub condition: Condition,
    /// Whether to go on without it when it is absent or has failed for good.
    pub required: bool,
}

/// What one instance is guaranteed of the host's resources.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Reserve {
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Processor time in thousandths of one CPU.
    pub cpu_millis: u64,
}

/// How an instance is stopped. Stop order: `state` chart in [`crate::instance`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StopPolicy {
    /// Whether a hook runs before the stop signal.
    pub pre_stop: bool,
    /// How long requests in flight may take to finish.
    pub drain: Span,
    /// How long the process may take to exit after the stop signal; the hook has as long again.
    pub grace: Span,
}

/// The three roles a probe can have. A role without a probe counts as passed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Probes {
    /// Must pass once before the other two begin; until then the instance is starting.
    pub startup: Option<Startup>,
    /// Gates traffic, never kills.
    pub ready: Option<Timing>,
    /// Replaces the instance when it fails; a first failure already gates traffic.
    pub live: Option<Timing>,
}

/// When and how often the startup probe runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Startup {
    /// Pause before the second probe; grows by half with each failure.
    pub first_interval: Span,
    /// The longest pause between two probes.
    pub interval: Span,
    /// How long one probe may take.
    pub timeout: Span,
    /// How long after its start the instance must be ready, else it has failed.
    pub within: Span,
}

/// When and how often a ready or live probe runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Timing {
    /// Pause from the end of one probe to the start of the next.
    pub interval: Span,
    /// How long one probe may take.
    pub timeout: Span,
    /// How many failures in a row mean unhealthy. At least 1.
    pub retries: u32,
    /// How many passes in a row mean ready again. At least 1.
    pub rise: u32,
    /// The pause after a first failure, until the matter is settled (HAProxy's `fastinter`).
    pub confirm_interval: Span,
    /// How long a probe may take while failure is suspected from traffic.
    pub confirm_timeout: Span,
}

/// What the host has for instances, after what is kept for the system.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Host {
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Processor time in thousandths of one CPU.
    pub cpu_millis: u64,
}

impl Default for StopPolicy {
    /// Docker's ten seconds, and as long for requests to finish.
    fn default() -> StopPolicy {
        StopPolicy { pre_stop: false, drain: Span::from_secs(10), grace: Span::from_secs(10) }
    }
}

impl Startup {
    /// The pause before attempt number `attempt` (the first is 0 and waits for nothing).
    pub fn pause_before(&self, attempt: u32) -> Span {
        if attempt == 0 {
            return Span::ZERO;
        }
        let mut pause = self.first_interval;
        for _ in 1..attempt {
            if pause >= self.interval {
                break;
            }
            pause = pause.percent(150).max(pause + Span::from_ms(1));
        }
        pause.min(self.interval.max(self.first_interval))
    }
}

impl Reserve {
    /// `self` and `other` together.
    pub fn plus(self, other: Reserve) -> Reserve {
        Reserve {
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
        }
    }

    /// `times` such reservations.
    pub fn times(self, times: u32) -> Reserve {
        Reserve {
            memory_bytes: self.memory_bytes.saturating_mul(u64::from(times)),
            cpu_millis: self.cpu_millis.saturating_mul(u64::from(times)),
        }
    }

    /// Whether the host has that much.
    pub fn fits(self, host: Host) -> bool {
        self.memory_bytes <= host.memory_bytes && self.cpu_millis <= host.cpu_millis
    }
}

/// Why a project cannot be supervised at all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SpecError {
    /// A service needs itself in the end; the path says how.
    Cycle(Vec<ServiceName>),
    /// A required dependency is not in the project.
    Missing {
        /// Who needs it.
        service: ServiceName,
        /// What is needed.
        needs: ServiceName,
    },
    /// A number that must be at least 1 is 0.
    Zero {
        /// Where.
        service: ServiceName,
        /// Which number.
        what: &'static str,
    },
    /// All reservations together are more than the host has.
    OverReserved {
        /// What the replicas ask for.
        wanted: Reserve,
        /// What there is.
        host: Host,
    },
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpecError::Cycle(path) => {
                let names: Vec<&str> = path.iter().map(ServiceName::as_str).collect();
                write!(f, "services need each other in a circle: {}", names.join(" → "))
            }
            SpecError::Missing { service, needs } => {
                write!(f, "service {service} needs {needs}, which is not in the project")
            }
            SpecError::Zero { service, what } => {
                write!(f, "service {service}: {what} must be at least 1")
            }
            SpecError::OverReserved { wanted, host } => write!(
                f,
                "the replicas reserve {} bytes of memory and {} thousandths of a CPU, the host \
                 has {} and {}; lower the reservations or the replicas",
                wanted.memory_bytes, wanted.cpu_millis, host.memory_bytes, host.cpu_millis
            ),
        }
    }
}

impl std::error::Error for SpecError {}

impl Project {
    /// Checks what no later decision could repair: circles, absent dependencies, zeroes.
    ///
    /// # Errors
    /// The first defect in the order of service names.
    pub fn check(&self) -> Result<(), SpecError> {
        for (name, service) in &self.services {
            let zero = |what| SpecError::Zero { service: name.clone(), what };
            if service.parallelism == 0 {
                return Err(zero("parallelism"));
            }
            for timing in [&service.probes.ready, &service.probes.live].into_iter().flatten() {
                if timing.retries == 0 {
                    return Err(zero("retries"));
                }
                if timing.rise == 0 {
                    return Err(zero("rise"));
                }
            }
            let required = service.needs.iter().filter(|(_, need)| need.required);
            for needed in required.map(|(needed, _)| needed).chain(&service.joins) {
                if !self.services.contains_key(needed) {
                    return Err(SpecError::Missing {
                        service: name.clone(),
                        needs: needed.clone(),
                    });
                }
            }
        }
        self.services.keys().try_for_each(|name| self.check_circle(&mut vec![name.clone()]))
    }

    /// Follows the dependencies of the last name on `path` until one closes a circle.
    fn check_circle(&self, path: &mut Vec<ServiceName>) -> Result<(), SpecError> {
        let Some(service) = path.last().and_then(|name| self.services.get(name)) else {
            return Ok(());
        };
        for needed in service.needs.keys().chain(&service.joins) {
            if let Some(start) = path.iter().position(|seen| seen == needed) {
                let mut circle = path[start..].to_vec();
                circle.push(needed.clone());
                return Err(SpecError::Cycle(circle));
            }
            path.push(needed.clone());
            self.check_circle(path)?;
            path.pop();
        }
        Ok(())
    }

    /// Checks that the reservations of all replicas fit the host, `replicas` saying how many
    /// there shall be of each service.
    ///
    /// # Errors
    /// [`SpecError::OverReserved`] with both sums.
    pub fn check_fits(
        &self,
        host: Host,
        replicas: impl Fn(&ServiceName, &Service) -> u32,
    ) -> Result<(), SpecError> {
        let wanted = self.services.iter().fold(Reserve::default(), |sum, (name, service)| {
            sum.plus(service.reserve.times(replicas(name, service)))
        });
        if wanted.fits(host) { Ok(()) } else { Err(SpecError::OverReserved { wanted, host }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{needs, service};

    fn project(services: &[(&str, Service)]) -> Project {
        let services = services.iter().map(|(name, s)| ((*name).into(), s.clone())).collect();
        Project { services }
    }

    #[test]
    fn a_circle_is_named_by_its_path() {
        let a = needs(service(1), "b", Condition::Healthy);
        let b = needs(service(1), "c", Condition::Started);
        let c = needs(service(1), "b", Condition::Started);
        let err = project(&[("a", a), ("b", b), ("c", c)]).check().unwrap_err();
        assert_eq!(err.to_string(), "services need each other in a circle: b → c → b");
    }

    #[test]
    fn an_absent_dependency_is_an_error_only_when_required() {
        let mut web = needs(service(1), "db", Condition::Healthy);
        assert!(matches!(project(&[("web", web.clone())]).check(), Err(SpecError::Missing { .. })));
        web.needs.values_mut().for_each(|need| need.required = false);
        assert_eq!(project(&[("web", web)]).check(), Ok(()));
    }

    #[test]
    fn reservations_beyond_the_host_are_refused() {
        let mut web = service(3);
        web.reserve.memory_bytes = 100;
        let project = project(&[("web", web)]);
        let host = |memory_bytes| Host { memory_bytes, cpu_millis: 1000 };
        assert_eq!(project.check_fits(host(300), |_, s| s.replicas), Ok(()));
        assert!(project.check_fits(host(299), |_, s| s.replicas).is_err());
    }

    #[test]
    fn startup_probes_thin_out_up_to_the_interval() {
        let startup = Startup {
            first_interval: Span::from_ms(250),
            interval: Span::from_ms(1000),
            timeout: Span::from_secs(1),
            within: Span::from_secs(30),
        };
        let pauses: Vec<u64> = (0..7).map(|n| startup.pause_before(n).ms()).collect();
        assert_eq!(pauses, [0, 250, 375, 562, 843, 1000, 1000]);
    }
}
