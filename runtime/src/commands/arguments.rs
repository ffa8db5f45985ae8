//! Arguments that several commands have, and how they are read.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, value_parser};

pub(super) fn id_argument() -> Arg {
    Arg::new("id").value_name("ID").required(true).help("The container's name")
}

pub(super) fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

pub(super) fn value(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

pub(super) fn path_value(name: &'static str, placeholder: &'static str, help: &'static str) -> Arg {
    value(name, placeholder, help).value_parser(value_parser!(PathBuf))
}

pub(super) fn bundle_argument() -> Arg {
    path_value("bundle", "DIR", "The bundle's directory [.]").short('b')
}

pub(super) fn path_of<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a Path> {
    matches.get_one::<PathBuf>(name).map(PathBuf::as_path)
}

pub(super) fn text_of<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.get_one::<String>(name).map(String::as_str)
}

pub(super) fn id_of(matches: &ArgMatches) -> &str {
    text_of(matches, "id").unwrap_or_default()
}
