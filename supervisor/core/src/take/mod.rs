//! News turned into facts: what happened is written down, nothing is decided yet beyond what the
//! fact itself means (a third failed probe means unhealthy, an exit means the restart policy is
//! asked).

mod command;
mod exit;
mod observation;
mod probe;

use crate::action::Action;
use crate::event::{Change, Rule};
use crate::input::{Followed, Input};
use crate::instance::{Phase, Route, StopStage};
use crate::name::InstanceId;
use crate::step::Step;

impl Step<'_> {
    /// Takes one piece of news. Late news (of an instance that is gone or further on) is dropped.
    pub(crate) fn take(&mut self, input: &Input) {
        match input {
            Input::Tick => {}
            Input::Command(command) => self.command(command),
            Input::Launched { instance, result } => self.launched(instance, result),
            Input::Probed { instance, role, attempt, outcome } => {
                self.probed(instance, *role, *attempt, outcome);
            }
            Input::Doubted { instance, evidence } => self.doubted(instance, *evidence),
            Input::Hooked { instance, result } => self.hooked(instance, result),
            Input::Exited { instance, cause } => self.exited(instance, cause),
            Input::ChildOutOfMemory { instance } => self.child_out_of_memory(instance),
            Input::Deleted { instance, result } => self.deleted(instance, result),
            Input::DataPlane(followed) => self.data_plane(followed),
            Input::Acknowledged { generation } => self.acknowledged(*generation),
            Input::Idle { instance } => self.idle(instance),
            Input::Host(host) => {
                if self.state.host() != *host {
                    self.emit(Change::HostSized(*host), Rule::Observed, "the host was measured");
                }
            }
            Input::Observed(observation) => self.observed(observation),
        }
    }

    /// The launch ended; probing begins, or a stop that had to wait for this.
    fn launched(&mut self, id: &InstanceId, result: &Result<(), String>) {
        let Some(instance) = self.state.instance(id) else { return };
        if instance.phase != Phase::Launching {
            return;
        }
        if let Err(error) = result {
            return self.launch_failed(id, error);
        }
        let wanted_stop = instance.stop_wanted;
        let took = self.now.since(instance.since);
        let startup = self.state.terms(id).and_then(|terms| terms.probes.startup);
        let deadline = startup.map(|startup| self.now + startup.within);
        let launched = Change::Launched { instance: id.clone(), deadline };
        self.emit(launched, Rule::Observed, format!("started in {took}"));
        match wanted_stop {
            Some(why) => self.begin_stop(id, why, Rule::StopOrder, "decided during the launch"),
            None => self.begin_probing(id),
        }
    }

    fn hooked(&mut self, id: &InstanceId, result: &Result<(), String>) {
        let Some(instance) = self.state.instance(id) else { return };
        if let Phase::Stopping { stage: StopStage::Hook, why, .. } = instance.phase {
            let evidence = match result {
                Ok(()) => "the pre-stop hook has ended".to_string(),
                Err(error) => format!("the pre-stop hook failed: {error}"),
            };
            self.enter_stage(id, StopStage::Drain, why, &evidence);
        }
    }

    fn child_out_of_memory(&mut self, id: &InstanceId) {
        if self.state.instance(id).is_some_and(|instance| instance.occupies()) {
            let evidence = "the kernel killed one of its processes for memory; it goes on";
            self.emit(Change::ChildOutOfMemory(id.clone()), Rule::Observed, evidence);
        }
    }

    /// A data plane asks for the routes: it gets them under a number that it has not seen, even
    /// if part of our history was lost.
    ///
    /// It may also know more than we do. An instance to which it sends requests, and which we
    /// think has never been routed, was ready in the history that was lost: it keeps its place,
    /// and if it has to stop, it stops in order.
    pub(super) fn data_plane(&mut self, followed: &Followed) {
        let theirs = followed.generation;
        let generation = self.state.generation().max(theirs) + 1;
        let evidence = format!("a data plane is there with generation {theirs}");
        self.emit(Change::Renumbered { generation }, Rule::Routing, evidence);
        self.renumbered = true;
        for (id, route) in &followed.routes {
            let Some(instance) = self.state.instance(id) else { continue };
            if instance.route != Route::Absent || !instance.occupies() {
                continue;
            }
            let starting = matches!(instance.phase, Phase::Starting { .. });
            let evidence = "the data plane knows it";
            let change = Change::Rerouted { instance: id.clone(), route: *route, generation };
            self.emit(change, Rule::Adoption, evidence);
            if starting && *route != Route::Draining {
                self.come_up(id, Rule::Adoption, "the data plane sends it requests");
            }
        }
    }

    fn acknowledged(&mut self, generation: u64) {
        let known = self.state.acknowledged();
        if generation > known && generation <= self.state.generation() {
            let evidence = format!("the data plane follows generation {generation}");
            self.emit(Change::Acknowledged { generation }, Rule::Routing, evidence);
        }
    }

    fn idle(&mut self, id: &InstanceId) {
        let Some(instance) = self.state.instance(id) else { return };
        let drains = instance.route == Route::Draining
            && instance.route_generation <= self.state.acknowledged();
        if drains && !instance.idle && instance.occupies() {
            self.emit(Change::Drained(id.clone()), Rule::Routing, "no request is in flight");
        }
    }

    /// Asks again for what the instance's phase owes.
    pub(crate) fn owe(&mut self, id: &InstanceId) {
        if let Some(action) = self.state.instance(id).and_then(|instance| instance.owed()) {
            self.act(action);
        }
    }

    /// Asks for the remains to be deleted.
    pub(crate) fn delete(&mut self, id: &InstanceId) {
        self.act(Action::Delete { instance: id.clone() });
    }
}
