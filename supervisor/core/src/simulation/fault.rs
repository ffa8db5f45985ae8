//! The storm: what goes wrong, once a second, and how it ends.

use super::run::{Occurrence, Run};
use super::witness::Violation;
use crate::input::{Command, Input};
use crate::name::{InstanceId, Revision, ServiceName, SlotId};
use crate::restart::{ExitCause, OomScope};
use crate::time::Span;

type Lived = Result<(), Violation>;

impl Run {
    /// Draws this second's faults.
    pub(super) fn faults(&mut self) -> Lived {
        let weather = self.weather;
        let running = self.world.running();
        if self.random.permille(weather.crash) {
            let cause = self.cause();
            self.strike(&running, |run, id| run.ends(id.clone(), cause.clone()));
        }
        if self.random.permille(weather.crash / 4)
            && let Some(id) = self.random.pick(&running).cloned()
        {
            self.feed(Input::ChildOutOfMemory { instance: id })?;
        }
        if self.random.permille(weather.freeze) {
            self.strike(&running, |run, id| {
                run.world.bodies.get_mut(id).into_iter().for_each(|body| body.frozen = true);
            });
        }
        if self.random.permille(weather.sicken) {
            self.strike(&running, |run, id| {
                run.world.bodies.get_mut(id).into_iter().for_each(|body| body.sick = true);
                if run.random.percent(50) {
                    let lasts = run.random.span(100, 10_000);
                    run.schedule(lasts, Occurrence::Recovers(id.clone()));
                }
            });
        }
        if self.random.permille(weather.balancer) {
            self.trouble_balancer();
        }
        if self.random.permille(weather.command) && self.brain_up {
            self.whim()?;
        }
        if self.random.permille(weather.reboot) {
            self.reboot();
        } else if self.brain_up && self.random.permille(weather.brain) {
            self.brain_dies();
        }
        Ok(())
    }

    fn cause(&mut self) -> ExitCause {
        let causes = [
            ExitCause::Signal(9),
            ExitCause::Code(0),
            ExitCause::Code(1),
            ExitCause::OutOfMemory(OomScope::Limit),
            ExitCause::OutOfMemory(OomScope::Host),
        ];
        self.random.pick(&causes).cloned().unwrap_or(ExitCause::Unknown)
    }

    /// Hits one running container, sometimes all of them or all of its service.
    fn strike(&mut self, running: &[InstanceId], blow: impl Fn(&mut Run, &InstanceId)) {
        let Some(one) = self.random.pick(running).cloned() else { return };
        let reach = self.random.below(10);
        let hit = |id: &&InstanceId| match reach {
            0 => true,
            1 => id.slot.service == one.slot.service,
            2 => id.slot.service == one.slot.service && id.slot.index <= 3,
            _ => **id == one,
        };
        for id in running.iter().filter(hit) {
            self.note(|| format!("{id} is struck"));
            blow(self, id);
        }
    }

    fn trouble_balancer(&mut self) {
        if !self.balancer.up {
            return;
        }
        if self.random.percent(50) {
            self.note(|| "the data plane dies".to_string());
            self.balancer.die();
            let pause = self.random.span(5, 8000);
            self.schedule(pause, Occurrence::BalancerStarts);
        } else {
            let hang = self.random.span(10, 12_000);
            self.note(|| format!("the data plane hangs for {hang}"));
            self.balancer.hung_until = self.at + hang;
        }
    }

    /// The host boots: no container, no data plane, another clock.
    fn reboot(&mut self) {
        self.note(|| "the host boots".to_string());
        self.forget_future();
        self.world = Default::default();
        self.balancer.die();
        self.brain_dies();
        self.boots += 1;
        self.booted = self.at;
        self.schedule(Span::from_ms(5), Occurrence::BalancerStarts);
        self.schedule(Span::from_secs(1), Occurrence::Second);
    }

    /// Somebody wants something else.
    fn whim(&mut self) -> Lived {
        let names: Vec<ServiceName> = self.project.services.keys().cloned().collect();
        let Some(service) = self.random.pick(&names).cloned() else { return Ok(()) };
        let command = match self.random.below(8) {
            0 | 1 => {
                let replicas = 1 + u32::try_from(self.random.below(6)).unwrap_or(0);
                Command::Scale { service, replicas }
            }
            2 => Command::Restart { service },
            3 => Command::Stop { service },
            4 => Command::Start { service },
            5 => {
                let slots: Vec<SlotId> = self.state.slots().map(|s| s.id.clone()).collect();
                let Some(slot) = self.random.pick(&slots).cloned() else { return Ok(()) };
                Command::Reset { slot }
            }
            6 if self.random.percent(30) => Command::Down,
            _ => {
                let broken = if self.random.percent(40) { "broken" } else { "good" };
                self.revise(&service, broken);
                Command::Apply(self.project.clone())
            }
        };
        self.note(|| format!("a command: {command:?}"));
        self.command(command)
    }

    /// Gives a service a revision of its own time.
    fn revise(&mut self, service: &ServiceName, quality: &str) {
        let revision = format!("{quality}-{}", self.at.ms());
        if let Some(spec) = self.project.services.get_mut(service) {
            spec.revision = Revision::from(revision.as_str());
        }
    }

    /// The storm is over: nothing fails any more, and what is wanted can be had.
    pub(super) fn calm(&mut self) -> Lived {
        self.storm = false;
        self.note(|| "the storm is over".to_string());
        if !self.brain_up {
            self.brain_starts()?;
        }
        if !self.balancer.up {
            self.balancer.up = true;
            self.feed(Input::DataPlane(self.balancer.followed()))?;
        }
        let names: Vec<ServiceName> = self.project.services.keys().cloned().collect();
        for service in &names {
            let broken = |spec: &crate::spec::Service| spec.revision.as_str().contains("broken");
            let wants = self.project.services.get(service).is_some_and(broken);
            if wants || self.random.percent(30) {
                self.revise(service, "good");
            }
        }
        self.command(Command::Apply(self.project.clone()))?;
        for service in names {
            self.command(Command::Start { service })?;
        }
        let slots: Vec<SlotId> = self.state.slots().map(|slot| slot.id.clone()).collect();
        for slot in slots {
            self.command(Command::Reset { slot })?;
        }
        Ok(())
    }
}
