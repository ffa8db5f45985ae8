//! The rules that keep a decision safe, each under one name.
//!
//! In production every guard holds; the type that says so is empty. The tests switch one off at a
//! time and demand that the simulation notices ([`simulation`](crate::simulation)): a rule whose
//! absence nobody notices is either useless or untested.

/// A safety rule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Guard {
    /// The stop signal waits until the data plane has acknowledged.
    AcknowledgedBeforeSignal,
    /// A restart waits for its pause.
    BackOff,
    /// A restart budget ends.
    Budget,
    /// A ready instance is taken out only if enough others are ready.
    Floor,
    /// An old instance goes only when its replacement is ready.
    ReadyBeforeHandover,
    /// With stop-first, never two processes of a slot.
    StopFirst,
    /// No launch without room for the reservation.
    Room,
    /// The first start waits for the dependencies.
    Dependencies,
    /// A launch waits for those whose namespaces it joins.
    OwnersFirst,
    /// Whoever is in the namespaces of one that has ended is stopped.
    Orphans,
    /// An instance stays with an owner that is still in place, though a replacement is ready.
    StaysWithOwner,
    /// Dependents stop before what they depend on.
    ReverseOrder,
    /// Only a ready instance is routed.
    RouteReady,
    /// A container found running that the slot does not need is destroyed.
    Strays,
    /// A failed deletion is tried again.
    DeleteAgain,
    /// An ignored stop signal is followed by a kill.
    KillAfterGrace,
    /// An unhealthy instance is replaced.
    Heal,
}

/// Which guards hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Guards {
    #[cfg(test)]
    off: Option<Guard>,
}

impl Guards {
    /// Every guard but one: a deliberately broken core.
    #[cfg(test)]
    pub(crate) fn without(guard: Guard) -> Guards {
        Guards { off: Some(guard) }
    }

    /// Whether the guard is on. Always, outside of tests.
    pub(crate) fn hold(self, guard: Guard) -> bool {
        #[cfg(test)]
        return self.off != Some(guard);
        #[cfg(not(test))]
        {
            let _ = guard;
            true
        }
    }

    /// Whether the way is free: the guard's condition is met, or the guard is off.
    pub(crate) fn clear(self, guard: Guard, condition: bool) -> bool {
        condition || !self.hold(guard)
    }
}
