//! Commands: each is checked whole, then becomes one event, or is refused with a reason.

use crate::event::{Change, Rule};
use crate::input::Command;
use crate::name::{ServiceName, SlotId};
use crate::spec::Project;
use crate::step::Step;

impl Step<'_> {
    pub(super) fn command(&mut self, command: &Command) {
        let outcome = match command {
            Command::Apply(project) => self.apply_project(project),
            Command::Scale { service, replicas } => self.scale(service, *replicas),
            Command::Restart { service } => self.restart(service),
            Command::Stop { service } => self.halt(service, true),
            Command::Start { service } => self.halt(service, false),
            Command::Reset { slot } => self.reset(slot),
            Command::Down => {
                if !self.state.is_going_down() {
                    self.emit(Change::GoingDown, Rule::Command, "down");
                }
                Ok(())
            }
        };
        self.turn.refused = outcome.err();
    }

    fn apply_project(&mut self, project: &Project) -> Result<(), String> {
        project.check().map_err(|error| error.to_string())?;
        let state = &self.state;
        let same = |name: &ServiceName, replicas: u32| {
            state.project().services.get(name).is_some_and(|old| old.replicas == replicas)
        };
        let replicas = |name: &ServiceName, service: &crate::spec::Service| {
            let scaled = state.control(name).scaled.filter(|_| same(name, service.replicas));
            scaled.unwrap_or(service.replicas)
        };
        project.check_fits(state.host(), replicas).map_err(|error| error.to_string())?;
        if state.project() != project || state.is_going_down() {
            let count = project.services.len();
            let evidence = format!("{count} services were given");
            self.emit(Change::Configured(project.clone()), Rule::Command, evidence);
        }
        Ok(())
    }

    fn scale(&mut self, service: &ServiceName, replicas: u32) -> Result<(), String> {
        self.known(service)?;
        let state = &self.state;
        let wanted = |name: &ServiceName, _: &_| {
            // A stopped service keeps its room, so that it can be started again.
            if name == service { replicas } else { state.scale(name) }
        };
        state.project().check_fits(state.host(), wanted).map_err(|error| error.to_string())?;
        let before = self.state.scale(service);
        if before != replicas {
            let change = Change::Scaled { service: service.clone(), replicas };
            self.emit(change, Rule::Command, format!("scale from {before} to {replicas}"));
        }
        Ok(())
    }

    fn restart(&mut self, service: &ServiceName) -> Result<(), String> {
        self.known(service)?;
        let change = Change::RestartWanted { service: service.clone() };
        self.emit(change, Rule::Command, "restart");
        Ok(())
    }

    fn halt(&mut self, service: &ServiceName, halted: bool) -> Result<(), String> {
        self.known(service)?;
        if self.state.control(service).halted != halted {
            let evidence = if halted { "stop" } else { "start" };
            let change = Change::Halted { service: service.clone(), halted };
            self.emit(change, Rule::Command, evidence);
        }
        Ok(())
    }

    fn reset(&mut self, slot: &SlotId) -> Result<(), String> {
        if self.state.slot(slot).is_none() {
            return Err(format!("there is no slot {slot}; `minisup ps` lists them"));
        }
        self.emit(Change::Reset(slot.clone()), Rule::Command, "reset");
        Ok(())
    }

    fn known(&self, service: &ServiceName) -> Result<(), String> {
        if self.state.project().services.contains_key(service) {
            return Ok(());
        }
        let names: Vec<&str> =
            self.state.project().services.keys().map(ServiceName::as_str).collect();
        Err(format!("there is no service {service}; the project has {}", names.join(", ")))
    }
}
