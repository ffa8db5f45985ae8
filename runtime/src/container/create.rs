//! The parent's side: how a container comes to be.
//!
//! [`create`] is the table of contents. While init builds the inside, the parent writes the limits;
//! the two meet at the messages of [`super::handshake`]. Whatever fails, [`super::cleanup`] undoes
//! all of it, and what a crash leaves behind is in the state file already.

use std::os::fd::OwnedFd;
use std::path::Path;

use linux::clone::{Birth, Child};
use linux::namespace::Kind;
use linux::shared::SharedNumber;
use linux::{pidfd, signal, socket};

use super::agent::Agent;
use super::group::{Manager, Wanted};
use super::handshake::{Heard, Line, Message};
use super::inside::Inside;
use super::receivers::{send_descriptor, send_terminal, write_pid_file};
use super::state::{Home, Init, Lock, State, Status};
use super::{birth, cleanup, readiness, start};
use crate::cgroup::{self, Cgroup};
use crate::error::{Cause, Error, Failure, Result};
use crate::explain::Journal;
use crate::plan::Plan;
use crate::steps::cgroup_view::View;
use crate::steps::network::Namespaces;
use crate::steps::{
    Step, hooks, identity_map, limits, namespaces, netdev, owners, resctrl, rootfs, schedule,
};

/// The name of the socket that init listens on until it is started.
pub(crate) const START_SOCKET: &str = "start.socket";

/// What a caller asks for beside the configuration.
#[derive(Debug)]
pub(crate) struct Options<'a> {
    /// The container's directory: new, and nobody's but ours.
    pub(crate) home: Home,
    /// The bytes of config.json, kept with the container.
    pub(crate) config: &'a [u8],
    /// Files that are mounted into the container, by name: kept beside the state, and readable for
    /// everybody inside.
    pub(crate) files: &'a [(&'static str, String)],
    /// Whether `start` is a command of its own.
    pub(crate) wait_for_start: bool,
    /// Whether the container dies with its creator.
    pub(crate) foreground: bool,
    /// A socket that gets the terminal's master.
    pub(crate) console_socket: Option<&'a Path>,
    /// A socket that gets a pidfd of init.
    pub(crate) pidfd_socket: Option<&'a Path>,
    /// A file that gets init's number.
    pub(crate) pid_file: Option<&'a Path>,
    /// Use chroot(2) where pivot_root(2) does not work (a root on an initramfs).
    pub(crate) no_pivot: bool,
    /// Leave the session keyring as it is.
    pub(crate) no_new_keyring: bool,
    /// How many descriptors after the standard streams the program keeps.
    pub(crate) preserve_fds: u32,
    /// Who makes the container's cgroup.
    pub(crate) manager: Manager,
    /// Whether its namespaces are kept open for a program that connects it.
    pub(crate) keep_namespaces: bool,
}

/// A container whose init is ready.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) home: Home,
    pub(crate) lock: Lock,
    pub(crate) state: State,
    pub(crate) child: Child,
    pub(crate) line: Line,
    pub(crate) terminal: Option<OwnedFd>,
    pub(crate) cgroup: Option<Cgroup>,
    pub(crate) warnings: Vec<String>,
    pub(crate) namespaces: Option<Namespaces>,
}

/// Makes a container up to the moment where its program could start. On failure nothing is left.
pub(crate) fn create(
    plan: &Plan,
    options: &Options<'_>,
    journal: &mut Journal<'_>,
) -> Result<Created> {
    let home = options.home.clone();
    let lock = match home.lock_first()? {
        Some(lock) => lock,
        None => {
            let lock = home.lock_anew()?;
            // If ours was deleted before we had locked it, this is another's.
            home.load()?.map_or(Ok(()), |_| Err(Error::AlreadyExists(plan.id.clone())))?;
            lock
        }
    };
    let mut half =
        Half { plan, options, home, state: None, cgroup: None, child: None, namespaces: None };
    match half.make(journal) {
        Ok((line, terminal, warnings)) => match (half.state, half.child) {
            (Some(state), Some(child)) => Ok(Created {
                home: half.home,
                lock,
                state,
                child,
                line,
                terminal,
                cgroup: half.cgroup,
                warnings,
                namespaces: half.namespaces,
            }),
            _ => Err(Error::WrongState("created without a process".into())),
        },
        Err(error) => {
            // The first error is the one that matters; what could not be removed stays in the
            // state, for `delete --force`.
            if let Some(child) = &half.child {
                drop(pidfd::signal(&child.pidfd, 9));
                drop(pidfd::wait(&child.pidfd));
            }
            if let (Some(state), true) = (&half.state, plan.has_early_hooks()) {
                // What the first hooks have set up, the last ones take away. This error is told,
                // and theirs would hide it.
                drop(start::run_hooks(&half.home, state, "poststop", Status::Stopped));
            }
            drop(cleanup::remove(&half.home, half.state.as_ref(), half.cgroup));
            Err(error)
        }
    }
}

/// A container in the making.
struct Half<'a> {
    plan: &'a Plan,
    options: &'a Options<'a>,
    home: Home,
    state: Option<State>,
    cgroup: Option<Cgroup>,
    child: Option<Child>,
    namespaces: Option<Namespaces>,
}

type Made = (Line, Option<OwnedFd>, Vec<String>);

impl Half<'_> {
    fn make(&mut self, journal: &mut Journal<'_>) -> Result<Made> {
        let plan = self.plan;
        let wanted = Wanted::decide(self.options.manager, plan)?;
        let what = || format!("state in {}", self.home.path().display());
        let record = wanted.as_ref().map(|wanted| wanted.record.clone());
        let group = resctrl_group(journal, plan)?;
        let state = journal.step(Step::Record, what, || self.record(record, group))?;
        self.state = Some(state);
        if let Some(wanted) = &wanted {
            let made = journal.step(Step::Cgroup, || shown_path(wanted), || wanted.make())?;
            self.own(made);
        }
        if let Some(overlay) = plan.rootfs.overlay.as_ref().filter(|o| o.writable.is_some()) {
            let what = || "(writable layer)".into();
            journal.step(Step::Rootfs, what, || rootfs::make_writable_layer(overlay))?;
        }
        let (line, current) = self.clone_init(journal, wanted.as_ref())?;
        let mut talk = Talk { line, current, terminal: None, warnings: Vec::new() };
        self.limit(journal, &talk)?;
        if plan.has_early_hooks() {
            talk.wait_for(journal, &Message::Mounted).map_err(|f| self.blame(f))?;
            self.hooks_outside(journal)?;
            let pid = self.child.as_ref().map_or(0, |child| child.pid.as_raw());
            talk.line.say(&Message::Go(pid)).map_err(Error::kernel("talk to init"))?;
        }
        talk.wait_for(journal, &Message::Ready).map_err(|f| self.blame(f))?;
        self.limit_process(journal)?;
        self.schedule(journal)?;
        self.hand_out(&mut talk)?;
        Ok((talk.line, talk.terminal, talk.warnings))
    }

    /// Writes down what is going to exist.
    fn record(
        &self,
        cgroup: Option<cgroup::Record>,
        resctrl: Option<resctrl::Group>,
    ) -> Result<State, Cause> {
        let plan = self.plan;
        let mut state = State::new(&plan.id, &plan.bundle, &plan.rootfs.path);
        state.cgroup = cgroup;
        state.writable = plan.rootfs.overlay.as_ref().and_then(|o| o.writable.clone());
        state.late_hooks =
            !plan.hooks_of("poststart").is_empty() || !plan.hooks_of("poststop").is_empty();
        state.annotations = plan.annotations.clone();
        state.resctrl = resctrl;
        state.dies_with_parent = self.options.foreground;
        state.agent = plan.process.listener().map(|listener| Agent::new(listener, &state));
        self.home.write_first("config.json", self.options.config)?;
        for (name, text) in self.options.files {
            self.home.write_for_all(name, text.as_bytes())?;
        }
        if plan.notifies {
            readiness::make_directory(&self.home)?;
        }
        self.home.save(&state)?;
        Ok(state)
    }

    /// From here on what is in the group is ours to kill: written down with the next save.
    fn own(&mut self, made: Option<Cgroup>) {
        if let (Some(state), Some(made)) = (&mut self.state, &made) {
            state.cgroup = Some(made.record().clone());
        }
        self.cgroup = made;
    }

    fn clone_init(
        &mut self,
        journal: &mut Journal<'_>,
        wanted: Option<&Wanted>,
    ) -> Result<(Line, SharedNumber)> {
        let plan = self.plan;
        let joined = match plan.namespaces.join.is_empty() {
            true => Vec::new(),
            false => journal.step(
                Step::Namespaces,
                || "existing namespaces (open)".into(),
                || namespaces::open(&plan.namespaces),
            )?,
        };
        let mapped = owners::Taken::of(journal, plan, &joined)?;
        let failed = |what: &'static str| Error::kernel(what);
        let (line, inner) = Line::pair().map_err(failed("make the line to init"))?;
        let current = SharedNumber::new().map_err(failed("make the shared page"))?;
        let listener = match self.options.wait_for_start {
            true => Some(self.listen().map_err(failed("make the start socket"))?),
            false => None,
        };
        let cgroup_files = match &self.cgroup {
            Some(cgroup) => cgroup.join_files()?,
            None => Vec::new(),
        };
        // Without a group of its own it sees that of its creator, as the root where it has a
        // cgroup namespace.
        let mut view = cgroup::Host::get()?.map_or_else(View::none, |host| {
            let record = wanted.map(|wanted| &wanted.record);
            View::new(host, record, plan.namespaces.has(Kind::Cgroup))
        });
        view.born_inside &= !wanted.is_some_and(Wanted::needs_process);
        let mut new = plan.namespaces.new;
        // Made later: the clocks are set first; and on v1 the groups are entered first.
        new.remove(Kind::Time);
        if !view.born_inside {
            new.remove(Kind::Cgroup);
        }
        let inside = Inside {
            plan,
            listener,
            joined,
            cgroup_files,
            cgroups: view,
            waits: waits(plan, wanted),
            mapped: mapped.fds,
            mapped_root: mapped.root,
            may_set_groups: plan.identity_map.as_ref().is_none_or(|map| !map.deny_setgroups),
            current,
            foreground: self.options.foreground,
            preserved: self.options.preserve_fds,
            ignored: signal::ignored(),
            new_keyring: !self.options.no_new_keyring,
            pivot: !self.options.no_pivot,
            may_make_devices: !plan.namespaces.has(Kind::User),
        };
        let birth_fd = self.cgroup.as_ref().map(Cgroup::birth_fd);
        let birth = Birth { namespaces: new, cgroup: birth_fd, sibling: false };
        let child = journal.step(
            Step::Clone,
            || format!("init of {}", plan.id),
            || birth::of_init(birth, inside, inner, &line),
        )?;
        // Kept before the first thing that can fail, so that it is ended.
        self.child = Some(child);
        self.let_it_begin(journal, wanted, &line)?;
        Ok((line, current))
    }

    /// What init waits for, if it does: its users, and its place in the cgroup of systemd.
    fn let_it_begin(
        &mut self,
        journal: &mut Journal<'_>,
        wanted: Option<&Wanted>,
        line: &Line,
    ) -> Result<()> {
        let plan = self.plan;
        let Some(pid) = self.child.as_ref().map(|child| child.pid) else { return Ok(()) };
        let wanted = wanted.filter(|wanted| wanted.needs_process());
        if let Some(map) = &plan.identity_map {
            let ranges =
                || format!("{} user and {} group ranges", map.users.len(), map.groups.len());
            journal.step(Step::IdentityMap, ranges, || identity_map::write(map, pid))?;
            if self.options.keep_namespaces {
                let what = || "its user and network namespaces".into();
                let open = || Namespaces::of(pid);
                self.namespaces = Some(journal.step(Step::Network, what, open)?);
            }
        }
        if let Some(wanted) = wanted {
            let start = || wanted.start(pid, &plan.resources);
            let made = journal.step(Step::Cgroup, || shown_path(wanted), start)?;
            self.own(made);
        }
        if waits(plan, wanted) {
            line.say(&Message::Mapped).map_err(Error::kernel("talk to init"))?;
        }
        Ok(())
    }

    fn listen(&self) -> linux::Result<OwnedFd> {
        socket::listen_in(self.home.path(), START_SOCKET)
    }

    /// Everything that is set from outside, while init is busy inside.
    fn limit(&mut self, journal: &mut Journal<'_>, talk: &Talk) -> Result<()> {
        let Some(child) = &self.child else { return Ok(()) };
        let (plan, pid) = (self.plan, child.pid);
        if let Some(cgroup) = &mut self.cgroup {
            let what = || shown_limits(plan);
            journal.step(Step::Limits, what, || cgroup.apply(&plan.resources))?;
            if let Some((user, group)) = plan.owner_of_groups() {
                let what = || format!("groups below it to user {user}");
                journal.step(Step::Limits, what, || cgroup.give_to(user, group))?;
            }
        }
        if !plan.net_devices.is_empty() {
            let names: Vec<&str> = plan.net_devices.keys().map(String::as_str).collect();
            let what = || format!("{} of the host", names.join(", "));
            let set = || netdev::move_all(&plan.net_devices, &plan.namespaces, pid);
            journal.step(Step::Network, what, set)?;
        }
        if let (Some(wanted), Some(group)) =
            (&plan.resctrl, self.state.as_ref().and_then(|state| state.resctrl.as_ref()))
        {
            journal.step(Step::Limits, resctrl::shown, || {
                group.make(&wanted.schemata).and_then(|()| group.add(pid))
            })?;
        }
        let process = &plan.process;
        if let Some(score) = process.oom_score_adj {
            let what = || format!("oom_score_adj {score}");
            let set = || limits::set_oom_score(pid, score);
            // An init that is gone already has something better to say.
            journal.step(Step::Limits, what, set).or_else(|failure| talk.excuse(failure))?;
        }
        Ok(())
    }

    /// What init itself may use: set when it is built, because building takes more open files than
    /// a program may be allowed.
    fn limit_process(&self, journal: &mut Journal<'_>) -> Result<()> {
        let rlimits = &self.plan.process.rlimits;
        let Some(child) = self.child.as_ref().filter(|_| !rlimits.is_empty()) else {
            return Ok(());
        };
        let what = || format!("what one process may use ({} rlimits)", rlimits.len());
        Ok(journal.step(Step::Limits, what, || limits::set_rlimits(child.pid, rlimits))?)
    }

    /// How init is scheduled: set when nothing else is left to do, because a real-time process may
    /// not join every group.
    fn schedule(&self, journal: &mut Journal<'_>) -> Result<()> {
        let scheduling = &self.plan.process.scheduling;
        let Some(child) = self.child.as_ref().filter(|_| schedule::is_asked(scheduling)) else {
            return Ok(());
        };
        let what = || "scheduler and disk priority".into();
        Ok(journal.step(Step::Confine, what, || schedule::set(child.pid, scheduling))?)
    }

    fn hooks_outside(&self, journal: &mut Journal<'_>) -> Result<()> {
        let pid = self.child.as_ref().map_or(0, |child| child.pid.as_raw());
        let state = self.plan.hook_state("creating", pid);
        hooks::keep_descriptors_from_hooks()?;
        for moment in ["prestart", "createRuntime"] {
            for hook in self.plan.hooks_of(moment) {
                let name = || format!("{moment} {}", hook.path().display());
                journal.step(Step::Hooks, name, || hooks::run(hook, &state, &self.plan.bundle))?;
            }
        }
        Ok(())
    }

    /// Records the process, and gives the callers what they asked for.
    fn hand_out(&mut self, talk: &mut Talk) -> Result<()> {
        let (Some(child), Some(state)) = (&self.child, &mut self.state) else { return Ok(()) };
        state.init = Some(Init::of(child.pid, &child.pidfd)?);
        self.home.save(state)?;
        if let Some(file) = self.options.pid_file {
            write_pid_file(file, child.pid.as_raw())?;
        }
        if let (Some(path), Some(master)) = (self.options.console_socket, &talk.terminal) {
            send_terminal(path, master)?;
            talk.terminal = None;
        }
        if let Some(path) = self.options.pidfd_socket {
            send_descriptor(path, b"standard", &child.pidfd, "--pidfd-socket")?;
        }
        Ok(())
    }

    /// A failure with what the kernel may have had to do with it.
    fn blame(&self, failure: Failure) -> Failure {
        match self.cgroup.as_ref().and_then(Cgroup::oom_if_any) {
            Some(oom) => Failure {
                cause: "init was killed: the memory limit is too small to build the container"
                    .into(),
                remedy: oom
                    .limit_bytes
                    .map(|limit| format!("the limit is {}: raise it", crate::report::bytes(limit))),
                ..failure
            },
            None => failure,
        }
    }
}

/// The creator's side of the conversation.
struct Talk {
    line: Line,
    current: SharedNumber,
    terminal: Option<OwnedFd>,
    warnings: Vec<String>,
}

impl Talk {
    /// Listens until init says `awaited`.
    fn wait_for(&mut self, journal: &mut Journal<'_>, awaited: &Message) -> Result<(), Failure> {
        loop {
            match self.line.hear() {
                Ok(Heard::Message(message, fds)) => match message {
                    Message::Told(record) => journal.tell(record),
                    Message::Warn(text) => self.warnings.push(text),
                    Message::Failed(failure) => return Err(failure),
                    message if message == *awaited => {
                        self.terminal = fds.into_iter().next();
                        return Ok(());
                    }
                    other => return Err(self.lost(&format!("init said {other:?} out of turn"))),
                },
                Ok(Heard::End) => return Err(self.lost("init died")),
                Err(cause) => return Err(self.lost(&cause.text)),
            }
        }
    }

    fn lost(&self, what: &str) -> Failure {
        let step = Step::from_number(self.current.get());
        Failure {
            step: Step::Clone,
            object: "init".into(),
            cause: format!("{what} while at step {}", step.name()),
            errno: 0,
            remedy: None,
        }
    }

    /// If init has failed meanwhile, its own message tells more than our missing process.
    fn excuse(&self, failure: Failure) -> Result<(), Failure> {
        if failure.errno == linux::Errno::ESRCH as i32 { Ok(()) } else { Err(failure) }
    }
}

/// Whether init waits to be let on.
fn waits(plan: &Plan, wanted: Option<&Wanted>) -> bool {
    plan.identity_map.is_some()
        || plan.namespaces.joins(Kind::User)
        || wanted.is_some_and(Wanted::needs_process)
}

/// The group in the resctrl file system that the configuration asks for.
pub(super) fn resctrl_group(
    journal: &mut Journal<'_>,
    plan: &Plan,
) -> Result<Option<resctrl::Group>, Failure> {
    let Some(wanted) = &plan.resctrl else { return Ok(None) };
    journal
        .quietly(Step::Limits, resctrl::shown, || {
            resctrl::Group::decide(wanted, &plan.id, &resctrl::here()?)
        })
        .map(Some)
}

fn shown_path(wanted: &Wanted) -> String {
    Path::new("/").join(&wanted.record.path).display().to_string()
}

fn shown_limits(plan: &Plan) -> String {
    let memory = plan.resources.memory().as_ref().and_then(|memory| memory.limit());
    match memory.and_then(|limit| u64::try_from(limit).ok()) {
        Some(limit) => {
            format!("memory to {} and the rest as configured", crate::report::bytes(limit))
        }
        None => "resources as configured".into(),
    }
}
