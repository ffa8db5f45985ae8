//! `minirun delete`: remove a container that has stopped.

use std::os::fd::OwnedFd;

use clap::{ArgMatches, Command};

use super::arguments::{flag, id_argument, id_of};
use super::verb::{Global, Verb};
use crate::cgroup::Cgroup;
use crate::container::state::{Home, State, Status};
use crate::container::{cleanup, start};
use crate::error::{Error, Result};

pub(super) const VERB: Verb = Verb {
    name: "delete",
    about: "Remove a container that has stopped (with --force: end it first)",
    arguments,
    run,
    enters_containers: false,
    failure_status: 1,
};

fn arguments(command: Command) -> Command {
    command
        .arg(
            flag("force", "End what still runs; no error if there is no such container").short('f'),
        )
        .arg(id_argument())
}

fn run(global: &Global, matches: &ArgMatches) -> Result<i32> {
    let force = matches.get_flag("force");
    let home = match global.state_root()?.home(id_of(matches)) {
        Err(Error::NotFound(_)) if force => return Ok(0),
        home => home?,
    };
    let lock = match home.lock_anew() {
        // Somebody else was faster.
        Err(Error::NotFound(_)) if force => return Ok(0),
        lock => lock?,
    };
    let state = match home.load() {
        // A state that cannot be read must not make a container immortal.
        Err(_) if force => None,
        state => state?,
    };
    let init = state.as_ref().map(|state| state.init);
    let process = init.flatten().and_then(|init| init.open());
    // Without a first process in its state, its maker was ended half-way.
    let has_stopped = process.is_none() && !matches!(init, Some(None));
    if let Some(state) = state.as_ref().filter(|_| !has_stopped && !force) {
        return Err(Error::WrongState(format!(
            "cannot delete container {} that is not stopped: {}",
            home.id(),
            state.status(&home)
        )));
    }
    process.as_ref().map_or(Ok(()), end)?;
    remove(global, &home, state.as_ref(), None)?;
    // This process ends now, which closes everything in one go.
    std::mem::forget(lock);
    Ok(0)
}

/// Ends the first process of a container, and waits until it has ended.
pub(super) fn end(process: &OwnedFd) -> Result<()> {
    drop(linux::pidfd::signal(process, 9));
    // Without a cgroup this is all there is to wait for.
    linux::poll::wait_readable(process, Some(std::time::Duration::from_secs(10)))
        .map(drop)
        .map_err(Error::kernel("wait for the container's end"))
}

/// Removes a container whose first process has ended, then tells the hooks that it is gone.
/// `cgroup` is its group, for who has it open.
pub(super) fn remove(
    global: &Global,
    home: &Home,
    state: Option<&State>,
    cgroup: Option<Cgroup>,
) -> Result<()> {
    if let Some(state) = state.filter(|state| state.late_hooks) {
        // A failing poststop hook is a warning, runtime-spec runtime.md.
        if let Err(error) = start::run_hooks(home, state, "poststop", Status::Stopped) {
            global.log.warning(&error.to_string());
        }
    }
    cleanup::remove(home, state, cgroup)
}
