//! The command line: global options, then one verb of [`crate::commands`].
//!
//! Only the chosen verb's arguments are built: describing all of them to the parser takes longer
//! than starting a process (0.28 ms), and every engine call would pay for it.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use linux::clone::Strings;
use linux::seal;

use crate::commands::{Global, VERBS, VERSION_TEXT, Verb};
use crate::container::group::MANAGERS;
use crate::error::{Error, Result};
use crate::hints;
use crate::report::Log;

/// The exit status of a command that did what it was asked for.
const SUCCESS: u8 = 0;
/// That of one that failed, where the command has none of its own.
const FAILURE: u8 = 1;

/// Runs the program: parses, does, reports. Gives its exit status.
pub fn main() -> u8 {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let verb = chosen_verb(&arguments);
    if verb.is_some_and(|verb| verb.enters_containers)
        && let Err(error) = seal_program(&arguments)
    {
        Log::default().error(&error);
        return FAILURE;
    }
    let mut command = program(verb);
    let arguments = with_two_dashes(arguments, verb);
    let matches = match command.try_get_matches_from_mut(arguments) {
        Ok(matches) => matches,
        Err(error) => return usage(&error),
    };
    let (global, name, matches) = match understood(&matches) {
        Ok(parts) => parts,
        Err(error) => {
            Log::default().error(&error);
            return FAILURE;
        }
    };
    let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else {
        return FAILURE;
    };
    match (verb.run)(&global, matches) {
        Ok(status) => u8::try_from(status).unwrap_or(255),
        Err(error) => {
            global.log.error(&hints::explain(error));
            verb.failure_status
        }
    }
}

/// A command that touches a container first runs itself again from a copy that nobody can write to,
/// see [`linux::seal`].
fn seal_program(arguments: &[OsString]) -> Result<()> {
    let bytes = |strings: Vec<OsString>| {
        use std::os::unix::ffi::OsStringExt;
        Strings::new(strings.into_iter().map(OsString::into_vec))
    };
    let environment = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    let (Some(arguments), Some(environment)) =
        (bytes(arguments.to_vec()), bytes(environment.collect()))
    else {
        return Ok(());
    };
    seal::ensure(&arguments, &environment)
        .map(drop)
        .map_err(Error::kernel("protect this program from containers"))
}

const GLOBAL_WITH_VALUE: [&str; 6] =
    ["--root", "--log", "--log-format", "--log-level", "--rootless", "--cgroup-manager"];

/// The verb, found before anything is parsed.
fn chosen_verb(arguments: &[OsString]) -> Option<&'static Verb> {
    let mut rest = arguments.iter().skip(1).filter_map(|argument| argument.to_str());
    while let Some(argument) = rest.next() {
        if GLOBAL_WITH_VALUE.contains(&argument) {
            rest.next();
        } else if !argument.starts_with('-') {
            return VERBS.iter().find(|verb| verb.name == argument);
        }
    }
    None
}

fn program(verb: Option<&Verb>) -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let base = Command::new("minirun")
        .about("Builds and runs containers, as an OCI runtime and by hand")
        .version(VERSION_TEXT)
        .disable_version_flag(true)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .after_help("`minirun run --explain BUNDLE` shows a container being built, step by step.")
        .arg(
            option("root", "DIR", "Where the state of containers is kept [/run/minirun]")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            option("log", "FILE", "Also write errors to this file")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            option("log-format", "FORMAT", "Format of the log")
                .value_parser(["text", "json"])
                .default_value("text"),
        )
        .arg(flag("debug", "Also tell warnings"))
        .arg(
            option("log-level", "LEVEL", "error, warning or debug")
                .value_parser(["error", "warning", "info", "debug"]),
        )
        .arg(
            option("cgroup-manager", "MANAGER", "How cgroups are made")
                .value_parser(MANAGERS.map(|(name, _)| name))
                .default_value(MANAGERS[0].0),
        )
        .arg(flag("systemd-cgroup", "The same as --cgroup-manager systemd"))
        .arg(
            option("rootless", "BOOL", "Accepted: minirun sees for itself whether it is root")
                .value_parser(["true", "false", "auto"]),
        )
        .arg(
            Arg::new("version")
                .long("version")
                .short('v')
                .action(ArgAction::Version)
                .help("Print the version"),
        );
    match verb {
        Some(verb) => base.subcommand((verb.arguments)(Command::new(verb.name).about(verb.about))),
        // No verb, or one that does not exist: the parser's help and its errors name all.
        None => VERBS
            .iter()
            .fold(base, |base, verb| base.subcommand(Command::new(verb.name).about(verb.about))),
    }
}

/// The whole program with all its verbs and arguments, for manual pages and completions. The
/// program itself describes one verb only, the one that it is asked for.
pub fn command() -> Command {
    VERBS.iter().fold(program(None), |whole, verb| {
        let described = (verb.arguments)(Command::new(verb.name).about(verb.about));
        whole.mut_subcommand(verb.name, |_| described)
    })
}

fn understood(matches: &ArgMatches) -> Result<(Global, &str, &ArgMatches)> {
    let (name, sub) =
        matches.subcommand().ok_or_else(|| Error::Config("no command was given".into()))?;
    Ok((Global::of(matches), name, sub))
}

/// Callers written in Go may give long options with one dash (`-no-subreaper`).
fn with_two_dashes(arguments: Vec<OsString>, verb: Option<&Verb>) -> Vec<OsString> {
    let Some(verb) = verb else { return arguments };
    let command = (verb.arguments)(Command::new(verb.name));
    let known: Vec<&str> = command.get_arguments().filter_map(Arg::get_long).collect();
    let mut own = true;
    let rewrite = |argument: OsString| {
        let Some(text) = argument.to_str() else { return argument };
        // What follows `--` belongs to the container's program.
        own = own && text != "--";
        let name = text.strip_prefix('-').filter(|rest| !rest.starts_with('-') && rest.len() > 1);
        match name.map(|rest| rest.split('=').next().unwrap_or(rest)) {
            Some(name) if own && known.contains(&name) => format!("-{text}").into(),
            _ => argument,
        }
    };
    arguments.into_iter().map(rewrite).collect()
}

/// Help and versions go to stdout and are no failure; errors are, with runc's status.
fn usage(error: &clap::Error) -> u8 {
    if let Some(option) = option_without_value(error) {
        // Podman asks in this way whether there is an option, and looks for these words.
        drop(writeln!(std::io::stderr(), "minirun: flag needs an argument: {option}"));
        return FAILURE;
    }
    drop(error.print());
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => SUCCESS,
        _ => FAILURE,
    }
}

/// The option at the end of the line that lacks its value, if that is the error.
fn option_without_value(error: &clap::Error) -> Option<&str> {
    use clap::error::{ContextKind, ContextValue};
    match (error.get(ContextKind::InvalidArg)?, error.get(ContextKind::InvalidValue)?) {
        (ContextValue::String(option), ContextValue::String(value)) if value.is_empty() => {
            option.split_whitespace().next()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_verb_is_found_behind_global_options() {
        let verb = chosen_verb(&words("minirun --root /x --log=/y --debug create --bundle b id"));
        assert_eq!(verb.map(|verb| verb.name), Some("create"));
        assert!(chosen_verb(&words("minirun --root create")).is_none());
    }

    #[test]
    fn one_dash_is_enough_for_known_long_options_only() {
        let verb = chosen_verb(&words("minirun run x"));
        let fixed = with_two_dashes(words("minirun run -no-subreaper -b x -- -detach"), verb);
        assert_eq!(fixed, words("minirun run --no-subreaper -b x -- -detach"));
    }

    #[test]
    fn every_verb_describes_valid_arguments() {
        for verb in VERBS {
            program(Some(verb)).debug_assert();
        }
        program(None).debug_assert();
    }
}
