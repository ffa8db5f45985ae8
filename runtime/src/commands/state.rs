//! `minirun state`: what is known about a container, as JSON.

use clap::{ArgMatches, Command};

use super::answer::print_json;
use super::arguments::{id_argument, id_of};
use super::verb::{Global, Verb};
use crate::container::oci_state::Report;
use crate::error::Result;

pub(super) const VERB: Verb = Verb {
    name: "state",
    about: "Print a container's state as JSON",
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
    print_json(&Report::of(&home)?)?;
    Ok(0)
}
