//! `minirun wait`: wait for the end of a container and print its exit status.

use clap::{ArgMatches, Command};
use linux::{pidfd, poll};

use super::{Verb, container, id_argument, print};
use crate::cli::Global;
use crate::error::{Error, Result};

pub(super) const VERB: Verb = Verb {
    name: "wait",
    about: "Wait until a container has ended and print its exit status",
    arguments,
    run,
    enters_containers: false,
    failure_status: 1,
};

fn arguments(command: Command) -> Command {
    command
        .arg(id_argument())
        .after_help("The status of a process that is not our child is known from Linux 6.15 on.")
}

fn run(global: &Global, matches: &ArgMatches) -> Result<i32> {
    let (home, state) = container(global, matches)?;
    let init = state.init.ok_or(Error::NotRunning)?;
    let Some(process) = init.open() else {
        return Err(Error::WrongState(format!(
            "container {} has ended already: its exit status went to the process that started it",
            home.id()
        )));
    };
    poll::wait_readable(&process, None).map_err(Error::kernel("wait for the container"))?;
    // Ended is not yet reaped, and only then the kernel tells the status; a parent that never reaps
    // must not hold us for ever.
    let hung_up = poll::Ready::default();
    let limit = Some(std::time::Duration::from_secs(5));
    use std::os::fd::AsFd;
    poll::wait(&[(process.as_fd(), hung_up)], limit)
        .map_err(Error::kernel("wait for its reaper"))?;
    match pidfd::exit_of_any(&process) {
        Some(exit) => {
            print(&format!("{}\n", exit.status()));
            Ok(0)
        }
        None => Err(Error::Unsupported(format!(
            "container {} has ended; its exit status is known only to its parent (Linux before \
             6.15, or the parent has not asked for it yet)",
            home.id()
        ))),
    }
}
