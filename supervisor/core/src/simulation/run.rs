//! The loop: takes what happens next off the queue, in the order of time.

use std::collections::{BTreeMap, BTreeSet};

use super::balancer::Balancer;
use super::random::Random;
use super::scenario::{self, Weather};
use super::witness::{self, Invariant, Violation, Witness};
use super::world::World;
use super::{Failure, Summary};
use crate::action::Role;
use crate::event::Event;
use crate::guard::Guards;
use crate::input::{Command, Input};
use crate::name::{InstanceId, Revision, ServiceName};
use crate::restart::ExitCause;
use crate::spec::{Host, Project, Service};
use crate::state::{Routes, State};
use crate::step::step_guarded;
use crate::time::{Mono, Span};

/// How long after the storm everything must have come true: several slots one after another, each
/// with a longest pause, a startup, a drain and a grace period.
const SETTLES_WITHIN: Span = Span::from_secs(900);
/// How long `down` may take.
const DOWN_WITHIN: Span = Span::from_secs(300);
/// Lines kept of a trace.
const TRACE: usize = 1000;

/// What is going to happen.
#[derive(Clone, Debug)]
pub(super) enum Occurrence {
    /// The driver's timer.
    Tick,
    /// News reaches the supervisor.
    Deliver(Input),
    /// The runtime has started a container, or not.
    LaunchEnds { id: InstanceId, ok: bool },
    /// A probe is made.
    Probe { id: InstanceId, role: Role, attempt: u32, timeout: Span, token: u64 },
    /// A process ends.
    Ends { id: InstanceId, cause: ExitCause },
    /// A sick container gets well.
    Recovers(InstanceId),
    /// The runtime deletes a container.
    Delete(InstanceId),
    /// The runtime destroys a container, whatever its state.
    Destroy(InstanceId),
    /// Routes reach the data plane.
    Follow(Routes),
    /// The data plane comes back.
    BalancerStarts,
    /// The supervisor comes back.
    BrainStarts,
    /// The supervisor looks at everything.
    Observe,
    /// Once a second: faults are drawn, requests are sent.
    Second,
}

/// One simulated day.
pub(super) struct Run {
    pub(super) seed: u64,
    pub(super) random: Random,
    pub(super) weather: Weather,
    /// Time in the world; the supervisor's clock starts anew with each boot.
    pub(super) at: Mono,
    pub(super) booted: Mono,
    pub(super) boots: u64,
    queue: BTreeMap<(Mono, u64), (u64, Occurrence)>,
    queued: u64,
    pub(super) world: World,
    pub(super) balancer: Balancer,
    pub(super) witness: Witness,
    pub(super) host: Host,
    /// Every specification that was ever asked for.
    pub(super) catalog: BTreeMap<(ServiceName, Revision), Service>,
    /// What was asked for last.
    pub(super) project: Project,
    guards: Guards,
    /// The supervisor: its state, a second one that only applies events, and the stored history.
    pub(super) state: State,
    shadow: State,
    log: Vec<Event>,
    /// History before this was promised to somebody and cannot be lost.
    promised: usize,
    pub(super) brain_up: bool,
    /// Counts lives of the supervisor: what its former life waited for never arrives.
    pub(super) life: u64,
    pub(super) busy: BTreeSet<InstanceId>,
    pub(super) probes: BTreeMap<(InstanceId, Role), u64>,
    pub(super) storm: bool,
    pub(super) summary: Summary,
    trace: Option<Vec<String>>,
}

impl Run {
    pub(super) fn new(seed: u64, guards: Guards, trace: bool) -> Run {
        let mut random = Random::new(seed);
        let weather = scenario::weather(&mut random);
        let project = scenario::project(&mut random);
        let host = scenario::host(&mut random, &project);
        Run {
            seed,
            random,
            weather,
            at: Mono::from_ms(1000),
            booted: Mono::BOOT,
            boots: 1,
            queue: BTreeMap::new(),
            queued: 0,
            world: World::default(),
            balancer: Balancer { up: true, ..Balancer::default() },
            witness: Witness::default(),
            host,
            catalog: BTreeMap::new(),
            project,
            guards,
            state: State::default(),
            shadow: State::default(),
            log: Vec::new(),
            promised: 0,
            brain_up: false,
            life: 0,
            busy: BTreeSet::new(),
            probes: BTreeMap::new(),
            storm: true,
            summary: Summary::default(),
            trace: trace.then(Vec::new),
        }
    }

    /// Lives through the day: the storm, the calm, the end.
    pub(super) fn finish(mut self) -> Result<Summary, Box<Failure>> {
        match self.day() {
            Ok(()) => {
                for event in &self.log {
                    self.summary.digest = digest(self.summary.digest, event);
                }
                Ok(self.summary)
            }
            Err(violation) => Err(Box::new(Failure {
                seed: self.seed,
                at_ms: self.at.ms(),
                violation,
                trace: self.trace.unwrap_or_default(),
            })),
        }
    }

    fn day(&mut self) -> Result<(), Violation> {
        self.brain_starts()?;
        let project = self.project.clone();
        self.command(Command::Apply(project))?;
        self.schedule(Span::from_secs(1), Occurrence::Second);
        let until = self.at + self.weather.storm;
        while self.at < until {
            self.next()?;
        }
        self.calm()?;
        let until = self.at + SETTLES_WITHIN;
        while let Err(open) = self.settled() {
            if self.at >= until {
                return Err(open);
            }
            self.next()?;
        }
        self.command(Command::Down)?;
        let until = self.at + DOWN_WITHIN;
        while !(self.state.is_down() && self.world.bodies.is_empty()) {
            if self.at >= until {
                let detail = format!("{:?}", self.world.bodies.keys().collect::<Vec<_>>());
                return Err(Violation { invariant: Invariant::LeavesNothing, detail });
            }
            self.next()?;
        }
        Ok(())
    }

    fn settled(&self) -> Result<(), Violation> {
        if !self.brain_up {
            let detail = "the supervisor is away".to_string();
            return Err(Violation { invariant: Invariant::Settles, detail });
        }
        witness::settled(&self.state, &self.world, &self.balancer, self.at)
    }

    /// Puts something on the queue, for the present life of the supervisor.
    pub(super) fn schedule(&mut self, after: Span, occurrence: Occurrence) {
        self.queued += 1;
        self.queue.insert((self.at + after, self.queued), (self.life, occurrence));
    }

    /// Drops everything that was going to happen: the host has lost its power.
    pub(super) fn forget_future(&mut self) {
        self.queue.clear();
    }

    fn next(&mut self) -> Result<(), Violation> {
        let Some(((at, _), (life, occurrence))) = self.queue.pop_first() else {
            let detail = "nothing will ever happen again".to_string();
            return Err(Violation { invariant: Invariant::Settles, detail });
        };
        self.at = at;
        self.happen(life == self.life, occurrence)
    }

    /// The supervisor's clock.
    pub(super) fn now(&self) -> Mono {
        Mono::BOOT + self.at.since(self.booted)
    }

    /// Somebody wants something; once answered, it is stored for good.
    pub(super) fn command(&mut self, command: Command) -> Result<(), Violation> {
        if let Command::Apply(project) = &command {
            for (name, service) in &project.services {
                let key = (name.clone(), service.revision.clone());
                self.catalog.insert(key, service.clone());
            }
        }
        self.feed(Input::Command(command))
    }

    /// Gives the core one input, checks what it makes of it, stores it and carries it out. The
    /// supervisor may die at any point of this.
    pub(super) fn feed(&mut self, input: Input) -> Result<(), Violation> {
        if !self.brain_up {
            return Ok(());
        }
        let now = self.now();
        let turn = step_guarded(&mut self.state, &input, now, self.guards);
        self.summary.steps += 1;
        self.note(|| format!("{now} {input:?}"));
        for event in &turn.events {
            self.note(|| {
                format!(
                    "    {:?}  // {:?}: {}",
                    event.change, event.reason.rule, event.reason.evidence
                )
            });
            self.witness.event(&self.shadow, event, &self.world)?;
            self.shadow.apply(event);
        }
        if self.shadow != self.state {
            let detail = format!("after {input:?} the events do not give the state");
            return Err(Violation { invariant: Invariant::Replay, detail });
        }
        if !turn.events.is_empty() {
            witness::nobody_left_behind(&self.state)?;
        }
        let command = matches!(input, Input::Command(_));
        if !command && self.storm && self.random.permille(self.weather.brain / 40) {
            self.witness.forget(); // these events were never stored
            self.brain_dies();
            return Ok(());
        }
        self.summary.events += turn.events.len() as u64;
        self.log.extend(turn.events);
        if command {
            self.promised = self.log.len();
        }
        for action in turn.actions {
            if self.storm && self.random.permille(self.weather.brain / 40) {
                self.brain_dies();
                return Ok(());
            }
            self.note(|| format!("  → {action:?}"));
            self.perform(action)?;
        }
        if let Some(deadline) = self.state.next_deadline(now) {
            self.schedule(deadline.since(now), Occurrence::Tick);
        }
        Ok(())
    }

    /// The supervisor is killed; sometimes the end of its history is lost with it.
    pub(super) fn brain_dies(&mut self) {
        self.note(|| "the supervisor dies".to_string());
        self.summary.brain_deaths += 1;
        self.brain_up = false;
        self.life += 1;
        self.busy.clear();
        self.probes.clear();
        if self.random.percent(20) {
            let lost = usize::try_from(self.random.below(12)).unwrap_or(0);
            let keep = self.log.len().saturating_sub(lost).max(self.promised);
            self.log.truncate(keep);
            self.witness.forget();
            self.summary.torn += 1;
            self.note(|| format!("the history is torn to {keep} events"));
        }
        let pause = self.random.span(5, 3000);
        self.schedule(pause, Occurrence::BrainStarts);
    }

    /// The supervisor starts: history, then what there is, then the data plane.
    pub(super) fn brain_starts(&mut self) -> Result<(), Violation> {
        self.note(|| "the supervisor starts".to_string());
        self.brain_up = true;
        self.state = State::default();
        self.log.iter().for_each(|event| self.state.apply(event));
        self.shadow = self.state.clone();
        self.feed(self.observation(true))?;
        self.feed(Input::Host(self.host))?;
        self.schedule(Span::from_secs(10), Occurrence::Observe);
        Ok(())
    }

    /// Writes a line into the trace, if there is one.
    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            if trace.len() >= TRACE {
                trace.remove(0);
            }
            trace.push(line());
        }
    }
}

/// Mixes an event into a digest (FNV-1a over its debug text).
fn digest(seed: u64, event: &Event) -> u64 {
    let start = seed ^ 0xcbf2_9ce4_8422_2325;
    format!("{event:?}")
        .bytes()
        .fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
