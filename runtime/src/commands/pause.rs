//! `minirun pause` and `minirun resume`: freeze all processes of a container, and let them go on.

use clap::{ArgMatches, Command};

use super::arguments::id_argument;
use super::verb::{Global, Verb, container};
use crate::cgroup::Cgroup;
use crate::container::open_cgroup;
use crate::container::state::Status;
use crate::error::{Error, Result};

pub(super) const PAUSE: Verb = Verb {
    name: "pause",
    about: "Freeze all processes of a container",
    arguments,
    run: pause,
    enters_containers: false,
    failure_status: 1,
};

pub(super) const RESUME: Verb = Verb {
    name: "resume",
    about: "Let a paused container go on",
    arguments,
    run: resume,
    enters_containers: false,
    failure_status: 1,
};

fn arguments(command: Command) -> Command {
    command.arg(id_argument())
}

fn pause(global: &Global, matches: &ArgMatches) -> Result<i32> {
    let (home, state) = container(global, matches)?;
    let _lock = home.lock()?;
    match state.status(&home) {
        Status::Running | Status::Created => {}
        status => {
            return Err(Error::WrongState(format!("container not running: it is {status}")));
        }
    }
    group_of(&state)?.freeze()?;
    Ok(0)
}

fn resume(global: &Global, matches: &ArgMatches) -> Result<i32> {
    let (home, state) = container(global, matches)?;
    let _lock = home.lock()?;
    if state.status(&home) != Status::Paused {
        return Err(Error::WrongState("container not paused".into()));
    }
    group_of(&state)?.thaw()?;
    Ok(0)
}

fn group_of(state: &crate::state::State) -> Result<Cgroup> {
    open_cgroup(state.cgroup.as_ref()).ok_or_else(|| {
        Error::Unsupported("the container has no cgroup: it cannot be frozen".into())
    })
}
