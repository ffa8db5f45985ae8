//! The verbs, one file each.

mod check;
mod checkpoint;
mod connect;
mod create;
mod delete;
mod events;
mod exec;
mod explain;
mod features;
mod flags;
mod image;
mod kill;
mod list;
mod mounts;
mod network;
mod pause;
mod ps;
mod restore;
mod run;
mod spec;
mod start;
mod state;
mod target;
mod update;
mod wait;

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::cli::Global;
use crate::container::state::{Home, State};
use crate::error::{Error, Result};

/// One command.
pub(crate) struct Verb {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Describes its arguments.
    pub(crate) arguments: fn(Command) -> Command,
    /// Does it and gives the exit status.
    pub(crate) run: fn(&Global, &ArgMatches) -> Result<i32>,
    /// Whether it makes a process that a container can see.
    pub(crate) enters_containers: bool,
    /// The exit status of a failure.
    pub(crate) failure_status: u8,
}

/// All commands, in the order of the help.
pub(crate) const VERBS: &[Verb] = &[
    run::VERB,
    create::VERB,
    start::VERB,
    state::VERB,
    kill::VERB,
    delete::VERB,
    exec::VERB,
    list::VERB,
    ps::VERB,
    pause::PAUSE,
    pause::RESUME,
    update::VERB,
    events::VERB,
    wait::VERB,
    mounts::VERB,
    checkpoint::VERB,
    restore::VERB,
    network::VERB,
    spec::VERB,
    check::VERB,
    explain::VERB,
    features::VERB,
];

/// What `--version` prints after the program's name; engines parse it, and want the word "version"
/// on one line only.
pub(crate) const VERSION_TEXT: &str = concat!(
    "version ",
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("MINIRUN_COMMIT"),
    "\nspec: 1.3.0"
);

fn id_argument() -> Arg {
    Arg::new("id").value_name("ID").required(true).help("The container's name")
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn value(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn path_value(name: &'static str, placeholder: &'static str, help: &'static str) -> Arg {
    value(name, placeholder, help).value_parser(value_parser!(PathBuf))
}

fn bundle_argument() -> Arg {
    path_value("bundle", "DIR", "The bundle's directory [.]").short('b')
}

fn path_of<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a Path> {
    matches.get_one::<PathBuf>(name).map(PathBuf::as_path)
}

fn text_of<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.get_one::<String>(name).map(String::as_str)
}

fn id_of(matches: &ArgMatches) -> &str {
    text_of(matches, "id").unwrap_or_default()
}

/// The container that a command is about, and what is known of it.
fn container(global: &Global, matches: &ArgMatches) -> Result<(Home, State)> {
    let home = global.state_root()?.home(id_of(matches))?;
    let state = home.load()?.ok_or_else(|| Error::NotFound(home.id().to_owned()))?;
    Ok((home, state))
}

/// Prints to stdout; a reader that has gone away is no failure of ours.
fn print(text: &str) {
    use std::io::Write;
    drop(std::io::stdout().write_all(text.as_bytes()));
}

/// Prints a value as JSON, indented as runc does.
fn print_json<T: serde::Serialize>(value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::Config(format!("write JSON: {error}")))?;
    print(&format!("{text}\n"));
    Ok(())
}
