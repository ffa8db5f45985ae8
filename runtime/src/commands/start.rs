//! `minirun start`: let the program of a created container run.

use clap::{ArgMatches, Command};

use super::arguments::{id_argument, id_of};
use super::verb::{Global, Verb};
use crate::container::start::start;
use crate::error::Result;

pub(super) const VERB: Verb = Verb {
    name: "start",
    about: "Start a created container",
    arguments,
    run,
    enters_containers: false,
    failure_status: 1,
};

fn arguments(command: Command) -> Command {
    command.arg(id_argument())
}

fn run(global: &Global, matches: &ArgMatches) -> Result<i32> {
    let home = global.state_root()?.home(id_of(matches))?;
    // This process ends now, which closes everything in one go.
    std::mem::forget(start(&home)?);
    Ok(0)
}
