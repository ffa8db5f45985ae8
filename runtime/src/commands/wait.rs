//! `minirun wait`: wait for the end of a container and print its exit status.

use clap::{ArgMatches, Command};
use linux::pidfd::{self, Exit};
use linux::poll;

use super::answer::print;
use super::arguments::id_argument;
use super::verb::{Global, Verb, container};
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
    // Until its parent reaps it, procfs tells the status; from then on, the pidfd does.
    let known = || pidfd::exit_of_any(&process);
    let exit = known().or_else(|| exit_of_zombie(init.pid)).or_else(known);
    match exit {
        Some(exit) => {
            print(&format!("{}\n", exit.status()))?;
            Ok(0)
        }
        None => Err(Error::Unsupported(format!(
            "container {} has ended; its exit status is known only to its parent (this kernel is \
             older than 6.15)",
            home.id()
        ))),
    }
}

/// The status of a process that has ended and is not reaped yet, proc_pid_stat(5) field 52.
fn exit_of_zombie(pid: i32) -> Option<Exit> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    zombie_status(&stat)
}

fn zombie_status(stat: &str) -> Option<Exit> {
    let (_, rest) = stat.rsplit_once(')')?;
    // The first after the command is field 3, the state.
    let fields: Vec<&str> = rest.split_whitespace().collect();
    if fields.first() != Some(&"Z") {
        return None;
    }
    fields.get(49)?.parse().ok().map(Exit::from_wait_status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zombies_status_is_the_last_field() {
        let stat =
            |state: &str, code: &str| format!("7 (a) b) {state} {} {code}\n", ["0"; 48].join(" "));
        assert_eq!(zombie_status(&stat("Z", "9")), Some(Exit::Signal(9)));
        assert_eq!(zombie_status(&stat("Z", "1792")), Some(Exit::Code(7)));
        assert_eq!(zombie_status(&stat("S", "0")), None);
        assert_eq!(zombie_status(""), None);
    }
}
