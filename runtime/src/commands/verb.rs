//! What a command is, and what each of them is given.

use std::path::PathBuf;

use clap::{ArgMatches, Command};

use super::arguments::id_of;
use crate::container::group::{MANAGERS, Manager};
use crate::container::state::{Home, State, StateRoot};
use crate::error::{Error, Result};
use crate::report::Log;

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

/// The global options, understood.
#[derive(Debug)]
pub(crate) struct Global {
    root: Option<PathBuf>,
    pub(crate) log: Log,
    /// Who makes cgroups.
    pub(crate) manager: Manager,
}

impl Global {
    /// What the command line says.
    pub(crate) fn of(matches: &ArgMatches) -> Global {
        let text = |name: &str| matches.get_one::<String>(name);
        let manager = text("cgroup-manager");
        let manager = MANAGERS.iter().find(|(name, _)| manager.is_some_and(|asked| asked == name));
        let manager = match manager.map_or(Manager::Cgroupfs, |(_, manager)| *manager) {
            Manager::Cgroupfs if matches.get_flag("systemd-cgroup") => Manager::Systemd,
            manager => manager,
        };
        let log = Log {
            file: matches.get_one("log").cloned(),
            json: text("log-format").is_some_and(|format| format == "json"),
            debug: matches.get_flag("debug") || text("log-level").is_some_and(|it| it == "debug"),
        };
        Global { root: matches.get_one("root").cloned(), log, manager }
    }

    /// Where the containers' state is.
    pub(crate) fn state_root(&self) -> Result<StateRoot> {
        StateRoot::new(self.root.as_deref())
    }
}

/// The container that a command is about, and what is known of it.
pub(super) fn container(global: &Global, matches: &ArgMatches) -> Result<(Home, State)> {
    let home = global.state_root()?.home(id_of(matches))?;
    let state = home.load()?.ok_or_else(|| Error::NotFound(home.id().to_owned()))?;
    Ok((home, state))
}
