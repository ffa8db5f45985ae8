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

/// How long an instance that lost a request is not asked again for the same request. It may be
/// dying: until the kernel has closed its sockets it takes connections that nobody will serve.
const AFTER_LOSS: Duration = Duration::from_millis(250);
/// The same after a second loss, and each further one.
const AFTER_LOSSES: Duration = Duration::from_secs(1);

/// The instances that one request has been to.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    /// Those that refused it or were left. When nobody else is there, they get another chance: they
    /// may have come back.
    passed: Vec<InstanceId>,
    /// Those that lost it, and until when they are not asked again.
    lost: Vec<(InstanceId, Instant)>,
}

impl Tried {
    /// Whether this is the first try.
    pub(crate) fn is_empty(&self) -> bool {
        self.passed.is_empty() && self.lost.is_empty()
    }

    /// It refused the request, or was left for another.
    pub(crate) fn passed(&mut self, id: &InstanceId) {
        self.passed.push(id.clone());
    }

    /// It lost the request.
    pub(crate) fn lost(&mut self, id: &InstanceId, now: Instant) {
        let rest = if self.lost.is_empty() { AFTER_LOSS } else { AFTER_LOSSES };
        self.lost.push((id.clone(), now + rest));
    }

    /// Who is not asked now.
    fn barred(&self, now: Instant) -> Vec<InstanceId> {
        let lost = self.lost.iter().filter(|(_, until)| now < *until).map(|(id, _)| id);
        self.passed.iter().chain(lost).cloned().collect()
    }
}

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

/// The next instance, none of `tried` as long as there is another.
pub(crate) async fn next(
    service: &Rc<Service>,
    tried: &mut Tried,
    now: Instant,
    deadline: Instant,
) -> Result<(Rc<Backend>, InFlight), NoTurn> {
    let given = |backend: Rc<Backend>| {
        let in_flight = InFlight::at(&backend);
        (backend, in_flight)
    };
    if let Some(backend) = service.pick(&tried.barred(now), now) {
        return Ok(given(backend));
    }
    if service.waiting.get() >= service.rules().queue_size {
        return Err(NoTurn::Full);
    }
    let _waiting = Waiting::at(service);
    loop {
        let changed = service.changed.notified();
        let now = Instant::now();
        if let Some(backend) = service.pick(&tried.barred(now), now) {
            return Ok(given(backend));
        }
        if now >= deadline {
            return Err(NoTurn::TooLate);
        }
        tried.passed.clear();
        let _ = tokio::time::timeout(LOOK.min(deadline - now), changed).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lost_a_request_rests_from_it() {
        let id = |slot: u32| format!("web.{slot}.1").parse::<InstanceId>().expect("a name");
        let (begin, mut tried) = (Instant::now(), Tried::default());
        assert!(tried.is_empty());
        tried.passed(&id(1));
        tried.lost(&id(2), begin);
        tried.lost(&id(3), begin);
        assert_eq!(tried.barred(begin), [id(1), id(2), id(3)]);
        tried.passed.clear();
        assert_eq!(tried.barred(begin + AFTER_LOSS), [id(3)], "the second loss weighs more");
        assert_eq!(tried.barred(begin + AFTER_LOSSES), []);
    }
}
