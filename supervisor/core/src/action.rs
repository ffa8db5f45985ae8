//! What the core asks of the world. Every action may be repeated without harm; every one that
//! can fail is answered by an [`Input`](crate::input::Input).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::name::{InstanceId, Revision};
use crate::time::Span;

/// One thing to do.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Create the container and start it. Answered by `Launched`.
    Launch {
        /// Its name.
        instance: InstanceId,
        /// What to make it from.
        revision: Revision,
        /// Whose namespaces to put it into.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        joined: BTreeSet<InstanceId>,
    },
    /// Probe it, once. Answered by `Probed`. A newer probe of the same role replaces one that
    /// still waits.
    Probe {
        /// Whom.
        instance: InstanceId,
        /// In which role.
        role: Role,
        /// Comes back with the answer.
        attempt: u32,
        /// How long to wait before.
        after: Span,
        /// How long it may take.
        timeout: Span,
    },
    /// Run the pre-stop hook. Answered by `Hooked`.
    Hook {
        /// In which container.
        instance: InstanceId,
    },
    /// Send the stop signal to the first process. Its end comes as `Exited`.
    Signal {
        /// Whom.
        instance: InstanceId,
    },
    /// Kill every process of the container. The end comes as `Exited`.
    Kill {
        /// Whom.
        instance: InstanceId,
    },
    /// Delete what is left of a container whose process is gone. Answered by `Deleted`.
    Delete {
        /// Whose remains.
        instance: InstanceId,
    },
    /// Kill and delete a container that nobody wants. Answered by `Deleted`.
    Destroy {
        /// Whom.
        instance: InstanceId,
    },
    /// Give the data plane the routes as they are now. Answered by `Acknowledged`.
    PublishRoutes {
        /// Their number.
        generation: u64,
    },
}

/// What a probe is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Has it come up?
    Startup,
    /// May it have requests?
    Ready,
    /// Is it alive?
    Live,
}

impl Role {
    /// The role's name in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Startup => "startup",
            Role::Ready => "ready",
            Role::Live => "live",
        }
    }
}
