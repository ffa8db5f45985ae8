//! The loop's body: what each piece of news means to the core.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result};
use minisup_core::action::Role;
use minisup_core::event::{Change, Event, Reason, Rule};
use minisup_core::input::{Command, Followed, Input};
use minisup_core::name::InstanceId;
use minisup_core::restart::ExitCause;
use minisup_core::spec::Host;
use minisup_core::state::State;
use minisup_core::time::Mono;
use minisup_core::{Turn, step};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::api::{self, Call, Reply};
use super::compress;
use super::container::Running;
use super::link::Link;
use super::meter::Meter;
use super::networks::There;
use super::runtime::Runtime;
use super::traffic::{Asked, Counting};
use super::{End, News, observe, until};
use crate::clock;
use crate::discovery::switch::Addresses;
use crate::keeper::client::{Inventory, Keeper, Word};
use crate::layout::Layout;
use crate::model::{ServiceSpec, Stack};
use crate::plane::protocol::{Order, Report};
use crate::store::Store;

/// Ends remembered of processes that no container is known to have.
const ENDS: usize = 4096;
/// Events kept in memory while they cannot be stored; beyond, a snapshot has to do.
const UNSTORED: usize = 10_000;
/// How long the keeper may take to tell how a process ended.
const STATUS_WAIT: Duration = Duration::from_millis(200);

/// The brain.
pub(crate) struct Brain {
    pub(crate) layout: Layout,
    pub(crate) keeper: Keeper,
    pub(crate) news: UnboundedSender<News>,
    pub(crate) link: Link,
    /// News that came before the brain was awake.
    pub(crate) early: Vec<News>,
    pub(crate) state: State,
    /// The time of the latest turn.
    looked_at: Mono,
    store: Option<Store>,
    /// Events that could not be stored yet.
    unstored: Vec<Event>,
    /// What was asked for last.
    pub(crate) stack: Stack,
    pub(crate) specs: BTreeMap<String, ServiceSpec>,
    pub(crate) runtime: Runtime,
    pub(crate) running: BTreeMap<InstanceId, Running>,
    /// What they use.
    pub(crate) meters: BTreeMap<InstanceId, Meter>,
    /// Whose turn it is to be measured.
    pub(crate) turn: usize,
    /// When somebody last asked what is used.
    pub(crate) asked_for_use: Option<Mono>,
    /// Instances with a runtime command under way, and those that had one since the last look.
    pub(crate) busy: BTreeSet<InstanceId>,
    pub(crate) touched: BTreeSet<InstanceId>,
    pub(crate) probes: BTreeMap<(InstanceId, Role), AbortHandle>,
    /// How processes ended, by number, until somebody asks.
    ends: BTreeMap<i32, ExitCause>,
    plane_pid: i32,
    /// Callers that wait for more events.
    waiting: Vec<(i64, Option<String>, oneshot::Sender<Reply>)>,
    /// The project's networks by their keys, and who has which address in them.
    pub(super) networks: BTreeMap<String, There>,
    pub(crate) addresses: Addresses,
    /// What the data plane has counted.
    pub(crate) traffic: Counting,
    /// Why it goes, as soon as it does.
    pub(super) end: Option<End>,
}

impl Brain {
    pub(crate) fn new(
        layout: Layout,
        keeper: Keeper,
        inventory: &Inventory,
        news: UnboundedSender<News>,
    ) -> Brain {
        let runtime = Runtime { program: "minirun".into(), root: layout.runtime() };
        Brain {
            layout,
            keeper,
            news,
            link: Link::default(),
            early: Vec::new(),
            state: State::default(),
            looked_at: Mono::BOOT,
            store: None,
            unstored: Vec::new(),
            stack: Stack::default(),
            specs: BTreeMap::new(),
            runtime,
            running: BTreeMap::new(),
            meters: BTreeMap::new(),
            turn: 0,
            asked_for_use: None,
            busy: BTreeSet::new(),
            touched: BTreeSet::new(),
            probes: BTreeMap::new(),
            ends: inventory.exited.iter().cloned().collect(),
            plane_pid: inventory.plane,
            waiting: Vec::new(),
            networks: BTreeMap::new(),
            addresses: Addresses::default(),
            traffic: Counting::default(),
            end: None,
        }
    }

    /// Starts: history, host, what there is.
    pub(crate) async fn wake(&mut self, followed: Option<Followed>) -> Result<()> {
        self.stack = read_stack(&self.layout)?;
        self.runtime.program.clone_from(&self.stack.runtime);
        self.remember_past();
        self.open_networks();
        self.listen_again();
        let seen = self.observe_at_start(followed).await;
        self.feed(&Input::Observed(seen));
        self.feed(&Input::Host(host()));
        for word in std::mem::take(&mut self.early) {
            self.hear(word);
        }
        Ok(())
    }

    /// Reads the history. One that is broken is put aside, one that is locked is done without for
    /// now: what was asked for and what runs are enough to go on from, and containers matter more
    /// than their history.
    fn remember_past(&mut self) {
        let opened = Store::open(&self.layout.history()).and_then(|mut store| {
            let state = store.restore()?;
            Ok((store, state))
        });
        let error = match opened {
            Ok((store, state)) => {
                self.state = state;
                self.store = Some(store);
                return;
            }
            Err(error) => error,
        };
        eprintln!("minisup brain: going on without history: {error:#}");
        if !Store::is_busy(&error) {
            let aside = format!("{}.broken-{}", self.layout.history().display(), clock::wall_ms());
            let _ = std::fs::rename(self.layout.history(), aside);
            for journal in ["-wal", "-shm"] {
                let _ =
                    std::fs::remove_file(format!("{}{journal}", self.layout.history().display()));
            }
        }
        let reason = Reason { rule: Rule::Adoption, evidence: format!("no history: {error:#}") };
        let change = Change::Configured(self.stack.to_core());
        let event = Event { at: clock::now(), change, reason };
        self.state.apply(&event);
        self.unstored.push(event);
        for spec in self.stack.services.values() {
            self.specs.insert(spec.revision().as_str().to_string(), spec.clone());
        }
        self.reopen_store();
    }

    /// Tries to have a history again. What happened without one becomes a snapshot.
    pub(crate) fn reopen_store(&mut self) {
        if self.store.is_none()
            && let Ok(mut store) = Store::open(&self.layout.history())
        {
            store.snapshot_next();
            self.store = Some(store);
            if let Err(error) = self.store_specs() {
                eprintln!("minisup brain: {error:#}");
            }
        }
    }

    /// How the process ended, if the keeper has told.
    pub(crate) fn end_of(&mut self, pid: i32) -> Option<ExitCause> {
        self.keeper.forget(pid);
        self.ends.remove(&pid)
    }

    /// How long until something is due that no turn has looked at yet. It may be so already: the
    /// loop's other work takes time.
    pub(crate) fn next_deadline(&self) -> Duration {
        until(self.state.next_deadline(self.looked_at))
    }

    /// Gives the core one input, stores what comes of it, and carries it out.
    pub(crate) fn feed(&mut self, input: &Input) {
        self.decide(input);
    }

    pub(super) fn decide(&mut self, input: &Input) -> Option<String> {
        self.looked_at = clock::now();
        let Turn { events, actions, refused } = step(&mut self.state, input, self.looked_at);
        if !events.is_empty() {
            self.remember(events);
        }
        for action in actions {
            self.act(action);
        }
        if self.state.is_down() && self.end.is_none() && self.busy.is_empty() {
            self.go();
        }
        refused
    }

    /// Stores events before anything follows from them. If that fails, what runs matters more:
    /// they are kept in memory and stored when it works again.
    fn remember(&mut self, events: Vec<Event>) {
        self.unstored.extend(events);
        let Some(store) = &mut self.store else { return };
        match store.append(&self.unstored, clock::wall_ms(), &self.state) {
            Ok(()) => self.unstored.clear(),
            Err(error) => {
                let count = self.unstored.len();
                eprintln!("minisup brain: {count} events are not stored yet: {error:#}");
                if count > UNSTORED {
                    self.unstored.drain(..count / 2);
                    store.snapshot_next();
                }
            }
        }
        self.answer_waiting();
    }

    /// What some piece of news means.
    pub(crate) fn hear(&mut self, word: News) {
        match word {
            News::Input(input) => self.feed(&input),
            News::Created { instance, running } => self.hold(instance, running),
            News::Launched { instance, result } => {
                self.busy.remove(&instance);
                self.feed(&Input::Launched { instance, result });
            }
            News::Deleted { instance, result } => {
                self.busy.remove(&instance);
                if result.is_ok() {
                    self.let_go(&instance);
                }
                self.feed(&Input::Deleted { instance, result });
            }
            News::Ended { instance, pid } => self.ended(instance, pid),
            News::StatusOverdue { instance, pid } => {
                let known = self.running.get(&instance).filter(|running| running.pid == pid);
                let exit = known.and_then(|running| linux::pidfd::exit_of_any(&running.pidfd));
                self.exited(instance, pid, exit.map_or(ExitCause::Unknown, cause));
            }
            News::Keeper(Word::Exited { pid, cause }) => self.status(pid, cause),
            News::Keeper(Word::Gone) => self.replace_keeper(),
            News::PlaneIsThere { line, hello } => {
                let followed = self.link.connected(line, hello);
                self.feed(&Input::DataPlane(followed));
            }
            News::PlaneIsGone => {
                self.link.lost();
                self.uncounted();
            }
            News::Plane(Report::Acknowledged { generation }) => {
                self.feed(&Input::Acknowledged { generation });
            }
            News::Plane(Report::Idle { instance }) => self.feed(&Input::Idle { instance }),
            News::Plane(Report::Doubted { instance, evidence }) => {
                self.feed(&Input::Doubted { instance, evidence });
            }
            News::Plane(Report::Traffic { instances, more }) => self.counted(instances, more),
            News::Plane(Report::Hello(_)) => {}
            News::Api(call, reply) => self.answer(call, reply),
            News::Looked(seen) => self.looked(*seen),
        }
    }

    /// A container's process has ended; the keeper, its parent, knows how.
    fn ended(&mut self, instance: InstanceId, pid: i32) {
        if let Some(cause) = self.ends.remove(&pid) {
            return self.exited(instance, pid, cause);
        }
        let news = self.news.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(STATUS_WAIT).await;
            let _ = news.send(News::StatusOverdue { instance, pid });
        });
    }

    /// The keeper tells how a process ended.
    fn status(&mut self, pid: i32, cause: ExitCause) {
        let whose = self.running.iter().find(|(_, running)| running.pid == pid);
        if let Some(instance) = whose.map(|(instance, _)| instance.clone()) {
            return self.exited(instance, pid, cause);
        }
        if self.ends.len() >= ENDS {
            self.ends.pop_first();
        }
        self.ends.insert(pid, cause);
    }

    fn exited(&mut self, instance: InstanceId, pid: i32, cause: ExitCause) {
        if self.running.get(&instance).is_none_or(|running| running.pid != pid) {
            return;
        }
        let cause = match self.meters.get(&instance) {
            Some(meter) => meter.refine(cause),
            None => cause,
        };
        self.dissect(&instance, &cause);
        self.running.remove(&instance);
        self.keeper.forget(pid);
        for role in [Role::Startup, Role::Ready, Role::Live] {
            self.stop_probe(&instance, role);
        }
        self.feed(&Input::Exited { instance, cause });
    }

    /// The keeper has been killed: its successor gets everything and starts our own successor, so
    /// that containers started from now on are its descendants again.
    fn replace_keeper(&mut self) {
        eprintln!("minisup brain: the keeper is gone; another one is started");
        self.end = Some(End::KeeperGone { plane: self.plane() });
    }

    /// The data plane's process.
    pub(super) fn plane(&self) -> Option<i32> {
        let known =
            if self.link.process == 0 { self.plane_pid } else { self.link.process.cast_signed() };
        (known != 0).then_some(known)
    }

    /// Everything is down: nothing is left but to go.
    fn go(&mut self) {
        self.end = Some(End::Down);
        for name in self.keeper.names("") {
            self.keeper.release(&name);
        }
        self.answer_waiting();
        self.keeper.bye(); // before anything that the keeper would mend
        self.link.tell(&Order::Leave, None);
        self.close_all_networks();
        compress::end();
        observe::remove_cgroups(&self.layout.project);
        self.layout.remove();
    }

    fn answer(&mut self, call: Call, reply: oneshot::Sender<Reply>) {
        let answer = match call {
            Call::Apply(stack) => self.apply(*stack),
            Call::Command(command) => match self.refuse_or_decide(command) {
                Some(refused) => Reply::refused(refused),
                None => Reply::done(),
            },
            Call::Upgrade(program) => self.upgrade(&program),
            Call::Traffic => return self.count(Asked::Counts, reply),
            Call::Metrics => return self.count(Asked::Metrics, reply),
            Call::Events { after, slot, wait } => {
                let events = self.events(after, slot.as_deref());
                if wait && events.is_empty() && self.end.is_none() {
                    self.waiting.push((after, slot, reply));
                    return;
                }
                Reply::json(&events)
            }
            look => api::look(self, &look),
        };
        let _ = reply.send(answer);
    }

    /// Makes a project so, after everything that can be refused has been looked at.
    fn apply(&mut self, mut stack: Stack) -> Reply {
        let project = stack.to_core();
        let texts = stack.services.values().map(|spec| super::bundle::read(&spec.bundle));
        if let Some(error) = texts.filter_map(Result::err).next() {
            return Reply::refused(format!("{error:#}"));
        }
        if let Err(error) = stack.check().and_then(|()| self.listen(&mut stack)) {
            return Reply::refused(format!("{error:#}"));
        }
        let before = std::mem::replace(&mut self.stack, stack);
        self.runtime.program.clone_from(&self.stack.runtime);
        if let Err(error) = self.store_specs() {
            return Reply::refused(format!("the project cannot be stored: {error:#}"));
        }
        self.open_networks();
        if let Some(refused) = self.decide(&Input::Command(Command::Apply(project))) {
            self.stack = before;
            self.runtime.program.clone_from(&self.stack.runtime);
            if let Err(error) = self.store_specs() {
                eprintln!("minisup brain: {error:#}");
            }
            self.close_unpublished();
            self.close_networks();
            return Reply::refused(refused);
        }
        self.close_unpublished();
        Reply::done()
    }

    /// Writes down what the revisions of a project are made of. Before the decision that uses
    /// them, so that none is ever launched from memory alone.
    pub(crate) fn store_specs(&mut self) -> Result<()> {
        for spec in self.stack.services.values() {
            self.specs.insert(spec.revision().as_str().to_string(), spec.clone());
        }
        let store = self.store.as_ref().context("there is no store")?;
        for spec in self.stack.services.values() {
            store.put_spec(spec.revision().as_str(), &serde_json::to_string(spec)?)?;
        }
        write_stack(&self.layout, &self.stack)
    }

    /// What a revision is made of.
    pub(crate) fn spec(&mut self, revision: &str) -> Option<ServiceSpec> {
        if let Some(spec) = self.specs.get(revision) {
            return Some(spec.clone());
        }
        let json = self.store.as_ref()?.spec(revision).ok()??;
        let spec: ServiceSpec = serde_json::from_str(&json).ok()?;
        self.specs.insert(revision.to_string(), spec.clone());
        Some(spec)
    }

    fn events(&self, after: i64, slot: Option<&str>) -> Vec<api::EventView> {
        let found = self.store.as_ref().map(|store| store.after(after, slot));
        match found {
            Some(Ok(events)) => events.into_iter().map(api::EventView::from).collect(),
            Some(Err(error)) => {
                eprintln!("minisup brain: the history cannot be read: {error:#}");
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    fn answer_waiting(&mut self) {
        for (after, slot, reply) in std::mem::take(&mut self.waiting) {
            let events = self.events(after, slot.as_deref());
            if events.is_empty() && self.end.is_none() {
                self.waiting.push((after, slot, reply));
            } else {
                let _ = reply.send(Reply::json(&events));
            }
        }
    }
}

/// What was asked for last; nothing, if nothing ever was.
fn read_stack(layout: &Layout) -> Result<Stack> {
    match std::fs::read_to_string(layout.stack()) {
        Ok(json) => serde_json::from_str(&json).context("stack.json cannot be understood"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Stack::default()),
        Err(error) => Err(error).context("stack.json cannot be read"),
    }
}

/// Writes down what was asked for, whole or not at all.
fn write_stack(layout: &Layout, stack: &Stack) -> Result<()> {
    let (file, new) = (layout.stack(), layout.stack().with_extension("new"));
    std::fs::write(&new, serde_json::to_vec_pretty(stack)?).context("cannot write stack.json")?;
    std::fs::File::open(&new)?.sync_all()?;
    std::fs::rename(&new, &file).context("cannot write stack.json")
}

fn cause(exit: linux::pidfd::Exit) -> ExitCause {
    match exit {
        linux::pidfd::Exit::Code(code) => ExitCause::Code(code),
        linux::pidfd::Exit::Signal(signal) => ExitCause::Signal(signal),
    }
}

/// What the host has for instances: a twentieth of its memory stays with the system.
fn host() -> Host {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok()
        })
        .unwrap_or(0u64);
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Host { memory_bytes: total * 1024 / 20 * 19, cpu_millis: cpus as u64 * 1000 }
}
