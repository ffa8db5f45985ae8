//! `minirun kill`: send a signal to a container.

use clap::{Arg, ArgMatches, Command};

use super::arguments::{flag, id_argument, id_of, text_of};
use super::verb::{Global, Verb};
use crate::container::signal;
use crate::error::{Error, Result};

pub(super) const VERB: Verb = Verb {
    name: "kill",
    about: "Send a signal to a container (TERM unless another is named)",
    arguments,
    run,
    enters_containers: false,
    failure_status: 1,
};

fn arguments(command: Command) -> Command {
    command
        .arg(flag("all", "Send it to every process of the container").short('a'))
        .arg(id_argument())
        .arg(
            Arg::new("signal")
                .value_name("SIGNAL")
                .default_value("TERM")
                .allow_hyphen_values(true)
                .help("A name (TERM, SIGTERM, RTMIN+3) or a number"),
        )
}

fn run(global: &Global, matches: &ArgMatches) -> Result<i32> {
    let name = text_of(matches, "signal").unwrap_or("TERM");
    let number = linux::signal::number(name).ok_or_else(|| {
        Error::Config(format!("unknown signal {name:?}: use a name like TERM, or 1 to 64"))
    })?;
    let home = global.state_root()?.home(id_of(matches))?;
    signal::send(&home, number, matches.get_flag("all"))?;
    Ok(0)
}
