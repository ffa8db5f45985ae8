//! Waiting for an instance that says nothing.
//!
//! Silence is a reason to ask the probes, not to take a request away: most who are silent work.
//! Only when a probe has failed, too, may what can be repeated go to another instance. So a slow
//! answer is waited for, and its work is done once.

use std::time::{Duration, Instant};

use minisup_core::input::Evidence;
use minisup_core::instance::Route;

use super::backend::Backend;
use super::table::Service;
use super::turn;

/// An instance that takes longer for its first byte is doubted; the request goes on waiting.
const SILENCE: Duration = Duration::from_millis(500);
/// The longest pause between two doubts of one request: the probes have cleared the matter before.
const LONGEST: Duration = Duration::from_secs(8);

/// How long one request has heard nothing.
#[derive(Debug)]
pub(crate) struct Silence {
    /// When it was looked last whether others are answered.
    looked: Instant,
    /// The pause until the next doubt.
    pause: Duration,
}

impl Silence {
    /// Begins now.
    pub(crate) fn begin() -> Silence {
        Silence { looked: Instant::now(), pause: SILENCE }
    }

    /// When to look again. The routes may be so that a request could leave, and lack only another
    /// instance with room: that is looked at more often.
    pub(crate) fn next(&self, backend: &Backend) -> Instant {
        let next = self.looked + self.pause;
        if is_away(backend) { next.min(Instant::now() + SILENCE) } else { next }
    }

    /// Casts doubt on the instance if nobody else has been answered meanwhile either.
    pub(crate) fn look(&mut self, backend: &Backend) {
        let now = Instant::now();
        if now < self.looked + self.pause {
            return;
        }
        if !backend.has_answered_since(self.looked) {
            backend.doubt(Evidence::Silent);
            self.pause = (self.pause * 2).min(LONGEST);
        }
        self.looked = now;
    }
}

/// Whether a request that may be repeated goes to another instance.
pub(crate) fn may_leave(service: &Service, backend: &Backend) -> bool {
    is_away(backend) && turn::may_leave(service, backend, Instant::now())
}

fn is_away(backend: &Backend) -> bool {
    matches!(backend.route.get(), Route::Failing | Route::Absent)
}
