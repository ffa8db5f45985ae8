//! Small worlds for unit tests: a state that is told things and says what it wants.

use crate::action::{Action, Role};
use crate::event::Change;
use crate::input::{Command, Input, Observation, Outcome};
use crate::name::{InstanceId, ServiceName};
use crate::restart::{ExitCause, RestartPolicy};
use crate::spec::{
    Condition, Host, Need, Order, Probes, Project, Reserve, Service, Startup, StopPolicy, Timing,
};
use crate::state::State;
use crate::step::{Turn, step};
use crate::time::{Mono, Span};

/// A routed service with `replicas` and the usual probes.
pub(crate) fn service(replicas: u32) -> Service {
    Service {
        revision: "v1".into(),
        replicas,
        parallelism: 1,
        order: Order::StartFirst,
        moves: Order::StartFirst,
        restart: RestartPolicy::default(),
        probes: Probes { startup: Some(startup()), ready: None, live: Some(timing()) },
        stop: StopPolicy::default(),
        needs: Default::default(),
        joins: Default::default(),
        reserve: Reserve::default(),
        routed: true,
    }
}

/// Startup probes from 250 ms to 1 s, for half a minute.
pub(crate) fn startup() -> Startup {
    Startup {
        first_interval: Span::from_ms(250),
        interval: Span::from_secs(1),
        timeout: Span::from_secs(1),
        within: Span::from_secs(30),
    }
}

/// A probe each second, three failures are unhealthy.
pub(crate) fn timing() -> Timing {
    Timing {
        interval: Span::from_secs(1),
        timeout: Span::from_secs(1),
        retries: 3,
        rise: 1,
        confirm_interval: Span::from_ms(200),
        confirm_timeout: Span::from_ms(500),
    }
}

/// The service with one more required dependency.
pub(crate) fn needs(mut service: Service, on: &str, condition: Condition) -> Service {
    service.needs.insert(ServiceName::from(on), Need { condition, required: true });
    service
}

/// The service in the namespaces of another.
pub(crate) fn joins(service: Service, owner: &str) -> Service {
    let mut service = needs(service, owner, Condition::Started);
    service.joins.insert(ServiceName::from(owner));
    service
}

/// A core in a world that does what it is told.
pub(crate) struct Play {
    pub(crate) state: State,
    pub(crate) now: Mono,
    /// Everything that changed since the last look.
    pub(crate) changes: Vec<Change>,
    /// Everything that was asked for since the last look.
    pub(crate) actions: Vec<Action>,
}

impl Play {
    /// A host of a thousand bytes, and these services on it.
    pub(crate) fn of(services: &[(&str, Service)]) -> Play {
        let mut play = Play {
            state: State::default(),
            now: Mono::from_ms(1000),
            changes: Vec::new(),
            actions: Vec::new(),
        };
        let boot = "boot".to_string();
        play.tell(Input::Observed(Observation { boot, fresh: true, ..Observation::default() }));
        play.tell(Input::Host(Host { memory_bytes: 1000, cpu_millis: 1000 }));
        play.apply(services);
        play
    }

    pub(crate) fn apply(&mut self, services: &[(&str, Service)]) -> Turn {
        let services = services.iter().map(|(name, s)| ((*name).into(), s.clone())).collect();
        self.tell(Input::Command(Command::Apply(Project { services })))
    }

    /// Tells the core something now.
    pub(crate) fn tell(&mut self, input: Input) -> Turn {
        let turn = step(&mut self.state, &input, self.now);
        self.changes.extend(turn.events.iter().map(|event| event.change.clone()));
        self.actions.extend(turn.actions.iter().cloned());
        turn
    }

    /// Lets time pass, with a tick at each deadline.
    pub(crate) fn pass(&mut self, span: Span) {
        let end = self.now + span;
        while let Some(deadline) = self.state.next_deadline(self.now).filter(|at| *at <= end) {
            self.now = deadline;
            self.tell(Input::Tick);
        }
        self.now = end;
        self.tell(Input::Tick);
    }

    /// Forgets what was seen so far.
    pub(crate) fn look_away(&mut self) {
        self.changes.clear();
        self.actions.clear();
    }

    pub(crate) fn launched(&mut self, name: &str) {
        self.tell(Input::Launched { instance: id(name), result: Ok(()) });
    }

    pub(crate) fn probed(&mut self, name: &str, role: Role, pass: bool) {
        let outcome = if pass { Outcome::Pass } else { Outcome::Fail("no".into()) };
        self.tell(Input::Probed { instance: id(name), role, attempt: 0, outcome });
    }

    /// The instance comes up: launched, probed, and the data plane agrees.
    pub(crate) fn up(&mut self, name: &str) {
        self.launched(name);
        self.probed(name, Role::Startup, true);
        self.acknowledge();
    }

    pub(crate) fn all_up(&mut self, names: &[&str]) {
        names.iter().for_each(|name| self.up(name));
    }

    pub(crate) fn acknowledge(&mut self) {
        let generation = self.state.generation();
        self.tell(Input::Acknowledged { generation });
    }

    pub(crate) fn exited(&mut self, name: &str, cause: ExitCause) {
        self.tell(Input::Exited { instance: id(name), cause });
        self.tell(Input::Deleted { instance: id(name), result: Ok(()) });
    }

    /// Whether the action was asked for since the last look.
    pub(crate) fn asked(&self, wanted: impl Fn(&Action) -> bool) -> bool {
        self.actions.iter().any(wanted)
    }

    /// Whether a launch of that instance was asked for.
    pub(crate) fn launches(&self, name: &str) -> bool {
        let wanted = id(name);
        self.asked(
            |action| matches!(action, Action::Launch { instance, .. } if *instance == wanted),
        )
    }

    /// Whether a stop signal for that instance was asked for.
    pub(crate) fn signals(&self, name: &str) -> bool {
        self.asked(|action| *action == Action::Signal { instance: id(name) })
    }
}

/// The instance of that name.
pub(crate) fn id(name: &str) -> InstanceId {
    name.parse().unwrap()
}
