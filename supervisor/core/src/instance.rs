//! One container's life, as the core sees it.
//!
//! ```text
//!                launched             startup passed            ready probe
//!   LAUNCHING ─────────────▶ STARTING ──────────────▶ READY ◀───────────────▶ UNREADY
//!       │                       │                       │                        │
//!       │ launch failed         └───────────┬───────────┴────────────────────────┘
//!       │                                   │ unhealthy · outdated · superfluous · unwanted
//!       │                                   ▼
//!       │   STOPPING   unroute ─▶ hook ─▶ drain ─▶ signal ─▶ kill
//!       │                │ the data plane   │ idle,   │ grace    │ the whole cgroup,
//!       │                │ acknowledged     │ or time │ is over  │ again each second
//!       ▼                ▼                  ▼         ▼          ▼
//!   EXITED ◀──────────── an exit, seen at any moment from STARTING on ──────────┘
//!       │
//!       └─ deleted ─▶ gone
//! ```
//!
//! A phase only ever moves to the right or down, except between READY and UNREADY. What the phase
//! owes to the world ([`Instance::owed`]) is a function of the phase alone, so after a crash of
//! the supervisor it is simply owed again: every action can be repeated without harm.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::name::{InstanceId, Revision};
use crate::restart::ExitCause;
use crate::time::Mono;

/// An instance: a container and what is known of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Instance {
    /// Its name.
    pub id: InstanceId,
    /// What it was made from.
    pub revision: Revision,
    /// Which of the restarts by command it belongs to.
    pub epoch: u64,
    /// Whose namespaces it is in, see [`crate::joined`].
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub joined: BTreeSet<InstanceId>,
    /// Where it is in its life.
    pub phase: Phase,
    /// Since when it is there.
    pub since: Mono,
    /// When it became ready for the first time.
    pub ready_at: Option<Mono>,
    /// What its probes said lately.
    pub health: Health,
    /// Set once its health asks for a replacement.
    pub condemned: bool,
    /// Set when it must stop as soon as its launch has ended.
    pub stop_wanted: Option<StopWhy>,
    /// What the data plane has been told of it.
    pub route: Route,
    /// The generation of the routes that said so.
    pub route_generation: u64,
    /// Since it drains, its last request has been answered.
    pub idle: bool,
}

/// Where an instance is in its life.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The runtime is creating and starting it.
    Launching,
    /// It runs; the startup probe has not passed yet.
    Starting {
        /// When the startup probe must have passed; `None` for no limit.
        deadline: Option<Mono>,
    },
    /// It may be given requests.
    Ready,
    /// It runs, but its ready probe fails.
    Unready,
    /// It is on its way out by our own choice.
    Stopping {
        /// How far.
        stage: StopStage,
        /// When the stage ends by itself.
        until: Mono,
        /// Why.
        why: StopWhy,
    },
    /// Its process is gone; the container has still to be deleted.
    Exited {
        /// How it ended.
        cause: ExitCause,
        /// How often deleting has failed.
        failed_deletes: u32,
        /// When to try deleting again; `None` while a try is under way.
        retry_at: Option<Mono>,
    },
}

/// The stages of a stop, strictly in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopStage {
    /// Waits until the data plane has acknowledged that it sends nothing new.
    Unroute,
    /// The pre-stop hook runs.
    Hook,
    /// Waits for the requests in flight.
    Drain,
    /// The stop signal has been sent; the grace period runs.
    Signal,
    /// Everything in the container is being killed.
    Kill,
}

/// Why we stop an instance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopWhy {
    /// Its live probe failed.
    Unhealthy,
    /// Its startup probe did not pass in time.
    StartupTimeout,
    /// Its replacement is ready, or may only start when it is gone.
    Replaced,
    /// It was started to replace an instance that has recovered.
    Superfluous,
    /// Whoever's namespaces it is in has ended, or is about to.
    Orphaned,
    /// Its slot or its service is not wanted any more.
    Unwanted,
    /// Everything is being stopped.
    Down,
}

/// Run lengths of probe results: what counts is how many in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Health {
    /// Live probes failed in a row.
    pub live_failures: u32,
    /// Ready probes failed in a row.
    pub ready_failures: u32,
    /// Ready probes passed in a row while unready.
    pub ready_passes: u32,
    /// Traffic gave reason to doubt it; the next probe decides.
    pub suspected: bool,
    /// The last probe could not be made at all.
    pub unprobed: bool,
}

/// What the data plane has been told of an instance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Route {
    /// Nothing: it gets no requests.
    Absent,
    /// It takes its share.
    Active,
    /// Traffic casts doubt on it: it gets requests only when no active instance is left.
    Suspect,
    /// As [`Suspect`](Route::Suspect), and a probe has failed: requests that it has and that may be
    /// repeated leave it.
    Failing,
    /// It finishes what it has and gets nothing new.
    Draining,
}

impl StopWhy {
    /// Whether the instance itself has failed: it gets less patience, and its end counts as a
    /// failure in the restart history.
    pub fn is_failure(self) -> bool {
        matches!(self, StopWhy::Unhealthy | StopWhy::StartupTimeout)
    }

    /// Whether what it still does is of use to nobody, so that it gets less time for it.
    pub fn is_urgent(self) -> bool {
        self.is_failure() || self == StopWhy::Orphaned
    }
}

impl fmt::Display for StopWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StopWhy::Unhealthy => "unhealthy",
            StopWhy::StartupTimeout => "not ready in time",
            StopWhy::Replaced => "replaced",
            StopWhy::Superfluous => "superfluous",
            StopWhy::Orphaned => "orphaned",
            StopWhy::Unwanted => "not wanted any more",
            StopWhy::Down => "everything is stopped",
        })
    }
}

impl Health {
    /// Whether anything speaks against sending it requests.
    pub fn is_doubtful(&self) -> bool {
        self.suspected || self.has_failed()
    }

    /// Whether the last probe of a role has failed.
    pub fn has_failed(&self) -> bool {
        self.live_failures > 0 || self.ready_failures > 0
    }
}

impl Instance {
    /// A new instance whose launch begins at `now`.
    pub(crate) fn new(id: InstanceId, revision: Revision, epoch: u64, now: Mono) -> Instance {
        Instance {
            id,
            revision,
            epoch,
            joined: BTreeSet::new(),
            phase: Phase::Launching,
            since: now,
            ready_at: None,
            health: Health::default(),
            condemned: false,
            stop_wanted: None,
            route: Route::Absent,
            route_generation: 0,
            idle: false,
        }
    }

    /// Whether it is in place or coming: neither stopping nor gone.
    pub fn is_live(&self) -> bool {
        self.stop_wanted.is_none()
            && !matches!(self.phase, Phase::Stopping { .. } | Phase::Exited { .. })
    }

    /// Whether its process may exist, and so its memory may be in use.
    pub fn occupies(&self) -> bool {
        !matches!(self.phase, Phase::Exited { .. })
    }

    /// Whether it is ready.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Whether it runs its workload: started, and nobody has asked it to stop.
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. } | Phase::Ready | Phase::Unready)
    }

    /// Whether the data plane has acknowledged that it has no route, or never had one.
    pub(crate) fn is_unrouted(&self, acknowledged: u64) -> bool {
        self.route == Route::Absent && self.route_generation <= acknowledged
    }

    /// When something happens to it without any news from outside.
    pub(crate) fn deadline(&self) -> Option<Mono> {
        match self.phase {
            Phase::Starting { deadline } => deadline,
            Phase::Stopping { until, .. } => Some(until),
            Phase::Exited { retry_at, .. } => retry_at,
            Phase::Launching | Phase::Ready | Phase::Unready => None,
        }
    }

    /// What its phase owes to the world, apart from probes and routes.
    pub fn owed(&self) -> Option<Action> {
        let instance = self.id.clone();
        match &self.phase {
            Phase::Launching => Some(Action::Launch {
                instance,
                revision: self.revision.clone(),
                joined: self.joined.clone(),
            }),
            Phase::Stopping { stage: StopStage::Hook, .. } => Some(Action::Hook { instance }),
            Phase::Stopping { stage: StopStage::Signal, .. } => Some(Action::Signal { instance }),
            Phase::Stopping { stage: StopStage::Kill, .. } => Some(Action::Kill { instance }),
            Phase::Exited { retry_at: None, .. } => Some(Action::Delete { instance }),
            _ => None,
        }
    }
}
