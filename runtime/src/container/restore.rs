//! Making a container of the files of a checkpoint: `restore`.
//!
//! ```text
//! minirun                            criu                             init
//!    │ state, cgroup                 
//!    │ clone3 into the cgroup ──────▶ │ a mount namespace of its own, with the rootfs in place
//!    │ Restore ─────────────────────▶ │ makes all processes, stopped ──▶ │ a child of minirun
//!    │ ◀──────── "setup-namespaces"   │                                  │
//!    │ (prestart, createRuntime)      │ memory, files, mounts            │
//!    │ ◀──────────── "post-restore"   │                                  │
//!    │ state: this is init; limits    │ lets them go on ───────────────▶ │ runs where it was
//! ```
//! The processes are born in the container's cgroup because CRIU is, and see it as the root of the
//! tree because CRIU made a cgroup namespace there. The rootfs is mounted in CRIU's mount namespace
//! only: on the host nothing is mounted, here neither. The limits come last, so that CRIU's own
//! work is not held back by them; no instruction of the container has run by then.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use linux::clone::{Birth, Child};
use linux::namespace::{self, Kind as Namespace, Namespaces};
use linux::path::Root;
use linux::{Errno, OFlag, Pid, fd, path, pidfd};

use super::checkpoint::{self, Asked};
use super::create::{self, Options};
use super::group::Wanted;
use super::state::{Home, Init, Lock, State};
use super::{cleanup, receivers};
use crate::cgroup::{self, Cgroup};
use crate::criu::images::Images;
use crate::criu::message::{InheritFd, JoinNamespace, Kind, Pair};
use crate::criu::{self, CgroupMode, OUTER_NETWORK, OUTER_PIDS, Session, Told};
use crate::error::{Cause, Error, Failure, Result};
use crate::explain::Journal;
use crate::plan::Plan;
use crate::steps::{Step, hooks, owners, rootfs};

/// A container that runs again.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) home: Home,
    pub(crate) lock: Lock,
    pub(crate) state: State,
    pub(crate) child: Child,
    /// The master of its terminal, where nobody else has got it.
    pub(crate) terminal: Option<OwnedFd>,
    pub(crate) cgroup: Option<Cgroup>,
}

/// Makes a container of images. On failure nothing is left.
pub(crate) fn restore(plan: &Plan, options: &Options<'_>, asked: &Asked) -> Result<Restored> {
    let home = options.home.clone();
    let lock = home.lock_anew()?;
    home.load()?.map_or(Ok(()), |_| Err(Error::AlreadyExists(plan.id.clone())))?;
    let state = State::new(&plan.id, &plan.bundle, &plan.rootfs.path);
    let (cgroup, child, terminal) = (None, None, None);
    let mut half = Half { plan, options, asked, home, state, cgroup, child, terminal };
    match half.make() {
        Ok(child) => Ok(Restored {
            home: half.home,
            lock,
            state: half.state,
            child,
            terminal: half.terminal,
            cgroup: half.cgroup,
        }),
        Err(error) => {
            if let Some(child) = &half.child {
                drop(pidfd::signal(&child.pidfd, 9));
                drop(pidfd::wait(&child.pidfd));
            }
            drop(cleanup::remove(&half.home, Some(&half.state), half.cgroup));
            Err(error)
        }
    }
}

/// A container that is being restored.
struct Half<'a> {
    plan: &'a Plan,
    options: &'a Options<'a>,
    asked: &'a Asked,
    home: Home,
    state: State,
    cgroup: Option<Cgroup>,
    child: Option<Child>,
    terminal: Option<OwnedFd>,
}

impl Half<'_> {
    fn make(&mut self) -> Result<Child> {
        let (plan, asked) = (self.plan, self.asked);
        let program = criu::find()?;
        let images = Images::read(&asked.images)?;
        self.check(&images)?;
        let (dir, work) = asked.directories()?;
        let wanted = Wanted::decide(self.options.manager, plan)?;
        self.record(wanted.as_ref())?;
        if let Some(wanted) = &wanted {
            self.own(wanted.make()?)?;
        }
        self.take_writable_layer(&images)?;
        let namespaces = checkpoint::outer_namespaces(plan)?;
        let mut request = asked.options(&dir, &work);
        request.rst_sibling = true;
        request.root = Some(plan.rootfs.path.display().to_string());
        request.cg_root = checkpoint::roots_of(&self.state);
        request.ext_mnt = self.outer_mounts(&images)?;
        request.join_ns = joined(plan)?;
        request.mntns_compat_mode = !is_slave_of_host()?;
        let inherited = inherited(&images, namespaces)?;
        let numbered =
            |(key, fd): &(String, OwnedFd)| InheritFd { key: key.clone(), fd: fd.as_raw_fd() };
        request.inherit_fd = inherited.iter().map(numbered).collect();
        let session =
            self.start(&program, (&images, [&dir, &work]), &inherited, wanted.as_ref())?;
        let log = asked.work().join("restore.log");
        let notified = |told: Told<'_>| self.notified(told);
        let answer = session.request(Kind::Restore, request, &log, notified)?;
        let pid = answer.restored.map(|restored| restored.pid);
        let known = self.child.take().filter(|child| pid == Some(child.pid.as_raw()));
        let child = known.ok_or_else(|| {
            Error::WrongState("criu restored another process than it told of".into())
        })?;
        // Kept here again, so that what fails from now on ends it.
        let pidfd = child.pidfd.try_clone().map_err(Error::file("dup"))?;
        self.child = Some(Child { pid: child.pid, pidfd });
        self.hand_out(&child)?;
        Ok(child)
    }

    fn check(&self, images: &Images) -> Result<()> {
        let refused =
            |what: &str| Err(Error::Unsupported(format!("restore {}: {what}", self.plan.id)));
        if linux::credentials::effective_user() != 0 {
            return refused("CRIU needs root");
        }
        if images.dies_with_parent && !self.options.foreground {
            return refused(
                "it was made by `run` in the foreground and dies with its parent: restore it \
                 without --detach",
            );
        }
        let other = [Namespace::User, Namespace::Mount, Namespace::Cgroup, Namespace::Time];
        let joined = other.into_iter().find(|kind| self.plan.namespaces.joins(*kind));
        if let Some(kind) = joined {
            let name = crate::plan::namespace_name(kind);
            return refused(&format!("CRIU cannot enter an existing {name} namespace"));
        }
        Ok(())
    }

    /// Writes down what is going to exist.
    fn record(&mut self, wanted: Option<&Wanted>) -> Result<()> {
        let (plan, state) = (self.plan, &mut self.state);
        state.cgroup = wanted.map(|wanted| wanted.record.clone());
        state.late_hooks =
            !plan.hooks_of("poststart").is_empty() || !plan.hooks_of("poststop").is_empty();
        state.annotations = plan.annotations.clone();
        state.dies_with_parent = self.options.foreground;
        state.resctrl = create::resctrl_group(&mut Journal::parent(None), plan)?;
        self.home.write("config.json", self.options.config)?;
        self.home.save(state)
    }

    /// From here on what is in the group is ours to kill.
    fn own(&mut self, made: Option<Cgroup>) -> Result<()> {
        let Some(made) = made else { return Ok(()) };
        self.state.cgroup = Some(made.record().clone());
        self.cgroup = Some(made);
        self.home.save(&self.state)
    }

    /// The writable layer that the checkpoint has kept. It becomes ours to remove only with the
    /// container that runs: until then a failure must not lose it.
    fn take_writable_layer(&self, images: &Images) -> Result<()> {
        let Some(overlay) = &self.plan.rootfs.overlay else { return Ok(()) };
        if let (Some(to), Some(from)) = (&overlay.writable, &images.writable)
            && from != to
            && from.exists()
            && !to.exists()
        {
            let doing = format!("take the writable layer {}", from.display());
            std::fs::rename(from, to).map_err(Error::file(doing))?;
        }
        if let Some(dir) = &overlay.writable {
            // The kernel's own work of the last mount, with its mark that nothing was synchronised:
            // overlayfs does not begin again beside it.
            match std::fs::remove_dir_all(dir.join("work")) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::file(format!("empty {}/work", dir.display()))(error));
                }
                _ => {}
            }
        }
        Ok(rootfs::make_writable_layer(overlay)
            .map_err(|cause| failure("writable layer", cause))?)
    }

    fn outer_mounts(&self, images: &Images) -> Result<Vec<Pair>> {
        let pair = |mount: &criu::mounts::External| {
            let source = mount.source(self.plan).map_err(|cause| failure("a mount", cause))?;
            if !source.exists() {
                return Err(Error::Config(format!(
                    "{} (for {}): no such file or directory",
                    source.display(),
                    mount.place.display()
                )));
            }
            let key = mount.place.display().to_string();
            Ok(Pair { key, value: source.display().to_string() })
        };
        images.externals.iter().map(pair).collect()
    }

    /// Makes CRIU in the container's cgroup, with the rootfs in its place.
    fn start(
        &mut self,
        program: &Path,
        (images, directories): (&Images, [&File; 2]),
        inherited: &[(String, OwnedFd)],
        wanted: Option<&Wanted>,
    ) -> Result<Session> {
        let (plan, asked) = (self.plan, self.asked);
        let files = self.cgroup.as_ref().map(Cgroup::join_files).transpose()?.unwrap_or_default();
        let group = self.cgroup.as_ref().map(|group| group.birth_fd().try_clone_to_owned());
        let group = group.transpose().map_err(Error::file("dup"))?;
        let mut kept: Vec<i32> = files.iter().map(AsRawFd::as_raw_fd).collect();
        kept.extend(inherited.iter().map(|(_, file)| file.as_raw_fd()));
        kept.extend(directories.iter().map(|dir| dir.as_raw_fd()));
        let paths = [asked.images.as_path(), asked.work()];
        let own_view = plan.namespaces.new.contains(Namespace::Cgroup)
            && asked.cgroups.is_none_or(|mode| mode == CgroupMode::Ignore);
        let birth = Birth {
            namespaces: Namespaces::from_iter([Namespace::Mount]),
            cgroup: group.as_ref().map(AsFd::as_fd),
            sibling: false,
        };
        let place = |child: &Child| {
            let started = wanted.map(|wanted| wanted.start(child.pid, &plan.resources));
            self.own(started.transpose()?.flatten())?;
            // What CRIU makes is born where CRIU is.
            let resctrl = plan.resctrl.as_ref().zip(self.state.resctrl.as_ref());
            let joined = resctrl.map(|(wanted, group)| {
                group.make(&wanted.schemata).and_then(|()| group.add(child.pid))
            });
            Ok(joined.transpose().map_err(|cause| failure("resctrl", cause)).map(drop)?)
        };
        let prepare = || {
            cgroup::join(&files)?;
            if own_view {
                namespace::unshare(Namespaces::from_iter([Namespace::Cgroup]))?;
            }
            for (_, file) in inherited {
                fd::keep_on_exec(file.as_fd())?;
            }
            put_root_in_place(plan, images)?;
            // Opened again: CRIU mounts below its working directory, which only works with one that
            // is in its own mount namespace.
            for (path, directory) in paths.into_iter().zip(directories) {
                let again = path::open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
                fd::place_at(again.as_fd(), directory.as_raw_fd())?;
            }
            Ok(())
        };
        Session::start(program, birth, (&kept, asked.criu.shell_job), place, prepare)
    }

    fn notified(&mut self, (notify, fds): Told<'_>) -> Result<()> {
        let pid = notify.pid.unwrap_or(0);
        match notify.moment.as_deref() {
            Some("setup-namespaces") => {
                let pidfd = pidfd::open(Pid::from_raw(pid))
                    .map_err(Error::kernel("open the restored process"))?;
                self.child = Some(Child { pid: Pid::from_raw(pid), pidfd });
                self.hooks(pid)
            }
            Some("orphan-pts-master") => {
                self.terminal = fds.into_iter().next();
                Ok(())
            }
            Some("post-restore") => self.finish(),
            _ => Ok(()),
        }
    }

    fn hooks(&self, pid: i32) -> Result<()> {
        let state = self.plan.hook_state("creating", pid);
        for moment in ["prestart", "createRuntime"] {
            for hook in self.plan.hooks_of(moment) {
                hooks::run(hook, &state, &self.plan.bundle).map_err(|cause| Failure {
                    step: Step::Hooks,
                    ..failure(&format!("{moment} {}", hook.path().display()), cause)
                })?;
            }
        }
        Ok(())
    }

    /// Everything is there and stopped: it is written down and limited.
    fn finish(&mut self) -> Result<()> {
        let plan = self.plan;
        let Some(child) = &self.child else {
            return Err(Error::WrongState("criu has told of no process".into()));
        };
        self.state.init = Some(Init::of(child.pid, &child.pidfd)?);
        if let Some(cgroup) = &mut self.cgroup {
            cgroup.apply(&plan.resources)?;
            if let Some((user, group)) = plan.owner_of_groups() {
                cgroup.give_to(user, group)?;
            }
        }
        self.home.save(&self.state)
    }

    /// Gives the callers what they asked for.
    fn hand_out(&mut self, child: &Child) -> Result<()> {
        self.state.writable = self.plan.rootfs.overlay.as_ref().and_then(|o| o.writable.clone());
        self.home.save(&self.state)?;
        if let Some(file) = self.options.pid_file {
            receivers::write_pid_file(file, child.pid.as_raw())?;
        }
        if let (Some(path), Some(master)) = (self.options.console_socket, &self.terminal) {
            receivers::send_terminal(path, master)?;
            self.terminal = None;
        }
        Ok(())
    }
}

/// Mounts the rootfs where CRIU looks for it, in its own mount namespace, and makes the mount
/// points that the images know.
fn put_root_in_place(plan: &Plan, images: &Images) -> Result<(), Cause> {
    if !plan.namespaces.has(Namespace::Mount) {
        return Ok(());
    }
    let made = owners::mapped_root(&plan.rootfs)?;
    let root = rootfs::attach(&plan.rootfs, made, plan.namespaces.has(Namespace::User))?;
    let mut made: Vec<&PathBuf> = Vec::new();
    for (place, is_directory) in &images.places {
        // What is below another mount is made by CRIU, or is there in what is bound.
        if !made.iter().any(|other| place.starts_with(other)) {
            check_mount_point(&root, place, *is_directory)?;
        }
        made.push(place);
    }
    Ok(())
}

/// A mount point must be where its name says: CRIU mounts by path, and a link of the image would
/// lead it elsewhere.
fn check_mount_point(root: &Root, place: &Path, is_directory: bool) -> Result<(), Cause> {
    match root.in_root_without_links(place, OFlag::O_PATH) {
        Ok(_) => return Ok(()),
        Err(error) if error.errno == Errno::ENOENT => {}
        Err(error) => {
            return Err(Cause::from(error).remedy(format!(
                "{} was a mount point when the checkpoint was made, and is a link now",
                place.display()
            )));
        }
    }
    match is_directory {
        true => root.make_dir(place, 0o755)?,
        false => root.make_file(place, 0o644)?,
    };
    Ok(root.in_root_without_links(place, OFlag::O_PATH).map(drop)?)
}

/// Descriptors for the CRIU process that stand for what came from outside, by their names in the
/// images.
fn inherited(
    images: &Images,
    namespaces: Vec<(Namespace, OwnedFd)>,
) -> Result<Vec<(String, OwnedFd)>> {
    let mut list: Vec<(String, OwnedFd)> = Vec::new();
    let (input, output, errors) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let streams = [input.as_fd(), output.as_fd(), errors.as_fd()];
    for (stream, name) in streams.into_iter().zip(&images.streams) {
        if let Some(key) = name.clone().filter(|name| list.iter().all(|(key, _)| key != name)) {
            list.push((key, stream.try_clone_to_owned().map_err(Error::file("dup"))?));
        }
    }
    for (kind, file) in namespaces {
        match kind {
            Namespace::Network => list.push((OUTER_NETWORK.to_owned(), file)),
            Namespace::Pid => list.push((OUTER_PIDS.to_owned(), file)),
            _ => {}
        }
    }
    Ok(list)
}

/// Whether what CRIU binds from the host is in a peer group there, as it usually is.
fn is_slave_of_host() -> Result<bool> {
    let table = std::fs::read_to_string("/proc/self/mountinfo");
    Ok(criu::mounts::propagates(&table.map_err(Error::file("read our mounts"))?))
}

/// The namespaces that CRIU enters by their path, because others have made them.
fn joined(plan: &Plan) -> Result<Vec<JoinNamespace>> {
    let kinds = [Namespace::Ipc, Namespace::Uts];
    let joined = plan.namespaces.join.iter().filter(|(kind, _)| kinds.contains(kind));
    let entry = |(kind, path): &(Namespace, PathBuf)| {
        let file = path
            .to_str()
            .map(str::to_owned)
            .ok_or_else(|| Error::Config(format!("namespace {}: not UTF-8", path.display())))?;
        Ok(JoinNamespace { kind: kind.proc_name().to_owned(), file })
    };
    joined.map(entry).collect()
}

fn failure(object: &str, cause: Cause) -> Failure {
    Failure {
        step: Step::Checkpoint,
        object: object.to_owned(),
        cause: cause.text,
        errno: cause.errno,
        remedy: cause.remedy,
    }
}

/// What a caller of `restore` may set beside [`Asked`]; checked here so that it is in one place.
pub(crate) fn check_profile(profile: Option<&str>) -> Result<()> {
    let known = ["apparmor:", "selinux:"];
    match profile.filter(|text| !known.iter().any(|kind| text.starts_with(kind))) {
        Some(text) => Err(Error::Config(format!(
            "--lsm-profile {text}: write apparmor:PROFILE or selinux:LABEL"
        ))),
        None => Ok(()),
    }
}
