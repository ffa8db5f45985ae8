//! One more process in a container that runs.
//!
//! ```text
//! creator                 A (outside)                    B (inside)
//!    │ clone3 into cgroup ▶ │ enter all namespaces but PID
//!    │                      │ close everything, lose the host's root
//!    │                      │ enter the PID namespace
//!    │                      │ clone3(CLONE_PARENT) ───────▶ │ a child of the creator
//!    │ ◀──── Born (+ pidfd) │ ends                          │
//!    │ ◀──────────────────────────────────── Ready (+ fds) │
//!    │ Release ───────────────────────────────────────────▶ │ credentials, filter, execve
//! ```
//! Why two: the moment a process is in the container's PID namespace, a process there that holds
//! `CAP_SYS_PTRACE` can take it over. So it must not be there before it has nothing left to take
//! (CVE-2016-9962). What B holds is its standard streams and its end of the line.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use linux::clone::{Birth, Child, spawn};
use linux::namespace::{Kind, Namespaces};
use linux::proc::TrustedProc;
use linux::sched::Processors;
use linux::shared::SharedNumber;
use linux::{
    Errno, OFlag, Pid, credentials, fd, mount, namespace, path, pidfd, prctl, signal, terminal,
};

use super::agent::Agent;
use super::handshake::{Heard, Line, Message};
use super::state::State;
use super::take_off::{TakeOff, drop_power};
use crate::cgroup::{self, Cgroup};
use crate::error::{Cause, Error, Failure, Result};
use crate::explain::Journal;
use crate::plan::Process;
use crate::steps::{Step, handover, limits, resctrl, schedule};

/// What a caller asks for beside the process.
#[derive(Debug)]
pub(crate) struct Options {
    /// How many descriptors after the standard streams the program keeps.
    pub(crate) preserve_fds: u32,
    /// Whether the process dies with us.
    pub(crate) foreground: bool,
}

/// A process that runs in the container.
#[derive(Debug)]
pub(crate) struct Entered {
    pub(crate) child: Child,
    pub(crate) line: Line,
    pub(crate) terminal: Option<OwnedFd>,
}

/// Brings `process` into the container to the point where [`release`] starts its program.
pub(crate) fn enter(
    state: &State,
    init: &OwnedFd,
    cgroup: Option<Cgroup>,
    process: &Process,
    options: &Options,
) -> Result<Entered> {
    let pid = state.init.map_or(0, |init| init.pid);
    let view = View::of(Pid::from_raw(pid)).map_err(Error::kernel("look at the container"))?;
    let (line, inner) = Line::pair().map_err(Error::kernel("make the line"))?;
    let current = SharedNumber::new().map_err(Error::kernel("make the shared page"))?;
    let files = cgroup.as_ref().map(Cgroup::join_files).transpose()?.unwrap_or_default();
    let ignored = signal::ignored();
    let outside = Outside { process, init, view, options, ignored, current, files };
    let first =
        on_first_processors(process, || outside.be_born(cgroup, Pid::from_raw(pid), &inner))?;
    drop(inner);
    let result = meet(line, &first, (process, state.resctrl.as_ref()), current);
    // It has ended by now, one way or the other; if not, nobody waits for it any more.
    if result.is_err() {
        drop(pidfd::signal(&first.pidfd, 9));
    }
    drop(pidfd::wait(&first.pidfd));
    result
}

/// Does the clone where `execCPUAffinity.initial` wants it: a process is born with the processors
/// of its parent.
fn on_first_processors<T>(process: &Process, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(list) = &process.scheduling.first_processors else { return work() };
    let me = Pid::from_raw(0);
    let before = Processors::of(me).map_err(Error::kernel("read our processors"))?;
    schedule::keep_on(me, list).map_err(|cause| at(Step::Confine, "processors", cause))?;
    let result = work();
    before.apply(me).map_err(Error::kernel("take our processors back"))?;
    result
}

/// Lets the program start, and returns when it runs.
pub(crate) fn release(entered: &Entered, agent: Option<&Agent>) -> Result<()> {
    let Entered { line, child, .. } = entered;
    line.say(&Message::Release).map_err(Error::kernel("talk to the process"))?;
    let agent = agent.map(|agent| (agent, child.pidfd.as_fd(), child.pid.as_raw()));
    Ok(super::start::wait_for_program(line, &mut Journal::parent(None), agent)?)
}

fn meet(
    line: Line,
    first: &Child,
    (process, group): (&Process, Option<&resctrl::Group>),
    current: SharedNumber,
) -> Result<Entered> {
    let mut born: Option<Child> = None;
    loop {
        match line.hear() {
            Ok(Heard::Message(Message::Born(pid), fds)) => {
                let pidfd = fds.into_iter().next().ok_or_else(|| lost("no pidfd came", current))?;
                let child = Child { pid: Pid::from_raw(pid), pidfd };
                // From outside: raising a limit may need a capability of the host.
                let limited = limits::set_rlimits(child.pid, &process.rlimits);
                limited.map_err(|cause| at(Step::Limits, "resource limits", cause))?;
                if let Some(score) = process.oom_score_adj {
                    limits::set_oom_score(child.pid, score)
                        .map_err(|cause| at(Step::Limits, "oom_score_adj", cause))?;
                }
                if let Some(group) = group {
                    group.add(child.pid).map_err(|cause| at(Step::Limits, "resctrl", cause))?;
                }
                let scheduling = &process.scheduling;
                schedule::set(child.pid, scheduling)
                    .map_err(|cause| at(Step::Confine, "scheduler and disk priority", cause))?;
                if let Some(list) = &scheduling.last_processors {
                    schedule::keep_on(child.pid, list)
                        .map_err(|cause| at(Step::Confine, "processors", cause))?;
                }
                line.say(&Message::Go(pid)).map_err(Error::kernel("talk to the process"))?;
                born = Some(child);
            }
            Ok(Heard::Message(Message::Ready, fds)) => {
                let terminal = fds.into_iter().next();
                let child = born.ok_or_else(|| lost("it was never born", current))?;
                return Ok(Entered { child, line, terminal });
            }
            Ok(Heard::Message(Message::Failed(failure), _)) => {
                if let Some(child) = born {
                    drop(pidfd::wait(&child.pidfd));
                }
                return Err(failure.into());
            }
            Ok(Heard::Message(..)) => {}
            Ok(Heard::End) => {
                let _ = first;
                return Err(lost("the process died", current).into());
            }
            Err(cause) => return Err(lost(&cause.text, current).into()),
        }
    }
}

fn lost(what: &str, current: SharedNumber) -> Failure {
    let step = Step::from_number(current.get());
    at(Step::Enter, "the container", Cause::new(format!("{what} while at step {}", step.name())))
}

fn at(step: Step, object: &str, cause: Cause) -> Failure {
    let object = object.to_owned();
    Failure { step, object, cause: cause.text, errno: cause.errno, remedy: cause.remedy }
}

/// What there is to enter.
#[derive(Debug)]
struct View {
    /// The namespaces in which the container is not with us.
    namespaces: Namespaces,
    /// Its root, where it shares our mount namespace.
    root: Option<OwnedFd>,
    /// Whether its user namespace allows setgroups(2).
    may_set_groups: bool,
}

impl View {
    fn of(init: Pid) -> linux::Result<Self> {
        let mut namespaces = Namespaces::default();
        for kind in Kind::ALL {
            if !namespace::shared_with(init, kind)? {
                namespaces.insert(kind);
            }
        }
        let root = match namespaces.contains(Kind::Mount) {
            true => None,
            false => {
                let link = format!("/proc/{init}/root");
                Some(path::open(Path::new(&link), OFlag::O_PATH | OFlag::O_DIRECTORY)?)
            }
        };
        let may_set_groups = match namespaces.contains(Kind::User) {
            true => std::fs::read_to_string(format!("/proc/{init}/setgroups"))
                .map_or(true, |text| text.trim() != "deny"),
            false => true,
        };
        Ok(Self { namespaces, root, may_set_groups })
    }
}

/// The kernel's answers about a group that has controllers for its children, or is threaded.
fn is_divided(errno: Errno) -> bool {
    matches!(errno, Errno::EBUSY | Errno::EOPNOTSUPP)
}

/// The process outside the PID namespace, A.
struct Outside<'a> {
    process: &'a Process,
    init: &'a OwnedFd,
    view: View,
    options: &'a Options,
    ignored: signal::Set,
    current: SharedNumber,
    files: Vec<OwnedFd>,
}

impl Outside<'_> {
    /// Clones A into the container's group; where the container has divided that group, and nobody
    /// can be born in it any more, beside its init.
    fn be_born(&self, cgroup: Option<Cgroup>, init: Pid, line: &Line) -> Result<Child> {
        let born = |cgroup: Option<&Cgroup>| {
            let birth = Birth { cgroup: cgroup.map(Cgroup::birth_fd), ..Birth::default() };
            spawn(birth, || self.run(line))
        };
        let made = match (born(cgroup.as_ref()), cgroup) {
            (Err(error), Some(cgroup)) if is_divided(error.errno) => {
                born(Some(&cgroup.leaf_of(init)?))
            }
            (made, _) => made,
        };
        made.map_err(Error::kernel("clone a process into the container"))
    }

    fn run(&self, line: &Line) -> i32 {
        match self.enter_and_clone(line) {
            Ok(()) => 0,
            Err(failure) => {
                drop(line.say(&Message::Failed(failure)));
                1
            }
        }
    }

    fn enter_and_clone(&self, line: &Line) -> Result<(), Failure> {
        let mut journal = Journal::init(line, self.current);
        journal.step(Step::Settle, || "in its cgroup".into(), || self.settle(line))?;
        let proc = self.needs_proc().then(TrustedProc::mount);
        let container = || "the container's namespaces".into();
        journal.step(Step::Enter, container, || self.enter())?;
        let inside = || self.clone_inside(line, proc);
        let child = journal.step(Step::Clone, || "the process".into(), inside)?;
        let pid = child.pid.as_raw();
        journal.step(
            Step::Enter,
            || "(hand over)".into(),
            || line.say_with(&Message::Born(pid), &[child.pidfd.as_fd()]),
        )
    }

    fn settle(&self, line: &Line) -> Result<(), Cause> {
        let mut keep: Vec<i32> = self.files.iter().map(AsRawFd::as_raw_fd).collect();
        keep.extend([line.as_fd().as_raw_fd(), self.init.as_raw_fd()]);
        keep.extend(self.view.root.iter().map(AsRawFd::as_raw_fd));
        keep.extend((3..).take(self.options.preserve_fds.try_into().unwrap_or(0)));
        fd::close_all_but(&keep)?;
        cgroup::join(&self.files)?;
        prctl::die_with_parent(true)?;
        prctl::set_undumpable()?;
        Ok(())
    }

    /// Enters everything but the PID namespace, in one call where the kernel keeps the right order.
    fn enter(&self) -> Result<(), Cause> {
        let mut first = self.view.namespaces;
        first.remove(Kind::Pid);
        if first != Namespaces::default() {
            namespace::enter_all(self.init.as_fd(), first)?;
        }
        if let Some(root) = &self.view.root {
            mount::enter_directory(root.as_fd())?;
            mount::change_root_to_current_directory()?;
        }
        if self.view.namespaces.contains(Kind::User) {
            if self.view.may_set_groups {
                credentials::set_groups(&[])?;
            }
            credentials::set_group(0)?;
            credentials::set_user(0)?;
            // A change of user makes a process dumpable again, and forgets the parent's death.
            prctl::die_with_parent(true)?;
            prctl::set_undumpable()?;
        }
        Ok(())
    }

    /// Whether the process writes a label to a file of its own in /proc.
    ///
    /// A /proc is mounted for that before the namespaces are entered: it shows the wrong processes,
    /// and `self` is whoever looks all the same. In a user namespace the kernel allows no new /proc
    /// beside one of which parts are hidden, and every engine hides some.
    fn needs_proc(&self) -> bool {
        self.process.apparmor.is_some() || self.process.selinux.is_some()
    }

    fn clone_inside(
        &self,
        line: &Line,
        proc: Option<linux::Result<TrustedProc>>,
    ) -> Result<Child, Cause> {
        // A user may mount one only inside.
        let proc = proc.map(|outside| outside.or_else(|_| TrustedProc::mount())).transpose()?;
        if self.view.namespaces.contains(Kind::Pid) {
            namespace::enter(self.init.as_fd(), Kind::Pid)?;
        }
        let birth = Birth { sibling: true, ..Birth::default() };
        Ok(spawn(birth, || self.become_process(line, proc))?)
    }

    /// The process inside, B.
    fn become_process(&self, line: &Line, proc: Option<TrustedProc>) -> i32 {
        let mut journal = Journal::init(line, self.current);
        let failure = match self.build(&mut journal, line, proc.as_ref()) {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        drop(line.say(&Message::Failed(failure)));
        1
    }

    fn build(
        &self,
        journal: &mut Journal<'_>,
        line: &Line,
        proc: Option<&TrustedProc>,
    ) -> Result<std::convert::Infallible, Failure> {
        let process = self.process;
        let settle = || -> Result<(), Cause> {
            prctl::die_with_parent(true)?;
            prctl::set_undumpable()?;
            terminal::start_session()?;
            match line.hear()? {
                Heard::Message(Message::Go(_), _) => Ok(()),
                _ => Err(Cause::new("the caller is gone")),
            }
        };
        journal.step(Step::Enter, || "a session".into(), settle)?;
        let master = match process.terminal {
            true => Some(journal.step(
                Step::Terminal,
                || "for the process".into(),
                || crate::steps::terminal::open_here(process.terminal_size, process.user.user),
            )?),
            false => None,
        };
        if master.is_none() && process.user.user != 0 {
            super::streams::give_to(process.user.user);
        }
        let name = || format!("`{}`", process.arguments.first().map_or("", String::as_str));
        let program = journal.step(Step::Handover, name, || handover::find_program(process))?;
        let wait = || -> Result<(), Cause> {
            let master: Vec<_> = master.iter().map(AsFd::as_fd).collect();
            line.say_with(&Message::Ready, &master)?;
            match line.hear()? {
                Heard::Message(Message::Release, _) => Ok(()),
                _ => Err(Cause::new("the caller is gone")),
            }
        };
        journal.step(Step::Handover, || "(ready)".into(), wait)?;
        if !self.options.foreground {
            let alone = || prctl::die_with_parent(false);
            journal.step(Step::Handover, || "(on its own)".into(), alone)?;
        }
        drop_power(
            journal,
            &TakeOff {
                process,
                proc,
                may_set_groups: self.view.may_set_groups,
                dies_with_parent: self.options.foreground,
                preserved: self.options.preserve_fds,
                ignored: self.ignored,
                program,
            },
            line,
        )
    }
}
