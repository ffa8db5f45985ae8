//! `minirun spec`: write a good config.json to start from.

use clap::{ArgMatches, Command};

use super::arguments::{bundle_argument, flag, path_of};
use super::verb::{Global, Verb};
use crate::error::{Error, Result};
use crate::spec;

pub(super) const VERB: Verb = Verb {
    name: "spec",
    about: "Write a config.json to start from",
    arguments,
    run,
    enters_containers: false,
    failure_status: 1,
};

fn arguments(command: Command) -> Command {
    command
        .arg(bundle_argument())
        .arg(flag("rootless", "For a user without privileges"))
        .after_help("The root file system belongs into the directory `rootfs` beside it.")
}

fn run(_: &Global, matches: &ArgMatches) -> Result<i32> {
    let config = if matches.get_flag("rootless") || linux::credentials::effective_user() != 0 {
        let (user, group) =
            (linux::credentials::effective_user(), linux::credentials::effective_group());
        spec::rootless_config(user, group)
    } else {
        spec::default_config()
    };
    let text = spec::to_text(&config)?;
    let file = path_of(matches, "bundle").unwrap_or(".".as_ref()).join("config.json");
    let options = std::fs::File::create_new(&file);
    let mut made = options.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Error::Config(format!(
            "{} exists already: remove it first, or choose another directory with --bundle",
            file.display()
        )),
        _ => Error::file(format!("write {}", file.display()))(error),
    })?;
    use std::io::Write;
    made.write_all(text.as_bytes()).map_err(Error::file(format!("write {}", file.display())))?;
    Ok(0)
}
