//! The clone of init, and what must be entered before it.
//!
//! New namespaces are made by the clone itself, and belong to the user namespace of whoever clones;
//! a PID namespace counts for children only. So where init is to be in a PID namespace that exists,
//! the creator enters it for the time of the clone; and where it is to be in a user namespace that
//! exists, which nobody can leave again, a process in between enters and clones:
//! ```text
//! creator            A                            init
//!    │ clone3 ─────▶ │ enter user (and PID)       
//!    │               │ clone3(CLONE_PARENT) ────▶ │ a child of the creator
//!    │ ◀─────  Born  │ ends                       │ waits for Mapped
//! ```

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use linux::clone::{Birth, Child, spawn};
use linux::namespace::{self, Kind, Namespaces};
use linux::{Pid, fd, pidfd};

use super::handshake::{Heard, Line, Message};
use super::inside::Inside;
use crate::error::Cause;

/// Clones init. `inner` is its end of the line, `line` the creator's.
pub(super) fn of_init(
    birth: Birth<'_>,
    inside: Inside<'_>,
    inner: Line,
    line: &Line,
) -> Result<Child, Cause> {
    if inside.joined.iter().any(|(kind, _)| *kind == Kind::User) {
        return in_user_namespace(birth, inside, inner, line);
    }
    in_pid_namespace(birth, inside, inner)
}

fn in_user_namespace(
    birth: Birth<'_>,
    inside: Inside<'_>,
    inner: Line,
    line: &Line,
) -> Result<Child, Cause> {
    let outside = Birth { namespaces: Namespaces::default(), ..birth };
    let first = spawn(outside, move || match enter_and_clone(birth, inside, &inner) {
        Ok(()) => 0,
        Err(cause) => {
            let failure = super::inside::failure(
                crate::steps::Step::Namespaces,
                "the user namespace".into(),
                cause,
            );
            drop(inner.say(&Message::Failed(failure)));
            1
        }
    });
    let first = first.map_err(explained)?;
    let heard = line.hear();
    drop(pidfd::wait(&first.pidfd));
    match heard? {
        Heard::Message(Message::Born(pid), fds) => match fds.into_iter().next() {
            Some(pidfd) => Ok(Child { pid: Pid::from_raw(pid), pidfd }),
            None => Err(Cause::new("init was born without a descriptor")),
        },
        Heard::Message(Message::Failed(failure), _) => {
            Err(Cause { text: failure.cause, errno: failure.errno, remedy: failure.remedy })
        }
        _ => Err(Cause::new("the process that enters the user namespace died")),
    }
}

fn enter_and_clone(birth: Birth<'_>, inside: Inside<'_>, inner: &Line) -> Result<(), Cause> {
    fd::close_all_but(&kept_descriptors(&inside, inner))?;
    for kind in [Kind::User, Kind::Pid] {
        if let Some((_, file)) = inside.joined.iter().find(|(joined, _)| *joined == kind) {
            namespace::enter(file.as_fd(), kind)?;
        }
    }
    let new = Birth { cgroup: None, sibling: true, ..birth };
    let line = inner.again()?;
    let child = spawn(new, move || {
        // Our end of the line as well: its end must be seen when init lets go of its own.
        match fd::close_all_but(&kept_descriptors(&inside, &line)) {
            Ok(()) => inside.run(line),
            Err(_) => 1,
        }
    });
    let child = child.map_err(explained)?;
    Ok(inner.say_with(&Message::Born(child.pid.as_raw()), &[child.pidfd.as_fd()])?)
}

fn in_pid_namespace(birth: Birth<'_>, inside: Inside<'_>, line: Line) -> Result<Child, Cause> {
    let target = inside.joined.iter().find(|(kind, _)| *kind == Kind::Pid);
    let own = match target {
        None => None,
        Some((_, file)) => {
            let own = namespace::open(Path::new("/proc/self/ns/pid"), Kind::Pid)?;
            namespace::enter(file.as_fd(), Kind::Pid)?;
            Some(own)
        }
    };
    let keep = kept_descriptors(&inside, &line);
    let made = spawn(birth, move || {
        if fd::close_all_but(&keep).is_err() {
            return 1;
        }
        inside.run(line)
    });
    if let Some(own) = own {
        namespace::enter(own.as_fd(), Kind::Pid)?;
    }
    made.map_err(explained)
}

/// What init keeps of its creator's descriptors: nothing but this.
fn kept_descriptors(inside: &Inside<'_>, line: &Line) -> Vec<i32> {
    let mut kept = vec![line.as_fd().as_raw_fd()];
    kept.extend(inside.cgroup_files.iter().chain(&inside.listener).map(AsRawFd::as_raw_fd));
    kept.extend(inside.mapped.iter().flatten().chain(&inside.mapped_root).map(AsRawFd::as_raw_fd));
    kept.extend(inside.joined.iter().map(|(_, file)| file.as_raw_fd()));
    kept.extend((3..).take(inside.preserved.try_into().unwrap_or(0)));
    kept
}

fn explained(error: linux::Error) -> Cause {
    let errno = error.errno;
    let cause = Cause::from(error);
    match errno {
        // What else it can be is looked for in the settings of the host, see `crate::hints`.
        linux::Errno::EINVAL => cause.remedy("this kernel lacks one of the namespaces"),
        linux::Errno::EBUSY => cause.remedy("the cgroup has groups below it with processes"),
        _ => cause,
    }
}
