//! Starting a process of our own that stays when the command that starts it ends: the forwarder of
//! published ports, and the relay of a bad network.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use linux::clone::{Birth, Child, Strings, execute, spawn};
use linux::{Errno, OFlag, fd, path};

/// Starts `program` with `arguments` and one more, its order. Of the caller's descriptors it has
/// `inherited`, under the same numbers, and of its memory nothing.
///
/// The caller must be single-threaded, as for every clone.
pub(crate) fn start(
    program: &Path,
    arguments: &[&str],
    order: String,
    inherited: &[BorrowedFd<'_>],
) -> linux::Result<Child> {
    let strings = arguments.iter().map(|text| (*text).to_owned()).chain([order]);
    let strings = Strings::new(strings)
        .ok_or_else(|| linux::Error::new("execve", "a NUL byte", Errno::EINVAL))?;
    let nothing = path::open(Path::new("/dev/null"), OFlag::O_RDWR)?;
    spawn(Birth::default(), || become_it(program, &strings, inherited, &nothing))
}

/// Whoever waits for the end of the caller's output must not wait for this process's, and a key
/// that interrupts the caller at its terminal must not end it.
fn become_it(
    program: &Path,
    arguments: &Strings,
    inherited: &[BorrowedFd<'_>],
    nothing: &OwnedFd,
) -> i32 {
    const FAILED: i32 = 127;
    let prepared = (0..3)
        .try_for_each(|stream| fd::place_at(nothing.as_fd(), stream))
        .and_then(|()| linux::terminal::start_session())
        .and_then(|()| fd::close_on_exec_from(3))
        // A caller that stands in front of a container has blocked all signals.
        .and_then(|()| linux::signal::reset_all())
        .and_then(|()| inherited.iter().try_for_each(|one| fd::keep_on_exec(*one)));
    let Some(environment) = Strings::new(std::iter::empty::<Vec<u8>>()) else { return FAILED };
    if prepared.is_ok() {
        execute(program, arguments, &environment);
    }
    FAILED
}
