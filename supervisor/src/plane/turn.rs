//! Waiting for an instance: a request that finds none, or none with room, waits for one.
//!
//! That is how a service with one replica survives its death without an error. The queue has an
//! end: whom it cannot hold is told at once, because waiting in vain is worse.

use std::rc::Rc;
use std::time::{Duration, Instant};

use minisup_core::name::InstanceId;

use super::backend::{Backend, InFlight};
use super::table::Service;

/// How often one looks again without being called.
const LOOK: Duration = Duration::from_millis(25);

/// How often a request leaves a silent instance for another. When all are slow, the reason is
/// shared, and going from one to the other only makes more work: then it stays and waits.
pub(crate) const MOST_LEFT: u32 = 2;

/// Why no instance was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoTurn {
    /// Too many wait already.
    Full,
    /// None came in time.
    TooLate,
}

/// Counts one that waits.
struct Waiting<'a>(&'a Service);

impl Waiting<'_> {
    fn at(service: &Service) -> Waiting<'_> {
        service.waiting.set(service.waiting.get() + 1);
        Waiting(service)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get().saturating_sub(1));
    }
}

/// Whether a request that waits for a silent instance goes to another: there must be one, and the
/// budget of retries pays for it.
pub(crate) fn may_leave(service: &Service, silent: &Backend, now: Instant) -> bool {
    service.pick(std::slice::from_ref(&silent.id), now).is_some()
        && service.budget.retry(now, service.rules().retry_budget_permille, service.in_flight())
}

/// The next instance, none of `tried`, which is emptied if nobody else is left: those that failed
/// get another chance, for they may have come back under the same name.
pub(crate) async fn next(
    service: &Rc<Service>,
    tried: &mut Vec<InstanceId>,
    now: Instant,
    deadline: Instant,
) -> Result<(Rc<Backend>, InFlight), NoTurn> {
    let given = |backend: Rc<Backend>| {
        let in_flight = InFlight::at(&backend);
        (backend, in_flight)
    };
    if let Some(backend) = service.pick(tried, now) {
        return Ok(given(backend));
    }
    if service.waiting.get() >= service.rules().queue_size {
        return Err(NoTurn::Full);
    }
    let _waiting = Waiting::at(service);
    loop {
        let changed = service.changed.notified();
        let now = Instant::now();
        if let Some(backend) = service.pick(tried, now) {
            return Ok(given(backend));
        }
        if now >= deadline {
            return Err(NoTurn::TooLate);
        }
        tried.clear();
        let _ = tokio::time::timeout(LOOK.min(deadline - now), changed).await;
    }
}
