//! `deploy`: how many replicas, with which resources, and how they are replaced.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::unset;
use crate::field::{Field, Fields};
use crate::findings::Findings;
use crate::quantity::{Bytes, Cpus, Millis, Ratio};

/// `deploy` of a service, with what the older keys beside it say (`scale`, `restart`, `mem_limit`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Deploy {
    /// Kept running, or run to its end.
    pub mode: Mode,
    /// How many; 0 is allowed. Always 1 in the global modes, for there is one host.
    pub replicas: u32,
    /// What the name of the service resolves to.
    pub endpoint_mode: EndpointMode,
    /// Labels of the service, not of its containers.
    #[serde(skip_serializing_if = "unset")]
    pub labels: BTreeMap<String, String>,
    /// How a new version replaces the old one.
    pub update_config: Rollout,
    /// How the old version comes back when the new one fails.
    pub rollback_config: Rollout,
    /// What happens when a replica ends.
    pub restart_policy: RestartPolicy,
    /// Where replicas may run; on one host only what can never be met matters.
    #[serde(skip_serializing_if = "unset")]
    pub placement: Placement,
    /// What a replica may use and is promised.
    #[serde(skip_serializing_if = "unset")]
    pub resources: Resources,
}

/// `deploy.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// `replicas` containers that are kept running.
    #[default]
    Replicated,
    /// One per host, so one.
    Global,
    /// `replicas` containers that run to their end.
    ReplicatedJob,
    /// One per host that runs to its end.
    GlobalJob,
}

/// `deploy.endpoint_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointMode {
    /// The virtual address, behind which the balancer is.
    #[default]
    Vip,
    /// The addresses of the ready replicas.
    Dnsrr,
}

/// `update_config` or `rollback_config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rollout {
    /// Replicas replaced at a time; 0 is all.
    pub parallelism: u32,
    /// Pause between two batches.
    pub delay: Millis,
    /// How long a new replica is watched before it counts as good.
    pub monitor: Millis,
    /// Share of replicas that may fail.
    pub max_failure_ratio: Ratio,
    /// What to do when more fail; `None`: roll back if there is a health check, else pause.
    #[serde(skip_serializing_if = "unset")]
    pub failure_action: Option<FailureAction>,
    /// `None`: start first where ports and volumes allow it, else stop first.
    #[serde(skip_serializing_if = "unset")]
    pub order: Option<Order>,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: Millis(0),
            monitor: Millis(5000),
            max_failure_ratio: Ratio(0),
            failure_action: None,
            order: None,
        }
    }
}

/// `failure_action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureAction {
    /// Go on with the next batch.
    Continue,
    /// Stop, and wait for a person.
    Pause,
    /// Bring the old version back.
    Rollback,
}

/// `order`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The old replica stops when the new one is ready.
    StartFirst,
    /// The new replica starts when the old one has stopped.
    StopFirst,
}

/// `restart_policy`, and `restart`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RestartPolicy {
    /// After which ends.
    pub condition: RestartCondition,
    /// Least time between an end and the next start; the back-off may take longer.
    #[serde(skip_serializing_if = "unset")]
    pub delay: Option<Millis>,
    /// Restarts of one slot within `window` until it is given up; `None` is without end.
    #[serde(skip_serializing_if = "unset")]
    pub max_attempts: Option<u32>,
    /// The time in which attempts are counted; `None` is since the last success.
    #[serde(skip_serializing_if = "unset")]
    pub window: Option<Millis>,
}

/// `restart_policy.condition`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartCondition {
    /// Never (`none`; `restart: no`).
    None,
    /// When it ended with an error.
    OnFailure,
    /// Always (`any`; `restart: always`).
    #[default]
    Any,
    /// Always, but a service that a person has stopped stays stopped when the host boots.
    UnlessStopped,
}

/// `placement`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Placement {
    /// All must hold for this host.
    #[serde(skip_serializing_if = "unset")]
    pub constraints: Vec<Constraint>,
    /// No more replicas than this.
    #[serde(skip_serializing_if = "unset")]
    pub max_replicas_per_node: Option<u32>,
}

/// One constraint, as `node.hostname==worker-1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    /// `node.role`, `node.hostname`, `node.platform.os` or `node.platform.arch`.
    pub attribute: String,
    /// `==`, or else `!=`.
    pub equal: bool,
    /// What the attribute is compared with.
    pub value: String,
}

impl Serialize for Constraint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let operator = if self.equal { "==" } else { "!=" };
        serializer.collect_str(&format_args!("{}{operator}{}", self.attribute, self.value))
    }
}

/// `resources`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Resources {
    /// What a replica may use at most.
    #[serde(skip_serializing_if = "unset")]
    pub limits: Limits,
    /// What a replica is promised; the host must have it.
    #[serde(skip_serializing_if = "unset")]
    pub reservations: Reservations,
}

/// `resources.limits`, with `cpus`, `mem_limit` and `pids_limit` of the service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Limits {
    /// CPU time.
    #[serde(skip_serializing_if = "unset")]
    pub cpus: Option<Cpus>,
    /// Memory.
    #[serde(skip_serializing_if = "unset")]
    pub memory: Option<Bytes>,
    /// Processes and threads; -1 is without limit.
    #[serde(skip_serializing_if = "unset")]
    pub pids: Option<i64>,
}

/// `resources.reservations`, with `mem_reservation` of the service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Reservations {
    /// CPU time.
    #[serde(skip_serializing_if = "unset")]
    pub cpus: Option<Cpus>,
    /// Memory.
    #[serde(skip_serializing_if = "unset")]
    pub memory: Option<Bytes>,
}

/// `deploy` as it is written, before the keys beside it are taken in.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) mode: Mode,
    pub(super) replicas: Option<u32>,
    pub(super) endpoint_mode: EndpointMode,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) update_config: Rollout,
    pub(super) rollback_config: Rollout,
    pub(super) condition: Option<RestartCondition>,
    pub(super) delay: Option<Millis>,
    pub(super) max_attempts: Option<u32>,
    pub(super) window: Option<Millis>,
    pub(super) placement: Placement,
    pub(super) resources: Resources,
}

impl Written {
    pub(super) fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let modes = [
            ("replicated", Mode::Replicated),
            ("global", Mode::Global),
            ("replicated-job", Mode::ReplicatedJob),
            ("global-job", Mode::GlobalJob),
        ];
        let mode = f.take("mode", cx).and_then(|field| {
            let mode = field.one_of(cx, &modes)?;
            if matches!(mode, Mode::Global | Mode::GlobalJob) {
                let remedy = "write `replicated`, with `replicas`, for more than one";
                field.warn(
                    cx,
                    "one replica for each host is one replica: there is one host",
                    remedy,
                );
            }
            Some(mode)
        });
        let endpoints = [("vip", EndpointMode::Vip), ("dnsrr", EndpointMode::Dnsrr)];
        let mut written = Self {
            mode: mode.unwrap_or_default(),
            replicas: f.get("replicas", cx, |x, cx| x.number(cx, 0, 10_000)),
            endpoint_mode: f
                .get("endpoint_mode", cx, |x, cx| x.one_of(cx, &endpoints))
                .unwrap_or_default(),
            labels: f.list("labels", cx, Field::pairs),
            update_config: f.list("update_config", cx, |x, cx| Rollout::read(x, true, cx)),
            rollback_config: f.list("rollback_config", cx, |x, cx| Rollout::read(x, false, cx)),
            placement: f.list("placement", cx, read_placement),
            resources: f.list("resources", cx, read_resources),
            ..Self::default()
        };
        if let Some(field) = f.take("restart_policy", cx) {
            written.read_restart(&field, cx);
        }
        f.close(cx);
        Some(written)
    }

    fn read_restart(&mut self, field: &Field<'_>, cx: &mut Findings) {
        let mut f = Fields::open(field, cx);
        let conditions = [
            ("none", RestartCondition::None),
            ("on-failure", RestartCondition::OnFailure),
            ("any", RestartCondition::Any),
            ("unless-stopped", RestartCondition::UnlessStopped),
        ];
        self.condition = f.get("condition", cx, |x, cx| x.one_of(cx, &conditions));
        self.delay = f.get("delay", cx, Field::millis);
        self.max_attempts = f.get("max_attempts", cx, |x, cx| x.number(cx, 0, 1_000_000));
        self.window = f.get("window", cx, Field::millis);
        f.close(cx);
    }
}

impl Rollout {
    fn read(field: &Field<'_>, update: bool, cx: &mut Findings) -> Self {
        let mut f = Fields::open(field, cx);
        let default = Self::default();
        let mut actions =
            vec![("continue", FailureAction::Continue), ("pause", FailureAction::Pause)];
        if update {
            actions.push(("rollback", FailureAction::Rollback));
        }
        let orders = [("start-first", Order::StartFirst), ("stop-first", Order::StopFirst)];
        let rollout = Self {
            parallelism: f
                .get("parallelism", cx, |x, cx| x.number(cx, 0, 10_000))
                .unwrap_or(default.parallelism),
            delay: f.get("delay", cx, Field::millis).unwrap_or(default.delay),
            monitor: f.get("monitor", cx, Field::millis).unwrap_or(default.monitor),
            max_failure_ratio: f.get("max_failure_ratio", cx, Field::ratio).unwrap_or_default(),
            failure_action: f.get("failure_action", cx, |x, cx| x.one_of(cx, &actions)),
            order: f.get("order", cx, |x, cx| x.one_of(cx, &orders)),
        };
        f.close(cx);
        rollout
    }
}

fn read_placement(field: &Field<'_>, cx: &mut Findings) -> Placement {
    let mut f = Fields::open(field, cx);
    let constraints = |field: &Field<'_>, cx: &mut Findings| {
        field.items(cx).iter().filter_map(|item| read_constraint(item, cx)).collect()
    };
    let placement = Placement {
        constraints: f.list("constraints", cx, constraints),
        max_replicas_per_node: f.get("max_replicas_per_node", cx, |x, cx| x.number(cx, 0, 10_000)),
    };
    f.close(cx);
    placement
}

fn read_constraint(item: &Field<'_>, cx: &mut Findings) -> Option<Constraint> {
    let text = item.text(cx)?;
    let split = text.split_once("==").map(|pair| (pair, true));
    let Some(((attribute, value), equal)) =
        split.or(text.split_once("!=").map(|pair| (pair, false)))
    else {
        item.error(
            cx,
            format!("`{text}` is not a constraint"),
            "write `ATTRIBUTE==VALUE` or `ATTRIBUTE!=VALUE`",
        );
        return None;
    };
    let (attribute, value) = (attribute.trim().to_owned(), value.trim().to_owned());
    match attribute.as_str() {
        "node.hostname" | "node.platform.os" | "node.platform.arch" => {}
        "node.role" if (value == "manager") == equal => {}
        "node.role" => {
            item.error(
                cx,
                "can never be met: the only host is a manager",
                "remove it, or write `node.role==manager`",
            );
            return None;
        }
        _ => {
            let remedy =
                "known are node.role, node.hostname, node.platform.os and node.platform.arch";
            item.error(cx, format!("can never be met: this host has no `{attribute}`"), remedy);
            return None;
        }
    }
    Some(Constraint { attribute, equal, value })
}

fn read_resources(field: &Field<'_>, cx: &mut Findings) -> Resources {
    let mut f = Fields::open(field, cx);
    let limits = f.list("limits", cx, |field, cx| {
        let mut f = Fields::open(field, cx);
        let limits = Limits {
            cpus: f.get("cpus", cx, Field::cpus),
            memory: f.get("memory", cx, Field::bytes),
            pids: f.get("pids", cx, read_pids),
        };
        f.close(cx);
        limits
    });
    let reservations = f.list("reservations", cx, |field, cx| {
        let mut f = Fields::open(field, cx);
        let reservations = Reservations {
            cpus: f.get("cpus", cx, Field::cpus),
            memory: f.get("memory", cx, Field::bytes),
        };
        f.close(cx);
        reservations
    });
    f.close(cx);
    Resources { limits, reservations }
}

pub(super) fn read_pids(field: &Field<'_>, cx: &mut Findings) -> Option<i64> {
    let pids = field.number(cx, -1, 4_194_304)?;
    if pids == 0 {
        field.error(cx, "no process could run", "write -1 for no limit");
        return None;
    }
    Some(pids)
}
