//! `x-minisup`: what Compose has no word for.
//!
//! Every key has one form, so that the types here are the whole documentation: the JSON schema for
//! editors is generated from them (`docs/reference/x-minisup.schema.json`).

mod autoscale;
mod balance;
mod cron;
mod probes;
mod release;
#[cfg(test)]
mod schema;

use serde::Serialize;

#[cfg(test)]
use schemars::JsonSchema;

pub use autoscale::{
    Autoscale, CustomMetric, Metric, Policies, Policy, Predict, PredictMode, Schedule, Vertical,
    VerticalCpus, VerticalMemory, VerticalMode,
};
pub use balance::{Algorithm, Balance, LbProtocol, Outlier, ProxyProtocol, Queue, Tls};
pub use probes::{Check, GrpcProbe, HttpProbe, Probe, Probes, TcpProbe, UnixProbe};
pub use release::{Backoff, Canary, Guard, Leak, LeakMode, Release, Reload, SecretsReload, Slo};

use crate::field::{Field, Fields};
use crate::findings::Findings;
use crate::quantity::{Bytes, Cpus, Millis};

fn unset<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// `x-minisup` of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct ServiceExtension {
    /// Checks made by the supervisor itself, by role. `healthcheck` fills the roles left out.
    #[serde(skip_serializing_if = "unset")]
    pub probes: Probes,
    /// How requests are given to replicas.
    #[serde(skip_serializing_if = "unset")]
    pub lb: Balance,
    /// More and fewer replicas by load.
    #[serde(skip_serializing_if = "unset")]
    pub autoscale: Option<Autoscale>,
    /// More and less memory and CPU for each replica.
    #[serde(skip_serializing_if = "unset")]
    pub vertical: Option<Vertical>,
    /// What to do about memory that only grows.
    #[serde(skip_serializing_if = "unset")]
    pub leak: Option<Leak>,
    /// What the service promises; reports and releases measure against it.
    #[serde(skip_serializing_if = "unset")]
    pub slo: Option<Slo>,
    /// Replicas kept started, ready and frozen, for a recovery in milliseconds.
    #[serde(skip_serializing_if = "unset")]
    pub spare: u32,
    /// Waiting between restarts.
    #[serde(skip_serializing_if = "unset")]
    pub backoff: Backoff,
    /// How a new version comes, beyond `deploy.update_config`.
    #[serde(skip_serializing_if = "unset")]
    pub release: Release,
    /// What happens when a secret or config changes.
    #[serde(skip_serializing_if = "unset")]
    pub secrets: SecretsReload,
    /// Wait for `depends_on` also when this service recovers, not only when the project starts.
    #[serde(skip_serializing_if = "unset")]
    pub follow_dependencies: bool,
}

/// `x-minisup` at the top of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct ProjectExtension {
    /// What of the host is kept for everything else; reservations share the rest.
    #[serde(skip_serializing_if = "unset")]
    pub reserve: Reserve,
    /// How long the history is kept.
    #[serde(skip_serializing_if = "unset")]
    pub retention: Retention,
}

/// `reserve` of the project.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Reserve {
    /// CPU time.
    #[serde(skip_serializing_if = "unset")]
    pub cpus: Option<Cpus>,
    /// Memory.
    #[serde(skip_serializing_if = "unset")]
    pub memory: Option<Bytes>,
}

/// `retention` of the project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(JsonSchema), schemars(default))]
pub struct Retention {
    /// Events older than this are dropped. Default 30 days.
    pub age: Millis,
    /// The store is kept below this. Default 256 MiB.
    pub size: Bytes,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Millis(30 * 86_400_000), size: Bytes(256 << 20) }
    }
}

impl ServiceExtension {
    pub(crate) fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let extension = Self {
            probes: f.list("probes", cx, Probes::read),
            lb: f.list("lb", cx, Balance::read),
            autoscale: f.get("autoscale", cx, Autoscale::read),
            vertical: f.get("vertical", cx, Vertical::read),
            leak: f.get("leak", cx, Leak::read),
            slo: f.get("slo", cx, Slo::read),
            spare: f.get("spare", cx, |x, cx| x.number(cx, 0, 100)).unwrap_or(0),
            backoff: f.list("backoff", cx, Backoff::read),
            release: f.list("release", cx, Release::read),
            secrets: f.list("secrets", cx, SecretsReload::read),
            follow_dependencies: f.get("follow_dependencies", cx, Field::boolean).unwrap_or(false),
        };
        f.close(cx);
        Some(extension)
    }
}

impl ProjectExtension {
    pub(crate) fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let reserve = f.list("reserve", cx, |field, cx| {
            let mut f = Fields::open(field, cx);
            let reserve = Reserve {
                cpus: f.get("cpus", cx, Field::cpus),
                memory: f.get("memory", cx, Field::bytes),
            };
            f.close(cx);
            reserve
        });
        let retention = f.list("retention", cx, |field, cx| {
            let mut f = Fields::open(field, cx);
            let default = Retention::default();
            let retention = Retention {
                age: f.get("age", cx, Field::millis).unwrap_or(default.age),
                size: f.get("size", cx, Field::bytes).unwrap_or(default.size),
            };
            f.close(cx);
            retention
        });
        f.close(cx);
        Some(Self { reserve, retention })
    }
}
