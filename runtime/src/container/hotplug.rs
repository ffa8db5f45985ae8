//! Mounts that come and go while the container runs.
//!
//! ```text
//! creator                                a process in between
//!    │ open the sources on the host         
//!    │ clone3 ──────────────────────────▶ │ enter the container's mount namespace
//!    │                                    │ attach (or detach) by descriptor
//!    │ ◀──────────────── end, or Failed   │
//! ```
//! A detached copy of a mount can be attached in any mount namespace, so that the source is named
//! where the caller means it and the destination where the container has it. The process in between
//! never is in the container's PID namespace: nobody there can see it, trace it or take what it
//! holds.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use linux::clone::{Birth, spawn};
use linux::namespace::{self, Kind, Namespaces};
use linux::path::Root;
use linux::proc::TrustedProc;
use linux::shared::SharedNumber;
use linux::{Errno, OFlag, Pid, fd, mount, pidfd, prctl};

use super::handshake::{Heard, Line, Message};
use crate::error::{Cause, Error, Result};
use crate::explain::Journal;
use crate::plan::{Mount, Plan, Source};
use crate::steps::cgroup_view::View;
use crate::steps::{Step, mounts, owners};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Mount these.
    Add,
    /// Unmount what is at these places.
    Remove,
}

/// Adds the mounts of `plan` to the container whose init is behind `init`, or removes them.
pub(crate) fn change(plan: &Plan, init: (&OwnedFd, Pid), what: Change) -> Result<()> {
    let shared = namespace::shared_with(init.1, Kind::Mount);
    if shared.map_err(Error::kernel("look at the container"))? {
        return Err(Error::Unsupported(
            "the container has no mount namespace of its own: its mounts are the host's".into(),
        ));
    }
    if let Some(other) = plan.mounts.iter().find(|mount| mount.source == Source::Cgroup) {
        return Err(Error::Unsupported(format!("{other}: only `create` can mount cgroups")));
    }
    let mut journal = Journal::parent(None);
    let mut taken = Vec::new();
    if what == Change::Add {
        let mapped = owners::Taken::of(&mut journal, plan, &Vec::new())?.fds;
        let mut mapped = mapped.into_iter().chain(std::iter::repeat_with(|| None));
        for one in &plan.mounts {
            let open = || source_of(one);
            let opened = journal.step(Step::Mounts, || format!("(source of) {one}"), open)?;
            taken.push(mapped.next().flatten().or(opened));
        }
    }
    let (line, inner) = Line::pair().map_err(Error::kernel("make the line"))?;
    let current = SharedNumber::new().map_err(Error::kernel("make the shared page"))?;
    let work = Inside { plan, init: init.0, what, taken, current };
    let child = spawn(Birth::default(), move || work.be_process(&inner));
    let child = child.map_err(Error::kernel("clone a process into the container"))?;
    let heard = line.hear();
    drop(pidfd::wait(&child.pidfd));
    match heard {
        Ok(Heard::Message(Message::Ready, _)) => Ok(()),
        Ok(Heard::Message(Message::Failed(failure), _)) => Err(failure.into()),
        _ => Err(Error::WrongState("the process that enters the container died".into())),
    }
}

/// A copy of what is mounted from the host, opened where its path means what the caller meant.
fn source_of(one: &Mount) -> std::result::Result<Option<OwnedFd>, Cause> {
    match (&one.source, &one.owners) {
        (Source::Bind(source, recursive), None) => Ok(Some(mount::clone_tree(source, *recursive)?)),
        _ => Ok(None),
    }
}

struct Inside<'a> {
    plan: &'a Plan,
    init: &'a OwnedFd,
    what: Change,
    taken: Vec<Option<OwnedFd>>,
    current: SharedNumber,
}

impl Inside<'_> {
    /// The process in between; gives its exit status.
    fn be_process(&self, line: &Line) -> i32 {
        let said = match self.run(line) {
            Ok(()) => Message::Ready,
            Err(failure) => Message::Failed(failure),
        };
        i32::from(line.say(&said).is_err())
    }

    fn run(&self, line: &Line) -> std::result::Result<(), crate::error::Failure> {
        let mut journal = Journal::init(line, self.current);
        let enter = || self.enter(line);
        let root = journal.step(Step::Enter, || "the container's mounts".into(), enter)?;
        match self.what {
            Change::Add => {
                for (one, taken) in self.plan.mounts.iter().zip(&self.taken) {
                    journal.step(
                        Step::Mounts,
                        || one.to_string(),
                        || {
                            let taken = taken.as_ref().map(again).transpose()?;
                            mounts::mount_one(&root, one, taken, &View::none())
                        },
                    )?;
                }
            }
            // What was mounted last is on top.
            Change::Remove => {
                for one in self.plan.mounts.iter().rev() {
                    let place = &one.destination;
                    let what = || format!("(away) {}", place.display());
                    journal.step(Step::Mounts, what, || detach(&root, place))?;
                }
            }
        }
        Ok(())
    }

    fn enter(&self, line: &Line) -> std::result::Result<Root, Cause> {
        let mut keep = vec![line.as_fd().as_raw_fd(), self.init.as_raw_fd()];
        keep.extend(self.taken.iter().flatten().map(AsRawFd::as_raw_fd));
        fd::close_all_but(&keep)?;
        prctl::die_with_parent(true)?;
        prctl::set_undumpable()?;
        // Network and IPC as well: sysfs and mqueue show those of whoever mounts them.
        let kinds = [Kind::Mount, Kind::Network, Kind::Ipc];
        namespace::enter_all(self.init.as_fd(), Namespaces::from_iter(kinds))?;
        Ok(Root::open("/".as_ref())?)
    }
}

fn again(tree: &OwnedFd) -> std::result::Result<OwnedFd, Cause> {
    tree.try_clone().map_err(|error| Cause::new(format!("dup: {error}")))
}

/// Unmounts what is on top at `place`, by descriptor and through a procfs of our own: no name of
/// the container is followed a second time.
fn detach(root: &Root, place: &Path) -> std::result::Result<(), Cause> {
    if place.as_os_str() == "/" {
        return Err(Cause::new("the root cannot be taken away"));
    }
    let top = root.in_root(place, OFlag::O_PATH)?;
    let proc = TrustedProc::mount()?;
    let descriptors = proc.open("self/fd".as_ref(), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    mount::enter_directory(descriptors.as_fd())?;
    mount::detach_numbered(top.as_raw_fd()).map_err(|error| match error.errno {
        Errno::EINVAL => Cause::from(error).remedy("nothing is mounted exactly there"),
        _ => error.into(),
    })
}
