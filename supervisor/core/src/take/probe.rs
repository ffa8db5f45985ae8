//! Probes: three roles, counted in runs.
//!
//! *Startup* must pass once; until then the other two sleep. *Ready* gates traffic. *Live* asks
//! for a replacement after `retries` failures in a row. A first failure already casts doubt (the
//! routes turn away, see `decide::route`) and shortens the pause to `confirm_interval`, so that
//! the matter is settled soon, one way or the other. Doubt from traffic starts the same at once.
//!
//! Probes have no clock here: each answer asks for the next probe. A healthy instance therefore
//! costs no event, and after a restart of the supervisor one question sets the chain going again.

use crate::action::{Action, Role};
use crate::event::{Change, Rule};
use crate::input::{Evidence, Outcome};
use crate::instance::{Health, Instance, Phase};
use crate::name::InstanceId;
use crate::spec::{Probes, Timing};
use crate::step::Step;
use crate::time::Span;

impl Step<'_> {
    /// An instance runs: it must show that it has come up, if there is a way to show it.
    pub(crate) fn begin_probing(&mut self, id: &InstanceId) {
        let Some(terms) = self.state.terms(id) else { return };
        match terms.probes.startup {
            Some(_) => self.probe_startup(id, 0),
            None => self.come_up(id, Rule::Probe, "it has no startup probe"),
        }
    }

    /// It has come up. With a ready probe it still has to pass that one, which is asked at once:
    /// until then it gets no requests.
    pub(super) fn come_up(&mut self, id: &InstanceId, rule: Rule, evidence: &str) {
        match self.timing(id, Role::Ready) {
            None => self.emit(Change::BecameReady(id.clone()), rule, evidence),
            Some(timing) => {
                let evidence = format!("{evidence}; the ready probe has not passed yet");
                self.emit(Change::BecameUnready(id.clone()), rule, evidence);
                self.probe(id, Role::Ready, 0, Span::ZERO, timing.timeout);
            }
        }
        self.probe_next(id, Role::Live);
    }

    /// Sets the chains of probes going again after a restart of the supervisor, spread over the
    /// interval so that they do not all come at once.
    pub(super) fn resume_probing(&mut self, id: &InstanceId) {
        let Some(instance) = self.state.instance(id) else { return };
        if let Phase::Starting { .. } = instance.phase {
            return self.probe_startup(id, 0);
        }
        let Some(probes) = self.state.terms(id).map(|terms| terms.probes.clone()) else { return };
        for role in [Role::Ready, Role::Live] {
            if let Some(timing) = timing(&probes, role) {
                let share = (id.serial * 31 + u64::from(id.slot.index) * 17) % 100;
                let pause = timing.interval.min(Span::from_secs(1)).percent(share);
                self.probe(id, role, 0, pause, timing.timeout);
            }
        }
    }

    fn probe_startup(&mut self, id: &InstanceId, attempt: u32) {
        if let Some(startup) = self.state.terms(id).and_then(|terms| terms.probes.startup) {
            let pause = startup.pause_before(attempt);
            self.probe(id, Role::Startup, attempt, pause, startup.timeout);
        }
    }

    /// Asks for the next ready or live probe, sooner when something is in doubt.
    fn probe_next(&mut self, id: &InstanceId, role: Role) {
        let Some(instance) = self.state.instance(id) else { return };
        let Some(terms) = self.state.terms(id) else { return };
        let Some(timing) = timing(&terms.probes, role) else { return };
        let settled = match role {
            Role::Live => instance.condemned,
            _ => instance.phase == Phase::Unready,
        };
        let health = instance.health;
        let doubtful = failures(&health, role) > 0 || health.suspected;
        let pause = if doubtful && !settled { timing.confirm_interval } else { timing.interval };
        let timeout = if health.suspected { timing.confirm_timeout } else { timing.timeout };
        self.probe(id, role, 0, pause, timeout);
    }

    fn probe(&mut self, id: &InstanceId, role: Role, attempt: u32, after: Span, timeout: Span) {
        self.act(Action::Probe { instance: id.clone(), role, attempt, after, timeout });
    }

    pub(super) fn probed(&mut self, id: &InstanceId, role: Role, attempt: u32, outcome: &Outcome) {
        let Some(instance) = self.state.instance(id) else { return };
        let starting = matches!(instance.phase, Phase::Starting { .. });
        if !instance.is_running() || starting != (role == Role::Startup) {
            return; // late: the instance is further on
        }
        let instance = instance.clone();
        match outcome {
            Outcome::Impossible(error) => {
                if !instance.health.unprobed {
                    let evidence = format!("the {} probe was impossible: {error}", role.as_str());
                    self.emit(Change::ProbeImpossible(id.clone()), Rule::Probe, evidence);
                }
            }
            Outcome::Pass => self.probe_passed(&instance, role, attempt),
            Outcome::Fail(detail) => self.probe_failed(&instance, role, attempt, detail),
        }
        match role {
            Role::Startup if *outcome == Outcome::Pass => {}
            Role::Startup => self.probe_startup(id, attempt.saturating_add(1)),
            Role::Ready | Role::Live => self.probe_next(id, role),
        }
    }

    fn probe_passed(&mut self, instance: &Instance, role: Role, attempt: u32) {
        let id = &instance.id;
        if role == Role::Startup {
            let tries = attempt.saturating_add(1);
            let evidence = format!("the startup probe passed at try {tries}");
            return self.come_up(id, Rule::Probe, &evidence);
        }
        let health = instance.health;
        let unready = role == Role::Ready && instance.phase == Phase::Unready;
        if failures(&health, role) > 0 || health.suspected || health.unprobed || unready {
            let evidence = format!("the {} probe passed", role.as_str());
            self.emit(Change::ProbePassed { instance: id.clone(), role }, Rule::Probe, evidence);
        }
        let rise = self.timing(id, role).map_or(1, |timing| timing.rise);
        let passes = self.state.instance(id).map_or(0, |i| i.health.ready_passes);
        if unready && passes >= rise {
            let evidence = format!("{passes} ready probes in a row passed");
            self.emit(Change::BecameReady(id.clone()), Rule::Probe, evidence);
        }
        if role == Role::Live && instance.condemned {
            let evidence = "it recovered before it was replaced";
            self.emit(Change::Reprieved(id.clone()), Rule::Heal, evidence);
        }
    }

    fn probe_failed(&mut self, instance: &Instance, role: Role, attempt: u32, detail: &str) {
        let id = &instance.id;
        // An application may take a thousand tries to come up; the history keeps ten of them. And
        // while it is not ready only a failure that breaks a run of passes is worth a word.
        let noted = match (role, &instance.phase) {
            (Role::Startup, _) => attempt.saturating_add(1).is_power_of_two(),
            (Role::Ready, Phase::Unready) => instance.health.ready_passes > 0,
            _ => true,
        };
        if noted && !instance.condemned {
            let evidence = format!("the {} probe failed: {detail}", role.as_str());
            self.emit(Change::ProbeFailed { instance: id.clone(), role }, Rule::Probe, evidence);
        }
        let Some(timing) = self.timing(id, role) else { return };
        let Some(now) = self.state.instance(id) else { return };
        let failed = failures(&now.health, role);
        if failed < timing.retries {
            return;
        }
        let evidence = format!("{failed} {} probes in a row failed: {detail}", role.as_str());
        if role == Role::Ready && now.phase == Phase::Ready {
            self.emit(Change::BecameUnready(id.clone()), Rule::Probe, evidence);
        } else if role == Role::Live && !now.condemned {
            self.emit(Change::Condemned(id.clone()), Rule::Probe, evidence);
        }
    }

    /// Traffic casts doubt: traffic turns away and the probes are asked at once, with less
    /// patience than usual. Traffic alone condemns nobody.
    pub(super) fn doubted(&mut self, id: &InstanceId, evidence: Evidence) {
        let Some(instance) = self.state.instance(id) else { return };
        if !instance.is_ready() || instance.health.suspected {
            return;
        }
        let roles = [Role::Live, Role::Ready];
        let Some((role, timing)) =
            roles.into_iter().find_map(|role| Some((role, self.timing(id, role)?)))
        else {
            return; // nothing could ever clear it again
        };
        self.emit(Change::Suspected(id.clone()), Rule::Traffic, evidence.as_str());
        self.probe(id, role, 0, Span::ZERO, timing.confirm_timeout);
    }

    fn timing(&self, id: &InstanceId, role: Role) -> Option<Timing> {
        timing(&self.state.terms(id)?.probes, role)
    }
}

fn timing(probes: &Probes, role: Role) -> Option<Timing> {
    match role {
        Role::Startup => None,
        Role::Ready => probes.ready,
        Role::Live => probes.live,
    }
}

fn failures(health: &Health, role: Role) -> u32 {
    match role {
        Role::Startup => 0,
        Role::Ready => health.ready_failures,
        Role::Live => health.live_failures,
    }
}
