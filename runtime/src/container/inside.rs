//! The child's side: how a process makes itself a container.
//!
//! [`Inside::build`] is the table of contents. The order is the security: what may be seen and done
//! becomes less with each line, and each line needs what the next ones take away.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use linux::namespace::{Kind, Namespaces};
use linux::path::Root;
use linux::proc::TrustedProc;
use linux::shared::SharedNumber;
use linux::{fd, namespace, poll, prctl, signal, terminal};

use super::handshake::{Heard, Line, Message};
use super::take_off::{TakeOff, drop_power, shown_program};
use crate::cgroup;
use crate::error::{Cause, Failure};
use crate::explain::Journal;
use crate::plan::Plan;
use crate::steps::cgroup_view::View;
use crate::steps::namespaces::Opened;
use crate::steps::pivot::OldRoot;
use crate::steps::{
    Step, confine, devices, handover, hide, hooks, identity, identity_map, mounts, namespaces,
    pivot, rootfs, schedule,
};

/// Everything that init takes with it from its creator.
pub(crate) struct Inside<'a> {
    pub(crate) plan: &'a Plan,
    /// Where `start` will call; `None` for `run`.
    pub(crate) listener: Option<OwnedFd>,
    /// Existing namespaces to enter.
    pub(crate) joined: Opened,
    /// v1 cgroups to enter: a thread that moves only itself does not wait for anybody.
    pub(crate) cgroup_files: Vec<OwnedFd>,
    /// What the container will see of the cgroup tree.
    pub(crate) cgroups: View,
    /// Whether init waits for its creator first: to map its users, or to have it put into a cgroup.
    pub(crate) waits: bool,
    /// Sources of mounts whose file owners are mapped, one place for each mount.
    pub(crate) mapped: Vec<Option<OwnedFd>>,
    /// The root file system, where its file owners are mapped.
    pub(crate) mapped_root: Option<OwnedFd>,
    /// Whether the user namespace allows setgroups(2).
    pub(crate) may_set_groups: bool,
    /// Where init writes what it is doing.
    pub(crate) current: SharedNumber,
    /// Whether init dies with its creator even after its start.
    pub(crate) foreground: bool,
    /// How many descriptors after the standard streams the program keeps.
    pub(crate) preserved: u32,
    /// Signals that the creator ignores, and init with it.
    pub(crate) ignored: signal::Set,
    /// Whether the container gets a session keyring of its own.
    pub(crate) new_keyring: bool,
    /// Whether the root is changed by pivot_root(2).
    pub(crate) pivot: bool,
    /// Whether we are privileged over the host, so that device nodes can be made.
    pub(crate) may_make_devices: bool,
}

/// What `build` hands to `finish`.
struct Built {
    program: PathBuf,
    proc: Option<TrustedProc>,
    old_root: Option<OldRoot>,
    /// Init's number as its creator sees it, for hooks; 0 without hooks.
    pid: i32,
}

impl Inside<'_> {
    /// Becomes the container, talking to its creator over `line`. Returns the exit status of a
    /// failure; success does not return.
    pub(crate) fn run(mut self, line: Line) -> i32 {
        let built = self.build(&mut Journal::init(&line, self.current), &line);
        let built = match built {
            Ok(built) => built,
            Err(failure) => return give_up(&line, failure),
        };
        match self.wait_for_start(line, built) {
            Ok(Some((line, built))) => {
                let failure = self.finish(&mut Journal::init(&line, self.current), built, &line);
                give_up(&line, failure)
            }
            // Whoever held the other end is gone before it gave the word, or was told.
            Ok(None) | Err(_) => 1,
        }
    }

    fn build(&mut self, journal: &mut Journal<'_>, line: &Line) -> Result<Built, Failure> {
        let plan = self.plan;
        let new = plan.namespaces.new;
        journal.step(Step::Settle, || "in its cgroup and session".into(), || self.settle(line))?;
        if !self.joined.is_empty() {
            let list = || shown_kinds(self.joined.iter().map(|(kind, _)| *kind));
            journal.step(Step::Namespaces, list, || namespaces::enter(&self.joined))?;
        }
        let zero = || "user and group 0 inside".into();
        if let Some(map) = &plan.identity_map {
            journal.step(Step::IdentityMap, zero, || identity_map::become_root_inside(map))?;
        } else if plan.namespaces.joins(Kind::User) {
            self.may_set_groups =
                journal.step(Step::IdentityMap, zero, identity_map::become_root_of_existing)?;
        }
        if new.contains(Kind::Time) {
            let time = || "time namespace".into();
            journal.step(Step::Namespaces, time, || namespaces::set_clocks(&plan.namespaces))?;
        }
        let root = self.build_root(journal)?;
        let pid = self.hooks_before_pivot(journal, line)?;
        self.name_and_parameters(journal)?;
        let proc = self.trusted_proc(journal)?;
        let terminal = self.terminal(journal, &root)?;
        if plan.rootfs.read_only && self.has_mount_namespace() {
            journal.step(Step::Rootfs, || "read-only".into(), || rootfs::make_read_only(&root))?;
        }
        let old_root = self.change_root(journal, &root)?;
        root.close();
        let program = journal.quietly(
            Step::Handover,
            || shown_program(&plan.process),
            || handover::find_program(&plan.process),
        )?;
        let master: Vec<_> = terminal.iter().map(AsFd::as_fd).collect();
        journal.quietly(
            Step::Handover,
            || "(ready)".into(),
            || line.say_with(&Message::Ready, &master),
        )?;
        Ok(Built { program, proc, old_root, pid })
    }

    /// The first acts of a new process: its cgroup, its ties to its creator, its session.
    fn settle(&mut self, line: &Line) -> Result<(), Cause> {
        let files = std::mem::take(&mut self.cgroup_files);
        cgroup::join(&files)?;
        fd::close_together(files);
        prctl::die_with_parent(true)?;
        terminal::start_session()?;
        // With a user namespace not yet: the files of a process that may not be dumped belong to
        // root, and an unprivileged creator could not write the maps. Until they are written,
        // nobody has any power in the new user namespace.
        let is_mapped_later = self.plan.identity_map.is_some();
        if !is_mapped_later {
            prctl::set_undumpable()?;
        }
        if self.waits {
            match line.hear()? {
                Heard::Message(Message::Mapped, _) => {}
                _ => return Err(Cause::new("the creator is gone")),
            }
        } else if poll_hung_up(line)? {
            // It died before we asked to die with it.
            return Err(Cause::new("the creator is gone"));
        }
        if is_mapped_later {
            prctl::set_undumpable()?;
        }
        let new = self.plan.namespaces.new;
        if new.contains(Kind::Cgroup) && !self.cgroups.born_inside {
            namespace::unshare(Namespaces::from_iter([Kind::Cgroup]))?;
        }
        Ok(())
    }

    fn has_mount_namespace(&self) -> bool {
        self.plan.namespaces.has(Kind::Mount)
    }

    /// The file system that the container will see, in place but not yet its root.
    fn build_root(&mut self, journal: &mut Journal<'_>) -> Result<Root, Failure> {
        let plan = self.plan;
        let path = || plan.rootfs.path.display().to_string();
        if !self.has_mount_namespace() {
            return journal.step(Step::Rootfs, path, || Root::open(&plan.rootfs.path));
        }
        let in_user_namespace = plan.namespaces.has(Kind::User);
        let taken = match plan.mounts.iter().any(mounts::is_shared) {
            true => journal.step(
                Step::Mounts,
                || "(take shared sources)".into(),
                || mounts::take_shared(&plan.mounts),
            )?,
            false => Vec::new(),
        };
        let taken = taken.into_iter().chain(std::iter::repeat_with(|| None));
        let mapped = std::mem::take(&mut self.mapped).into_iter();
        let mapped = mapped.chain(std::iter::repeat_with(|| None));
        let taken = taken.zip(mapped).map(|(taken, mapped)| mapped.or(taken));
        let made = self.mapped_root.take();
        let attach = || rootfs::attach(&plan.rootfs, made, in_user_namespace);
        let root = journal.step(Step::Rootfs, path, attach)?;
        for (mount, taken) in plan.mounts.iter().zip(taken) {
            let what = || mount.to_string();
            journal.step(Step::Mounts, what, || {
                mounts::mount_one(&root, mount, taken, &self.cgroups)
            })?;
        }
        self.fill_dev(journal, &root)?;
        let masked = || format!("{} paths from being seen", plan.masked.len());
        journal.step(Step::Hide, masked, || hide::mask(&root, &plan.masked))?;
        let read_only = || format!("{} paths from writing", plan.read_only.len());
        journal.step(Step::Hide, read_only, || hide::make_read_only(&root, &plan.read_only))?;
        let cwd = &plan.process.working_directory;
        if cwd != "/" {
            let what = || format!("working directory {}", cwd.display());
            journal.step(Step::Rootfs, what, || handover::make_working_directory(&root, cwd))?;
        }
        Ok(root)
    }

    fn fill_dev(&self, journal: &mut Journal<'_>, root: &Root) -> Result<(), Failure> {
        let may_make = self.may_make_devices;
        // A /dev of the host, bound as it is, has everything and is not ours to change.
        if !self.plan.binds("/dev") {
            let names = || "null zero full random urandom tty, links".into();
            journal.step(Step::Devices, names, || devices::make_default(root, may_make))?;
        }
        for device in &self.plan.devices {
            let name = || device.path.display().to_string();
            journal.step(Step::Devices, name, || devices::make_one(root, device, may_make))?;
        }
        Ok(())
    }

    /// Hooks that want to see the mounts and not yet the new root. Gives init's number outside.
    fn hooks_before_pivot(&self, journal: &mut Journal<'_>, line: &Line) -> Result<i32, Failure> {
        if !self.plan.has_early_hooks() {
            return Ok(0);
        }
        let pid = journal.step(
            Step::Hooks,
            || "prestart, createRuntime".into(),
            || {
                line.say(&Message::Mounted).map_err(Cause::from)?;
                match line.hear()? {
                    Heard::Message(Message::Go(pid), _) => Ok(pid),
                    _ => Err(Cause::new("the creator is gone")),
                }
            },
        )?;
        self.run_hooks(journal, "createContainer", "creating", pid)?;
        Ok(pid)
    }

    fn run_hooks(
        &self,
        journal: &mut Journal<'_>,
        moment: &str,
        status: &str,
        pid: i32,
    ) -> Result<(), Failure> {
        let state = self.plan.hook_state(status, pid);
        for hook in self.plan.hooks_of(moment) {
            let name = || format!("{moment} {}", hook.path().display());
            let directory =
                if moment == "startContainer" { "/".as_ref() } else { self.plan.bundle.as_path() };
            journal.step(Step::Hooks, name, || hooks::run(hook, &state, directory))?;
        }
        Ok(())
    }

    fn name_and_parameters(&self, journal: &mut Journal<'_>) -> Result<(), Failure> {
        let plan = self.plan;
        let (host, domain) = (plan.host_name.as_deref(), plan.domain_name.as_deref());
        if host.is_some() || domain.is_some() {
            let name = || format!("host name {}", host.or(domain).unwrap_or_default());
            journal.step(Step::Identity, name, || identity::set_names(host, domain))?;
        }
        if plan.namespaces.new.contains(Kind::Network) {
            let up = || "loopback interface up".into();
            journal.step(Step::Identity, up, identity::bring_loopback_up)?;
        }
        Ok(())
    }

    /// A procfs that no image has touched, where something must be written to it.
    fn trusted_proc(&self, journal: &mut Journal<'_>) -> Result<Option<TrustedProc>, Failure> {
        let plan = self.plan;
        let labels = plan.process.apparmor.is_some() || plan.process.selinux.is_some();
        if plan.sysctl.is_empty() && !labels {
            return Ok(None);
        }
        let names = || plan.sysctl.keys().cloned().collect::<Vec<_>>().join(", ");
        let proc = journal.step(
            Step::Identity,
            || format!("parameters {}", names()),
            || {
                let proc = TrustedProc::mount()?;
                identity::set_parameters(&proc, &plan.sysctl)?;
                Ok::<_, Cause>(proc)
            },
        )?;
        Ok(labels.then_some(proc))
    }

    fn terminal(&self, journal: &mut Journal<'_>, root: &Root) -> Result<Option<OwnedFd>, Failure> {
        let process = &self.plan.process;
        if !process.terminal {
            let user = process.user.user;
            if user != 0 {
                super::streams::give_to(user);
            }
            return Ok(None);
        }
        let what = || "for the container".into();
        journal
            .step(Step::Terminal, what, || {
                crate::steps::terminal::open(root, process.terminal_size, process.user.user)
            })
            .map(Some)
    }

    fn change_root(
        &self,
        journal: &mut Journal<'_>,
        root: &Root,
    ) -> Result<Option<OldRoot>, Failure> {
        let path = || self.plan.rootfs.path.display().to_string();
        if !self.has_mount_namespace() {
            journal.step(Step::Pivot, path, || pivot::chroot(root))?;
            return Ok(None);
        }
        let change = || -> Result<Option<OldRoot>, Cause> {
            let old = match self.pivot {
                true => Some(pivot::pivot(root)?),
                false => pivot::chroot(root).map(|()| None)?,
            };
            rootfs::set_late_propagation(&self.plan.rootfs, root)?;
            Ok(old)
        };
        journal.step(Step::Pivot, path, change)
    }

    /// Lets go of the host's files, then waits for the word, which comes from the creator (`run`)
    /// or from whoever calls (`start`). `None`: it will not come.
    fn wait_for_start(&self, line: Line, mut built: Built) -> Result<Option<(Line, Built)>, Cause> {
        if let Some(old) = built.old_root.take()
            && let Err(cause) = old.detach()
        {
            give_up(&line, failure(Step::Pivot, "(detach the old root)".into(), cause));
            return Ok(None);
        }
        let Heard::Message(Message::Release, _) = line.hear()? else { return Ok(None) };
        if !self.foreground {
            // From here on this container does not depend on its creator, which waits for the end
            // of the line: only then may it end itself.
            prctl::die_with_parent(false)?;
        }
        let Some(listener) = &self.listener else { return Ok(Some((line, built))) };
        drop(line);
        let caller = Line::new(linux::socket::accept(listener)?);
        match caller.hear()? {
            Heard::Message(Message::Release, _) => Ok(Some((caller, built))),
            _ => Ok(None),
        }
    }

    /// The last steps, after the word. Returns only with what went wrong.
    fn finish(&self, journal: &mut Journal<'_>, built: Built, line: &Line) -> Failure {
        match self.take_off(journal, built, line) {
            Ok(never) => match never {},
            Err(failure) => failure,
        }
    }

    fn take_off(
        &self,
        journal: &mut Journal<'_>,
        built: Built,
        line: &Line,
    ) -> Result<std::convert::Infallible, Failure> {
        let plan = self.plan;
        self.run_hooks(journal, "startContainer", "created", built.pid)?;
        if self.new_keyring {
            let name = || format!("session keyring _ses.{}", plan.id);
            journal.step(Step::Confine, name, || confine::join_keyring(&plan.id))?;
        }
        if let Some(persona) = plan.personality {
            let what = || format!("personality {persona:#x}");
            journal.step(Step::Confine, what, || prctl::set_personality(persona))?;
        }
        if plan.cores_alone {
            let what = || "core scheduling".into();
            journal.step(Step::Confine, what, schedule::share_core_with_nobody)?;
        }
        drop_power(
            journal,
            &TakeOff {
                process: &plan.process,
                proc: built.proc.as_ref(),
                may_set_groups: self.may_set_groups,
                dies_with_parent: self.foreground,
                preserved: self.preserved,
                ignored: self.ignored,
                program: built.program,
            },
            line,
        )
    }
}

/// Tells the creator why; one that is gone needs no message.
fn give_up(line: &Line, failure: Failure) -> i32 {
    drop(line.say(&Message::Failed(failure)));
    1
}

pub(super) fn failure(step: Step, object: String, cause: Cause) -> Failure {
    Failure { step, object, cause: cause.text, errno: cause.errno, remedy: cause.remedy }
}

fn shown_kinds(kinds: impl Iterator<Item = Kind>) -> String {
    let names: Vec<_> = kinds.map(Kind::proc_name).collect();
    format!("existing namespaces: {}", names.join(", "))
}

fn poll_hung_up(line: &Line) -> linux::Result<bool> {
    let ready =
        poll::wait(&[(line.as_fd(), poll::Ready::default())], Some(std::time::Duration::ZERO))?;
    Ok(ready.first().is_some_and(|ready| ready.hung_up))
}
