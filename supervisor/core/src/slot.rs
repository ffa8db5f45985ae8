//! A slot: the identity of one replica, and what it remembers from one container to the next.
//!
//! ```text
//!   OPEN ──exit──▶ BACK-OFF ──time──▶ (launch) ──▶ OPEN
//!     │ └─exit with success, policy wants no more──▶ COMPLETED ─┐ another revision,
//!     └───the restart budget is used up────────────▶ FAILED ────┘ restart or reset: OPEN again
//! ```

use serde::{Deserialize, Serialize};

use crate::event::Obstacle;
use crate::instance::Instance;
use crate::name::SlotId;
use crate::restart::History;
use crate::time::Mono;

/// One replica's identity.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Slot {
    /// Its name.
    pub id: SlotId,
    /// Whether it shall be filled; else it empties and disappears.
    pub wanted: bool,
    /// Whether it may be filled.
    pub standing: Standing,
    /// Its failures.
    pub history: History,
    /// Whether an instance of it has ever been started: dependencies gate only the first start.
    pub started: bool,
    /// What kept it from being filled when last tried.
    pub waiting: Option<Obstacle>,
    /// Its instances, the oldest first: usually one, two while one replaces the other, and dead
    /// ones until they are deleted.
    pub instances: Vec<Instance>,
}

/// Whether a slot may be filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// At any time.
    Open,
    /// Not before `until`.
    BackOff {
        /// When the pause ends.
        until: Mono,
    },
    /// Its restart budget is used up.
    Failed,
    /// It has done its work.
    Completed,
}

impl Slot {
    /// A new, empty slot.
    pub(crate) fn new(id: SlotId) -> Slot {
        Slot {
            id,
            wanted: true,
            standing: Standing::Open,
            history: History::default(),
            started: false,
            waiting: None,
            instances: Vec::new(),
        }
    }

    /// The instances in place or coming, the oldest first.
    pub fn live(&self) -> impl DoubleEndedIterator<Item = &Instance> {
        self.instances.iter().filter(|instance| instance.is_live())
    }

    /// The newest instance in place or coming.
    pub fn current(&self) -> Option<&Instance> {
        self.live().next_back()
    }

    /// Whether one of its instances is ready.
    pub fn is_ready(&self) -> bool {
        self.live().any(Instance::is_ready)
    }

    /// Whether it has been given up.
    pub fn is_failed(&self) -> bool {
        self.standing == Standing::Failed
    }
}
