//! What the core is told: commands, answers to its actions, and news nobody asked for.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::action::Role;
use crate::instance::Route;
use crate::name::{InstanceId, Revision, ServiceName, SlotId};
use crate::restart::ExitCause;
use crate::spec::{Host, Project};

/// One piece of news.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// Nothing but the time.
    Tick,
    /// Somebody wants something.
    Command(Command),
    /// A launch has ended.
    Launched {
        /// Whose.
        instance: InstanceId,
        /// `Err` says why it does not run; nothing of it is left then.
        result: Result<(), String>,
    },
    /// A probe has ended.
    Probed {
        /// Who was probed.
        instance: InstanceId,
        /// In which role.
        role: Role,
        /// The number the action carried.
        attempt: u32,
        /// What it said.
        outcome: Outcome,
    },
    /// Traffic gives reason to doubt an instance.
    Doubted {
        /// Whom.
        instance: InstanceId,
        /// What the data plane saw.
        evidence: Evidence,
    },
    /// The pre-stop hook has ended, well or not.
    Hooked {
        /// Whose.
        instance: InstanceId,
        /// `Err` says what went wrong.
        result: Result<(), String>,
    },
    /// The first process of a container is gone, and with it all others.
    Exited {
        /// Whose.
        instance: InstanceId,
        /// How it ended.
        cause: ExitCause,
    },
    /// The kernel killed a process of a container, which goes on without it.
    ChildOutOfMemory {
        /// Whose.
        instance: InstanceId,
    },
    /// A deletion has ended.
    Deleted {
        /// Whose.
        instance: InstanceId,
        /// `Err` says why something is left.
        result: Result<(), String>,
    },
    /// A data plane is there and asks for the routes.
    DataPlane(Followed),
    /// The data plane follows the routes of that generation now.
    Acknowledged {
        /// Which.
        generation: u64,
    },
    /// A draining instance has no request in flight any more.
    Idle {
        /// Whom.
        instance: InstanceId,
    },
    /// The host's size has been measured.
    Host(Host),
    /// What there is, looked up anew.
    Observed(Observation),
}

/// What people can ask for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Make it so. Scaling by command is forgotten for services whose `replicas` changed.
    Apply(Project),
    /// Another number of replicas.
    Scale {
        /// Of which service.
        service: ServiceName,
        /// How many.
        replicas: u32,
    },
    /// Replace every instance by a new one of the same revision.
    Restart {
        /// Of which service.
        service: ServiceName,
    },
    /// Stop a service and leave it stopped.
    Stop {
        /// Which.
        service: ServiceName,
    },
    /// Start a stopped service.
    Start {
        /// Which.
        service: ServiceName,
    },
    /// Forget a slot's failures and try again at once.
    Reset {
        /// Which.
        slot: SlotId,
    },
    /// Stop everything, dependents first.
    Down,
}

/// What a probe said.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Healthy.
    Pass,
    /// Not healthy, with what was seen.
    Fail(String),
    /// The probe could not be made. That is our failure, not the instance's, and counts nothing.
    Impossible(String),
}

/// What the data plane saw of an instance that may be sick.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// Connections are refused or reset.
    Refused,
    /// Requests get no answer.
    Silent,
    /// A run of answers with status 5xx.
    Errors,
    /// Far slower than its peers.
    Slow,
}

impl Evidence {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Evidence::Refused => "connections are refused",
            Evidence::Silent => "requests get no answer",
            Evidence::Errors => "a run of 5xx answers",
            Evidence::Slow => "far slower than its peers",
        }
    }
}

/// What there is, as the kernel, the runtime and the keeper say.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Observation {
    /// Which boot of the host this is (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// Every container of the project.
    pub containers: BTreeMap<InstanceId, Container>,
    /// Instances with an action under way: what was seen of them is already old.
    pub busy: BTreeSet<InstanceId>,
    /// Whether the supervisor has just started: then everything owed is owed again.
    pub fresh: bool,
    /// What the data plane does, if there is one and it was asked.
    pub data_plane: Option<Followed>,
}

/// The routes a data plane follows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Followed {
    /// Their number; 0 if it has none.
    pub generation: u64,
    /// The route of each instance it knows.
    pub routes: BTreeMap<InstanceId, Route>,
}

/// One container as it was found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Container {
    /// What it was made from.
    pub revision: Revision,
    /// Whose namespaces it was put into.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub joined: BTreeSet<InstanceId>,
    /// Its state.
    pub status: Status,
}

/// The state of a container as it was found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Created, or half created; its workload never ran.
    Created,
    /// It runs.
    Running,
    /// Its process is gone.
    Stopped(ExitCause),
}
