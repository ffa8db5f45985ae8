//! The world outside the core: containers with a will of their own, and the runtime that makes
//! them. It knows the truth that the core can only learn from inputs.

use std::collections::{BTreeMap, BTreeSet};

use super::random::Random;
use crate::input::{Container, Status};
use crate::name::{InstanceId, Revision};
use crate::restart::ExitCause;
use crate::spec::Service;
use crate::time::{Mono, Span};

/// One container as it really is.
#[derive(Clone, Debug)]
pub(super) struct Body {
    pub(super) revision: Revision,
    pub(super) status: Status,
    /// When its application answers probes; `None` for never.
    pub(super) ready_at: Option<Mono>,
    /// Whether it has ever answered a probe.
    pub(super) proved: bool,
    /// Stopped by SIGSTOP: answers nothing, does not react to signals.
    pub(super) frozen: bool,
    /// Answers every probe with an error.
    pub(super) sick: bool,
    /// Ignores the stop signal.
    pub(super) stubborn: bool,
    /// When its work is done, for a job.
    pub(super) done_at: Option<Mono>,
    /// What it may use.
    pub(super) memory_bytes: u64,
    /// Whose namespaces it is in.
    pub(super) joined: BTreeSet<InstanceId>,
    /// Whether the kernel kills it with the first of those that ends, as in a PID namespace.
    pub(super) dies_with: bool,
}

impl Body {
    pub(super) fn runs(&self) -> bool {
        self.status == Status::Running
    }

    /// Whether its process exists, so that its memory is in use.
    pub(super) fn exists(&self) -> bool {
        matches!(self.status, Status::Running | Status::Created)
    }

    pub(super) fn answers(&self, now: Mono) -> bool {
        self.runs() && !self.frozen && !self.sick && self.ready_at.is_some_and(|at| at <= now)
    }
}

/// All containers.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) bodies: BTreeMap<InstanceId, Body>,
}

impl World {
    /// Creates a container. What was left of one of the same name is cleaned up before.
    pub(super) fn create(
        &mut self,
        random: &mut Random,
        (id, joined): (&InstanceId, BTreeSet<InstanceId>),
        revision: &Revision,
        terms: &Service,
        now: Mono,
    ) {
        let broken = revision.as_str().contains("broken");
        let job = terms.probes.startup.is_none();
        let body = Body {
            revision: revision.clone(),
            status: Status::Created,
            ready_at: (!broken).then(|| now + random.span(10, 4000)),
            proved: job,
            frozen: false,
            sick: false,
            stubborn: random.percent(10),
            done_at: job.then(|| now + random.span(100, 3000)),
            memory_bytes: terms.reserve.memory_bytes,
            dies_with: !joined.is_empty() && random.percent(40),
            joined,
        };
        self.bodies.insert(id.clone(), body);
    }

    /// Ends a container's process; false if it had none.
    pub(super) fn end(&mut self, id: &InstanceId, cause: ExitCause) -> bool {
        match self.bodies.get_mut(id) {
            Some(body) if body.runs() => {
                body.status = Status::Stopped(cause);
                true
            }
            _ => false,
        }
    }

    /// Whether all of them have namespaces that can be joined.
    pub(super) fn can_be_joined(&self, owners: &BTreeSet<InstanceId>) -> bool {
        owners.iter().all(|owner| self.bodies.get(owner).is_some_and(Body::runs))
    }

    /// Those that the kernel kills with this one.
    pub(super) fn dying_with(&self, owner: &InstanceId) -> Vec<InstanceId> {
        let dies = |body: &Body| body.dies_with && body.runs() && body.joined.contains(owner);
        self.bodies.iter().filter(|(_, body)| dies(body)).map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn running(&self) -> Vec<InstanceId> {
        self.bodies.iter().filter(|(_, body)| body.runs()).map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn memory_in_use(&self) -> u64 {
        self.bodies.values().filter(|body| body.exists()).map(|body| body.memory_bytes).sum()
    }

    /// What an observer finds.
    pub(super) fn observe(&self) -> BTreeMap<InstanceId, Container> {
        let found = |body: &Body| Container {
            revision: body.revision.clone(),
            joined: body.joined.clone(),
            status: body.status.clone(),
        };
        self.bodies.iter().map(|(id, body)| (id.clone(), found(body))).collect()
    }

    /// How long the process takes to end after a stop signal; `None` if it never does.
    pub(super) fn reaction(&self, random: &mut Random, id: &InstanceId) -> Option<Span> {
        let body = self.bodies.get(id)?;
        (!body.frozen && !body.stubborn).then(|| random.span(1, 800))
    }
}
