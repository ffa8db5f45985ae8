//! `minirun mounts`: mount something into a container that runs, or take it away again.

use std::io::Read;

use clap::{Arg, ArgMatches, Command};
use linux::Pid;
use oci_spec::runtime::Mount;
use serde_json::Value;

use super::arguments::{id_argument, text_of};
use super::create::plan_of;
use super::verb::{Global, Verb, container};
use crate::container::hotplug::{Change, change};
use crate::container::state::Status;
use crate::error::{Error, Result};
use crate::json;

pub(super) const VERB: Verb = Verb {
    name: "mounts",
    about: "Mount something into a container that runs, or take it away again",
    arguments,
    run,
    enters_containers: true,
    failure_status: 1,
};

fn arguments(command: Command) -> Command {
    command
        .arg(
            Arg::new("change")
                .value_name("add|remove")
                .required(true)
                .value_parser(["add", "remove"])
                .help("What to do"),
        )
        .arg(id_argument())
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .required(true)
                .help("A list of mounts as in config.json; `-` reads standard input"),
        )
}

fn run(global: &Global, matches: &ArgMatches) -> Result<i32> {
    let (home, state) = container(global, matches)?;
    let _lock = home.lock()?;
    let init = match state.status(&home) {
        Status::Stopped | Status::Creating => None,
        _ => state.init.and_then(|init| Some((init.open()?, Pid::from_raw(init.pid)))),
    };
    let (process, pid) = init.ok_or(Error::NotRunning)?;
    let wanted = mounts_of(text_of(matches, "file").unwrap_or_default())?;
    // Checked as the mounts of a configuration are: in that of the container.
    let file = home.path().join("config.json");
    let bytes = std::fs::read(&file).map_err(Error::file(format!("read {}", file.display())))?;
    let (mut spec, _) = crate::spec::parse(&bytes, &file)?;
    spec.set_mounts(Some(wanted));
    let plan = plan_of(&spec, home.id(), &state.bundle)?;
    let what = match text_of(matches, "change") {
        Some("add") => Change::Add,
        _ => Change::Remove,
    };
    change(&plan, (&process, pid), what)?;
    Ok(0)
}

fn mounts_of(source: &str) -> Result<Vec<Mount>> {
    let mut text = Vec::new();
    let read = match source {
        "-" => std::io::stdin().read_to_end(&mut text).map(drop),
        file => std::fs::read(file).map(|all| text = all),
    };
    read.map_err(Error::file(format!("read mounts from {source}")))?;
    let wrong = |error: serde_json::Error| Error::Config(format!("mounts of {source}: {error}"));
    let value: Value = json::read(&text).map_err(wrong)?;
    let list = value.get("mounts").unwrap_or(&value);
    json::typed(list).map_err(wrong)
}
