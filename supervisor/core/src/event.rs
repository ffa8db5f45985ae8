//! The history: what changed, when, and why.
//!
//! Events are the only way the state changes ([`State::apply`](crate::state::State::apply)), so
//! the list of them *is* the state, and each carries the reason it happened for. `explain` is a
//! query over this list; nothing has to be guessed from a log.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::action::Role;
use crate::instance::{Route, StopStage, StopWhy};
use crate::name::{InstanceId, Revision, ServiceName, SlotId};
use crate::restart::ExitCause;
use crate::spec::{Host, Project};
use crate::time::{Mono, Span};

/// One entry of the history.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Mono,
    /// What changed.
    pub change: Change,
    /// Why.
    pub reason: Reason,
}

/// Why something happened: the rule that decided, and what it saw.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reason {
    /// The rule.
    pub rule: Rule,
    /// Its inputs in words; never a secret, never empty.
    pub evidence: String,
}

/// The rules that decide. One name for each, to search the history by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// A person or program asked for it.
    Command,
    /// The host or the runtime reported it.
    Observed,
    /// The number of slots follows the number of replicas.
    Replicas,
    /// A vacant slot gets an instance.
    Vacant,
    /// A slot waits for a dependency, for room on the host, or for its remains to be deleted.
    Admission,
    /// A probe passed or failed.
    Probe,
    /// Traffic gave reason for doubt.
    Traffic,
    /// An unhealthy instance is replaced.
    Heal,
    /// An instance of an old revision or epoch is replaced.
    Update,
    /// A replacement is ready, so the old instance goes; or is not needed, so it goes itself.
    Handover,
    /// A stop goes through its stages in order.
    StopOrder,
    /// A deadline passed.
    Deadline,
    /// Whoever is in the namespaces of another goes with that one.
    Joined,
    /// The restart policy.
    Restart,
    /// Requests go only where they can be answered.
    Routing,
    /// What was found running is brought in line with what is known.
    Adoption,
}

/// What changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// The desired state is this now.
    Configured(Project),
    /// A service has another number of replicas than its file says.
    Scaled {
        /// Which.
        service: ServiceName,
        /// How many.
        replicas: u32,
    },
    /// All instances of a service are outdated.
    RestartWanted {
        /// Which.
        service: ServiceName,
    },
    /// A service is stopped, or is to run again.
    Halted {
        /// Which.
        service: ServiceName,
        /// Whether it is stopped.
        halted: bool,
    },
    /// Everything is to stop.
    GoingDown,
    /// The host has this size.
    HostSized(Host),
    /// The host has booted: whatever ran before is gone.
    Booted {
        /// The new boot's name.
        boot: String,
    },
    /// A slot exists, or is wanted again.
    SlotWanted(SlotId),
    /// A slot is not wanted any more and empties.
    SlotUnwanted(SlotId),
    /// An empty slot is gone.
    SlotRemoved(SlotId),
    /// A slot cannot be filled now.
    Waiting {
        /// Which.
        slot: SlotId,
        /// For what.
        obstacle: Obstacle,
    },
    /// An instance is being launched.
    Launching {
        /// Its name.
        instance: InstanceId,
        /// Made from.
        revision: Revision,
        /// After which restart by command.
        epoch: u64,
        /// Into the namespaces of these.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        joined: BTreeSet<InstanceId>,
    },
    /// An instance runs.
    Launched {
        /// Which.
        instance: InstanceId,
        /// When its startup probe must have passed.
        deadline: Option<Mono>,
    },
    /// A running container that the history had lost belongs to the slot again.
    Adopted {
        /// Which.
        instance: InstanceId,
        /// Made from.
        revision: Revision,
        /// In the namespaces of these.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        joined: BTreeSet<InstanceId>,
        /// When its startup probe must have passed.
        deadline: Option<Mono>,
    },
    /// A container that nobody wants was found and is destroyed.
    Stray(InstanceId),
    /// Nothing is left of a stray.
    StrayGone(InstanceId),
    /// An instance may have requests.
    BecameReady(InstanceId),
    /// An instance may not have requests for now.
    BecameUnready(InstanceId),
    /// A probe failed.
    ProbeFailed {
        /// Whose.
        instance: InstanceId,
        /// In which role.
        role: Role,
    },
    /// A probe passed after others had not.
    ProbePassed {
        /// Whose.
        instance: InstanceId,
        /// In which role.
        role: Role,
    },
    /// A probe could not be made.
    ProbeImpossible(InstanceId),
    /// Traffic cast doubt on an instance.
    Suspected(InstanceId),
    /// An instance is to be replaced for its health.
    Condemned(InstanceId),
    /// A condemned instance has recovered before its replacement was ready.
    Reprieved(InstanceId),
    /// A draining instance has answered its last request.
    Drained(InstanceId),
    /// The kernel killed a process of an instance that goes on.
    ChildOutOfMemory(InstanceId),
    /// A stop was decided during the launch and begins when the launch has ended.
    StopWanted {
        /// Whose.
        instance: InstanceId,
        /// Why.
        why: StopWhy,
    },
    /// A stop has come to a stage.
    Stopping {
        /// Whose.
        instance: InstanceId,
        /// Which stage.
        stage: StopStage,
        /// When it ends by itself.
        until: Mono,
        /// Why it is stopped.
        why: StopWhy,
    },
    /// An instance's process is gone.
    Exited {
        /// Which.
        instance: InstanceId,
        /// How it ended.
        cause: ExitCause,
    },
    /// Deleting failed and is tried again.
    DeleteFailed {
        /// Whose remains.
        instance: InstanceId,
        /// When to try again.
        retry_at: Mono,
    },
    /// A failed deletion is tried again now.
    DeleteRetried(InstanceId),
    /// Nothing of an instance is left.
    Deleted(InstanceId),
    /// A slot starts again at that time.
    BackedOff {
        /// Which.
        slot: SlotId,
        /// Failures in a row.
        streak: u32,
        /// Those before which it had not worked.
        futile: u32,
        /// The pause.
        pause: Span,
        /// When it ends.
        until: Mono,
    },
    /// A slot is given up until somebody resets it or its revision changes.
    Failed(SlotId),
    /// A slot has done its work.
    Completed(SlotId),
    /// A slot starts with a clean slate.
    Reset(SlotId),
    /// The data plane is told something else of an instance.
    Rerouted {
        /// Of whom.
        instance: InstanceId,
        /// What.
        route: Route,
        /// In which generation.
        generation: u64,
    },
    /// The routes got a number higher than the data plane has seen.
    Renumbered {
        /// Which.
        generation: u64,
    },
    /// The data plane follows this generation.
    Acknowledged {
        /// Which.
        generation: u64,
    },
}

/// Why a slot cannot be filled now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Obstacle {
    /// A dependency does not meet its condition yet.
    Dependency(ServiceName),
    /// A required dependency has failed for good.
    DependencyFailed(ServiceName),
    /// Nothing runs in the slot whose namespaces it is to be put into.
    Namespaces(SlotId),
    /// The host has no room for its reservation.
    NoRoom,
    /// Too many dead containers of the slot could not be deleted.
    Undeleted,
    /// A container of the slot that should not be there is still being destroyed.
    Stray,
}

impl Change {
    /// The slot the change is about, if it is about one.
    pub fn slot(&self) -> Option<&SlotId> {
        match self {
            Change::SlotWanted(slot)
            | Change::SlotUnwanted(slot)
            | Change::SlotRemoved(slot)
            | Change::Waiting { slot, .. }
            | Change::BackedOff { slot, .. }
            | Change::Failed(slot)
            | Change::Completed(slot)
            | Change::Reset(slot) => Some(slot),
            _ => self.instance().map(|instance| &instance.slot),
        }
    }

    /// The instance the change is about, if it is about one.
    pub fn instance(&self) -> Option<&InstanceId> {
        match self {
            Change::Stray(instance)
            | Change::StrayGone(instance)
            | Change::BecameReady(instance)
            | Change::BecameUnready(instance)
            | Change::ProbeImpossible(instance)
            | Change::Suspected(instance)
            | Change::Condemned(instance)
            | Change::Reprieved(instance)
            | Change::Drained(instance)
            | Change::ChildOutOfMemory(instance)
            | Change::DeleteRetried(instance)
            | Change::Deleted(instance)
            | Change::Launching { instance, .. }
            | Change::Launched { instance, .. }
            | Change::Adopted { instance, .. }
            | Change::ProbeFailed { instance, .. }
            | Change::ProbePassed { instance, .. }
            | Change::StopWanted { instance, .. }
            | Change::Stopping { instance, .. }
            | Change::Exited { instance, .. }
            | Change::DeleteFailed { instance, .. }
            | Change::Rerouted { instance, .. } => Some(instance),
            _ => None,
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Dependency(on) => write!(f, "waits for {on}"),
            Obstacle::DependencyFailed(on) => write!(f, "needs {on}, which has failed"),
            Obstacle::Namespaces(of) => write!(f, "waits for {of}, whose namespaces it joins"),
            Obstacle::NoRoom => f.write_str("the host has no room for its reservation"),
            Obstacle::Stray => f.write_str("a stray container of the slot is being destroyed"),
            Obstacle::Undeleted => f.write_str("its dead containers cannot be deleted"),
        }
    }
}
