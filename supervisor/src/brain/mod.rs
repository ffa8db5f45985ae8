//! The brain: feeds the decision core with news and carries out what it asks for.
//!
//! ```text
//!   keeper ─── ends of processes ──▶ ┌────────────────────┐ ──▶ store      events, before acts
//!   pidfds ─── ends of containers ─▶ │  one loop, in the  │ ──▶ runtime    create start kill …
//!   probes ─── answers ────────────▶ │  order of arrival: │ ──▶ probes
//!   plane  ─── hello, idle, doubt ─▶ │  step(state, news) │ ──▶ plane      routes
//!   API    ─── commands ───────────▶ └────────────────────┘ ──▶ keeper     what must survive
//! ```
//!
//! Crash-only: there is no way to stop it other than to kill it, and its start is always the
//! same: read the history, see what runs, go on. Everything slow happens in tasks that send
//! their result back as news; only the loop touches the state.

pub(crate) use baton::{Baton, Stage};
pub(crate) use bundle::read as read_bundle;
pub(crate) use upgrade::Upgrade;

mod act;
pub(crate) mod api;
pub(crate) mod autopsy;
mod baton;
mod bundle;
mod cgroup;
pub(crate) mod compress;
mod connect;
mod container;
mod engine;
mod exec;
mod grpc;
mod hosts;
mod joined;
mod link;
mod listen;
pub(crate) mod log;
pub(crate) mod meter;
pub(crate) mod networks;
mod observe;
mod probe;
mod runtime;
mod streams;
pub(crate) mod traffic;
mod upgrade;

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use linux::prctl;
use minisup_core::input::{Followed, Input, Observation};
use minisup_core::name::InstanceId;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use crate::clock;
use crate::keeper::client::{Inventory, Keeper, Word};
use crate::layout::Layout;
use crate::plane::line::Line;
use crate::plane::protocol::{Hello, Report};
use container::Running;
use engine::Brain;

/// How long a starting brain waits for a data plane, so that adoption knows what it does.
const PLANE_WAIT: Duration = Duration::from_millis(300);
/// The time between two looks at everything.
const LOOK: Duration = Duration::from_secs(10);

/// Everything the loop can hear.
pub(crate) enum News {
    /// For the core, as it is.
    Input(Input),
    /// A launch got as far as having a process.
    Created { instance: InstanceId, running: Running },
    /// A launch has ended.
    Launched { instance: InstanceId, result: Result<(), String> },
    /// A deletion has ended.
    Deleted { instance: InstanceId, result: Result<(), String> },
    /// A container's first process has ended.
    Ended { instance: InstanceId, pid: i32 },
    /// Nobody has told how a process ended.
    StatusOverdue { instance: InstanceId, pid: i32 },
    /// The keeper has said something.
    Keeper(Word),
    /// A data plane says hello.
    PlaneIsThere { line: Rc<Line>, hello: Hello },
    /// The data plane is gone.
    PlaneIsGone,
    /// The data plane reports.
    Plane(Report),
    /// Somebody asks.
    Api(api::Call, oneshot::Sender<api::Reply>),
    /// A look at everything has ended; with what was busy when it began.
    Looked(Box<Observation>),
}

/// Runs the brain of a project until it is told to leave.
pub(crate) fn run(project: &str, keeper_fd: i32) -> Result<()> {
    prctl::set_name(c"minisup-brain")?;
    linux::rlimit::raise_open_files()?;
    let layout = Layout::of(project)?;
    layout.make()?;
    let mut baton = Baton::take(&layout.brain())?;
    let (keeper, inventory) = Keeper::attach(keeper_fd)?;
    baton.reached(Stage::Settled)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let end =
        LocalSet::new().block_on(&runtime, live(layout, keeper.clone(), inventory, &mut baton))?;
    // Nobody may connect any more to one that answers no more.
    drop(runtime);
    match end {
        End::Down => Ok(()),
        End::KeeperGone { plane } => keeper.hand_over(project, plane, &mut baton),
        End::Upgrade(upgrade) => keeper.replace(project, &upgrade, &mut baton),
    }
}

/// Why a brain goes.
enum End {
    /// Nothing is left of the project.
    Down,
    /// The keeper was killed; this data plane is there.
    KeeperGone { plane: Option<i32> },
    /// Another program takes over.
    Upgrade(Upgrade),
}

async fn live(
    layout: Layout,
    keeper: Keeper,
    inventory: Inventory,
    baton: &mut Baton,
) -> Result<End> {
    let (sender, mut news) = mpsc::unbounded_channel();
    let mut brain = Brain::new(layout.clone(), keeper.clone(), &inventory, sender.clone());
    tokio::task::spawn_local(hear_keeper(keeper, sender.clone()));
    tokio::task::spawn_local(link::hear(layout.clone(), sender.clone()));
    let followed = first_hello(&mut brain, &mut news).await;
    brain.wake(followed).await?;
    api::listen(&layout, sender.clone()).context("cannot offer the API")?;
    baton.reached(Stage::AtWork)?;
    let mut look = tokio::time::interval_at(tokio::time::Instant::now() + LOOK, LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut measure = tokio::time::interval(meter::EVERY);
    measure.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let deadline = brain.next_deadline();
        tokio::select! {
            word = news.recv() => match word {
                None => return Ok(End::Down),
                Some(word) => brain.hear(word),
            },
            () = tokio::time::sleep(deadline) => brain.feed(&Input::Tick),
            _ = look.tick() => brain.look(),
            _ = measure.tick() => brain.measure(),
        }
        if let Some(end) = brain.end.take() {
            // Whoever asked for this is still owed an answer.
            tokio::time::sleep(Duration::from_millis(20)).await;
            return Ok(end);
        }
    }
}

/// Waits a moment for the data plane's hello. Other news meanwhile keeps.
async fn first_hello(
    brain: &mut Brain,
    news: &mut mpsc::UnboundedReceiver<News>,
) -> Option<Followed> {
    let until = tokio::time::Instant::now() + PLANE_WAIT;
    loop {
        match tokio::time::timeout_at(until, news.recv()).await {
            Ok(Some(News::PlaneIsThere { line, hello })) => {
                return Some(brain.link.connected(line, hello));
            }
            Ok(Some(other)) => brain.early.push(other),
            Ok(None) | Err(_) => return None,
        }
    }
}

async fn hear_keeper(keeper: Keeper, news: mpsc::UnboundedSender<News>) {
    let Ok(line) = keeper.line().try_clone() else { return };
    let Ok(line) = crate::ready::readable(line) else {
        return;
    };
    loop {
        let Ok(mut ready) = line.readable().await else { return };
        // Blocking reads are safe here: there is a whole message, or the end.
        while linux::poll::wait_readable(line.get_ref(), Some(Duration::ZERO)).unwrap_or(false) {
            let Some(word) = keeper.hear() else { continue };
            let gone = word == Word::Gone;
            if news.send(News::Keeper(word)).is_err() || gone {
                return;
            }
        }
        ready.clear_ready();
    }
}

/// How long until that instant.
fn until(deadline: Option<minisup_core::time::Mono>) -> Duration {
    deadline
        .map_or(Duration::from_secs(3600), |at| Duration::from_millis(at.since(clock::now()).ms()))
}
