//! The strict order of a stop, and everything else that ends by time.
//!
//! Other systems lose requests here: they signal the process while the balancer still sends it
//! work, and sleep a while in the hope that it has noticed. Here the data plane *acknowledges*
//! before anything else happens, so nobody sleeps and nothing is lost.

use crate::event::{Change, Rule};
use crate::guard::Guard;
use crate::instance::{Phase, Route, StopStage, StopWhy};
use crate::name::InstanceId;
use crate::step::Step;
use crate::time::Span;

/// How long a data plane may take to acknowledge before we go on without it: it is dead then, and
/// a dead one sends nothing.
pub(crate) const UNROUTE_LIMIT: Span = Span::from_secs(5);
/// The patience with an instance that has failed: a hung process uses none of its grace.
const FAILED_GRACE: Span = Span::from_secs(2);
/// Requests in flight at an instance that has failed get this long.
const FAILED_DRAIN: Span = Span::from_secs(1);
/// When to kill again what does not die: first soon, then now and then.
const KILL_AGAIN: Span = Span::from_secs(1);
const KILL_YET_AGAIN: Span = Span::from_secs(10);

impl Step<'_> {
    /// Begins to stop an instance, at the first stage that has something to do.
    pub(crate) fn begin_stop(&mut self, id: &InstanceId, why: StopWhy, rule: Rule, evidence: &str) {
        let Some(instance) = self.state.instance(id) else { return };
        match instance.phase {
            Phase::Launching if instance.stop_wanted.is_none() => {
                self.emit(Change::StopWanted { instance: id.clone(), why }, rule, evidence);
            }
            Phase::Starting { .. } | Phase::Ready | Phase::Unready => {
                let evidence = format!("{why}: {evidence}");
                if instance.is_unrouted(self.state.acknowledged()) {
                    self.enter_stage_by(id, StopStage::Hook, why, rule, &evidence);
                } else {
                    self.enter_stage_by(id, StopStage::Unroute, why, rule, &evidence);
                }
            }
            Phase::Launching | Phase::Stopping { .. } | Phase::Exited { .. } => {}
        }
    }

    /// Moves a stop to `stage`, or to the first after it that has something to do.
    pub(crate) fn enter_stage(
        &mut self,
        id: &InstanceId,
        stage: StopStage,
        why: StopWhy,
        evidence: &str,
    ) {
        self.enter_stage_by(id, stage, why, Rule::StopOrder, evidence);
    }

    fn enter_stage_by(
        &mut self,
        id: &InstanceId,
        stage: StopStage,
        why: StopWhy,
        rule: Rule,
        evidence: &str,
    ) {
        let Some(instance) = self.state.instance(id) else { return };
        let Some(policy) = self.state.terms(id).map(|terms| terms.stop) else { return };
        let killing = matches!(instance.phase, Phase::Stopping { stage: StopStage::Kill, .. });
        let in_flight = instance.route != Route::Absent && !instance.idle;
        let patience =
            |usual: Span, failed: Span| if why.is_urgent() { usual.min(failed) } else { usual };
        let grace = patience(policy.grace, FAILED_GRACE);
        let (stage, limit) = match stage {
            StopStage::Unroute => (stage, UNROUTE_LIMIT),
            StopStage::Hook if policy.pre_stop => (stage, grace),
            StopStage::Hook | StopStage::Drain if in_flight => {
                (StopStage::Drain, patience(policy.drain, FAILED_DRAIN))
            }
            StopStage::Hook | StopStage::Drain | StopStage::Signal => (StopStage::Signal, grace),
            StopStage::Kill if killing => (stage, KILL_YET_AGAIN),
            StopStage::Kill => (stage, KILL_AGAIN),
        };
        let until = self.now + limit;
        let change = Change::Stopping { instance: id.clone(), stage, until, why };
        self.emit(change, rule, evidence);
        self.owe(id);
    }

    /// Moves on the stops that wait for the data plane and have been answered.
    pub(super) fn advance_stops(&mut self) {
        let acknowledged = self.state.acknowledged();
        let answered: Vec<(InstanceId, StopStage, StopWhy)> = self
            .state
            .instances()
            .filter_map(|instance| match instance.phase {
                Phase::Stopping { stage: StopStage::Unroute, why, .. } => {
                    let told = matches!(instance.route, Route::Draining | Route::Absent)
                        && instance.route_generation <= acknowledged;
                    let clear = self.guards.clear(Guard::AcknowledgedBeforeSignal, told);
                    clear.then(|| (instance.id.clone(), StopStage::Hook, why))
                }
                Phase::Stopping { stage: StopStage::Drain, why, .. } => {
                    instance.idle.then(|| (instance.id.clone(), StopStage::Signal, why))
                }
                _ => None,
            })
            .collect();
        for (id, next, why) in answered {
            let evidence = match next {
                StopStage::Hook => "the data plane sends it nothing new",
                _ => "no request is in flight",
            };
            self.enter_stage(&id, next, why, evidence);
        }
    }

    /// What ends by time: startups, stages, pauses before another deletion.
    pub(super) fn deadlines(&mut self) {
        let due: Vec<InstanceId> = self
            .state
            .instances()
            .filter(|instance| instance.deadline().is_some_and(|deadline| deadline <= self.now))
            .map(|instance| instance.id.clone())
            .collect();
        for id in due {
            self.deadline(&id);
        }
    }

    fn deadline(&mut self, id: &InstanceId) {
        let Some(instance) = self.state.instance(id) else { return };
        let waited = self.now.since(instance.since);
        match instance.phase {
            Phase::Starting { .. } => {
                let evidence = format!("the startup probe has not passed in {waited}");
                self.begin_stop(id, StopWhy::StartupTimeout, Rule::Deadline, &evidence);
            }
            Phase::Stopping { stage, why, .. } => {
                let (next, evidence) = match stage {
                    StopStage::Unroute => (StopStage::Hook, "the data plane has not acknowledged"),
                    StopStage::Hook => (StopStage::Drain, "the pre-stop hook has not ended"),
                    StopStage::Drain => (StopStage::Signal, "requests are still in flight"),
                    StopStage::Signal => (StopStage::Kill, "it ignored the stop signal"),
                    StopStage::Kill => (StopStage::Kill, "it does not die"),
                };
                let kill = next == StopStage::Kill;
                if !kill || self.guards.hold(Guard::KillAfterGrace) {
                    let evidence = format!("{evidence} for {waited}");
                    self.enter_stage_by(id, next, why, Rule::Deadline, &evidence);
                }
            }
            Phase::Exited { .. } if self.guards.hold(Guard::DeleteAgain) => {
                self.emit(Change::DeleteRetried(id.clone()), Rule::Deadline, "the pause is over");
                self.delete(id);
            }
            _ => {}
        }
    }
}
