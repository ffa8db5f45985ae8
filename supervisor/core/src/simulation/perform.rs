//! What becomes of the core's actions, and everything else that happens by itself.

use std::collections::BTreeSet;

use super::run::{Occurrence, Run};
use super::witness::{Invariant, Violation};
use crate::action::Action;
use crate::input::{Evidence, Input, Observation, Outcome, Status};
use crate::instance::Route;
use crate::name::{InstanceId, Revision};
use crate::restart::ExitCause;
use crate::time::Span;

type Lived = Result<(), Violation>;

impl Run {
    /// Sets an action going.
    pub(super) fn perform(&mut self, action: Action) -> Lived {
        match action {
            Action::Launch { instance, revision, joined } => {
                self.launch(instance, revision, joined)?;
            }
            Action::Probe { instance, role, attempt, after, timeout } => {
                let key = (instance.clone(), role);
                let token = self.probes.get(&key).copied().unwrap_or(0) + 1;
                self.probes.insert(key, token);
                let probe = Occurrence::Probe { id: instance, role, attempt, timeout, token };
                self.schedule(after, probe);
            }
            Action::Hook { instance } => {
                if !self.random.percent(10) {
                    let input = Input::Hooked { instance, result: Ok(()) };
                    let takes = self.random.span(1, 1500);
                    self.schedule(takes, Occurrence::Deliver(input));
                }
            }
            Action::Signal { instance } => {
                let now = self.now();
                let (world, balancer) = (&self.world, &self.balancer);
                self.witness.signal(&self.state, world, balancer, &instance, now)?;
                if let Some(takes) = self.world.reaction(&mut self.random, &instance) {
                    let cause = if self.random.percent(50) {
                        ExitCause::Code(0)
                    } else {
                        ExitCause::Signal(15)
                    };
                    self.schedule(takes, Occurrence::Ends { id: instance, cause });
                }
            }
            Action::Kill { instance } => {
                if !(self.storm && self.random.percent(5)) {
                    let takes = self.random.span(1, 50);
                    let cause = ExitCause::Signal(9);
                    self.schedule(takes, Occurrence::Ends { id: instance, cause });
                }
            }
            Action::Delete { instance } => {
                self.busy.insert(instance.clone());
                let takes = self.random.span(1, 50);
                self.schedule(takes, Occurrence::Delete(instance));
            }
            Action::Destroy { instance } => {
                self.busy.insert(instance.clone());
                let takes = self.random.span(1, 100);
                self.schedule(takes, Occurrence::Destroy(instance));
            }
            Action::PublishRoutes { .. } => {
                let takes = self.random.span(0, 5);
                let routes = self.state.routes();
                self.schedule(takes, Occurrence::Follow(routes));
            }
        }
        Ok(())
    }

    fn launch(
        &mut self,
        id: InstanceId,
        revision: Revision,
        joined: BTreeSet<InstanceId>,
    ) -> Lived {
        self.busy.insert(id.clone());
        let Some(terms) = self.catalog.get(&(id.slot.service.clone(), revision.clone())) else {
            let detail = format!("{id} is to be made from unknown revision {revision}");
            return Err(Violation { invariant: Invariant::Slot, detail });
        };
        let service = self.project.services.get(&id.slot.service);
        let orders =
            service.map_or_else(Default::default, |service| (service.order, service.moves));
        self.witness.launch(&self.world, (&id, &joined), terms, orders, self.host)?;
        self.summary.launches += 1;
        let there = self.world.can_be_joined(&joined);
        let ok = there && !(self.storm && self.random.percent(self.weather.runtime));
        let takes = if self.random.percent(2) {
            self.random.span(2000, 6000)
        } else {
            self.random.span(5, 300)
        };
        let at = self.at;
        if ok || there && self.random.percent(50) {
            self.world.create(&mut self.random, (&id, joined), &revision, terms, at);
        }
        self.schedule(takes, Occurrence::LaunchEnds { id, ok });
        Ok(())
    }

    /// Something happens. `present`: it was begun in the supervisor's present life.
    pub(super) fn happen(&mut self, present: bool, occurrence: Occurrence) -> Lived {
        match occurrence {
            Occurrence::Tick if present => self.feed(Input::Tick),
            Occurrence::Deliver(input) if present => self.feed(input),
            Occurrence::Tick | Occurrence::Deliver(_) => Ok(()),
            Occurrence::LaunchEnds { id, ok } => self.launch_ends(present, id, ok),
            Occurrence::Probe { id, role, attempt, timeout, token } => {
                if present && self.probes.get(&(id.clone(), role)) == Some(&token) {
                    let (takes, outcome) = self.probe(&id, timeout);
                    let input = Input::Probed { instance: id, role, attempt, outcome };
                    self.schedule(takes, Occurrence::Deliver(input));
                }
                Ok(())
            }
            Occurrence::Ends { id, cause } => {
                self.ends(id, cause);
                Ok(())
            }
            Occurrence::Recovers(id) => {
                self.world.bodies.get_mut(&id).into_iter().for_each(|body| body.sick = false);
                Ok(())
            }
            Occurrence::Delete(id) => self.delete(present, id),
            Occurrence::Destroy(id) => {
                self.ends(id.clone(), ExitCause::Signal(9));
                self.delete(present, id)
            }
            Occurrence::Follow(routes) => self.follow(routes),
            Occurrence::BalancerStarts => {
                self.balancer.up = true;
                self.feed(Input::DataPlane(self.balancer.followed()))
            }
            Occurrence::BrainStarts if !self.brain_up => self.brain_starts(),
            Occurrence::BrainStarts => Ok(()),
            Occurrence::Observe if present => {
                self.schedule(Span::from_secs(10), Occurrence::Observe);
                self.feed(self.observation(false))
            }
            Occurrence::Observe => Ok(()),
            Occurrence::Second => {
                self.schedule(Span::from_secs(1), Occurrence::Second);
                self.traffic()?;
                if self.storm { self.faults() } else { Ok(()) }
            }
        }
    }

    /// The runtime is done. When the supervisor that asked has died meanwhile, the container may
    /// be left half made.
    fn launch_ends(&mut self, present: bool, id: InstanceId, ok: bool) -> Lived {
        let finished = ok && (present || self.random.percent(50));
        let at = self.at;
        if finished
            && let Some(body) = self.world.bodies.get_mut(&id)
            && body.status == Status::Created
        {
            body.status = Status::Running;
            if let Some(done) = body.done_at {
                let cause = ExitCause::Code(0);
                self.schedule(done.since(at), Occurrence::Ends { id: id.clone(), cause });
            }
        } else if !ok && present {
            self.world.bodies.remove(&id);
        }
        if !present {
            return Ok(());
        }
        self.busy.remove(&id);
        let result = if ok { Ok(()) } else { Err("the runtime failed".to_string()) };
        self.feed(Input::Launched { instance: id, result })
    }

    fn probe(&mut self, id: &InstanceId, timeout: Span) -> (Span, Outcome) {
        if self.storm && self.random.percent(1) {
            return (Span::from_ms(1), Outcome::Impossible("no namespace".into()));
        }
        let at = self.at;
        match self.world.bodies.get_mut(id) {
            Some(body) if body.answers(at) => {
                body.proved = true;
                (Span::from_ms(1), Outcome::Pass)
            }
            Some(body) if body.frozen => (timeout, Outcome::Fail("timed out".into())),
            Some(_) => (Span::from_ms(1), Outcome::Fail("refused".into())),
            None => (Span::from_ms(1), Outcome::Fail("nothing is there".into())),
        }
    }

    /// A process ends; its parent hears of it soon, or sometimes only by looking.
    pub(super) fn ends(&mut self, id: InstanceId, cause: ExitCause) {
        if !self.world.end(&id, cause.clone()) {
            return;
        }
        // A parent has to be told of them before the first process of the namespace is gone.
        for other in self.world.dying_with(&id) {
            self.ends(other, ExitCause::Signal(9));
        }
        if !(self.storm && self.random.percent(3)) {
            let takes = self.random.span(0, 30);
            self.schedule(takes, Occurrence::Deliver(Input::Exited { instance: id, cause }));
        }
    }

    fn delete(&mut self, present: bool, id: InstanceId) -> Lived {
        let fails = self.storm && self.random.percent(self.weather.runtime);
        let running = self.world.bodies.get(&id).is_some_and(|body| body.runs());
        let result =
            if fails || running { Err("device or resource busy".to_string()) } else { Ok(()) };
        if result.is_ok() {
            self.world.bodies.remove(&id);
        }
        if !present {
            return Ok(());
        }
        self.busy.remove(&id);
        self.feed(Input::Deleted { instance: id, result })
    }

    fn follow(&mut self, routes: crate::state::Routes) -> Lived {
        if !self.balancer.up {
            return Ok(());
        }
        if self.at < self.balancer.hung_until {
            let rest = self.balancer.hung_until.since(self.at);
            self.schedule(rest, Occurrence::Follow(routes));
            return Ok(());
        }
        let at = self.at;
        let generation = routes.generation;
        if !self.balancer.follow(&mut self.random, &routes, at) {
            return Ok(()); // overtaken by newer ones
        }
        for (instance, until) in self.balancer.draining() {
            let idle = Input::Idle { instance };
            self.schedule(until.since(at) + Span::from_ms(1), Occurrence::Deliver(idle));
        }
        self.feed(Input::Acknowledged { generation })
    }

    /// Requests show the data plane who does not answer.
    fn traffic(&mut self) -> Lived {
        let silent: Vec<InstanceId> = self
            .balancer
            .routes
            .iter()
            .filter(|(id, route)| {
                **route == Route::Active && self.world.bodies.get(id).is_some_and(|b| b.frozen)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for instance in silent {
            if self.random.percent(50) {
                self.feed(Input::Doubted { instance, evidence: Evidence::Silent })?;
            }
        }
        Ok(())
    }

    /// What the supervisor finds when it looks.
    pub(super) fn observation(&self, fresh: bool) -> Input {
        Input::Observed(Observation {
            boot: format!("boot-{}", self.boots),
            containers: self.world.observe(),
            busy: self.busy.clone(),
            fresh,
            data_plane: (fresh && self.balancer.up).then(|| self.balancer.followed()),
        })
    }
}
