//! `minirun explain`: what a seccomp profile does with a system call, and which rule decides.

use clap::{Arg, ArgMatches, Command};
use oci_spec::runtime::LinuxSeccomp;
use serde_json::Value;

use super::answer::print;
use super::arguments::{path_of, path_value, text_of};
use super::verb::{Global, Verb};
use crate::error::{Error, Result};
use crate::{json, seccomp};

pub(super) const VERB: Verb = Verb {
    name: "explain",
    about: "Tell what a seccomp profile does with a system call, and which rule decides",
    arguments,
    run,
    enters_containers: false,
    failure_status: 1,
};

fn arguments(command: Command) -> Command {
    command
        .arg(
            path_value("seccomp", "FILE", "The profile: a config.json, or its linux.seccomp")
                .required(true),
        )
        .arg(
            Arg::new("syscall")
                .value_name("SYSCALL")
                .required(true)
                .help("The call, by name or number"),
        )
        .arg(
            Arg::new("arguments")
                .value_name("ARG")
                .num_args(0..=6)
                .allow_hyphen_values(true)
                .help("Its arguments, decimal, negative or 0x…; the rest counts as 0"),
        )
}

fn run(_: &Global, matches: &ArgMatches) -> Result<i32> {
    let file = path_of(matches, "seccomp").unwrap_or_else(|| "-".as_ref());
    let bytes = std::fs::read(file).map_err(Error::file(format!("read {}", file.display())))?;
    let profile =
        profile_of(&bytes).map_err(|why| Error::Config(format!("{}: {why}", file.display())))?;
    let mut arguments = [0; 6];
    let given = matches.get_many::<String>("arguments").into_iter().flatten();
    for (slot, text) in arguments.iter_mut().zip(given) {
        *slot = argument(text)?;
    }
    let call = text_of(matches, "syscall").unwrap_or_default();
    let verdict = seccomp::explain(&profile, call, &arguments)
        .map_err(|error| Error::Config(format!("{}: {error}", file.display())))?;
    print(&format!("{verdict}\n"))?;
    Ok(0)
}

/// The profile in a whole configuration, or alone.
fn profile_of(bytes: &[u8]) -> std::result::Result<LinuxSeccomp, String> {
    let value: Value = json::read(bytes).map_err(|error| error.to_string())?;
    let profile = match (value.pointer("/linux/seccomp"), value.get("defaultAction")) {
        (Some(profile), _) => profile,
        (None, Some(_)) => &value,
        (None, None) => {
            return Err("there is no profile: neither linux.seccomp nor defaultAction".into());
        }
    };
    json::typed(profile).map_err(|error| format!("linux.seccomp: {error}"))
}

/// An argument as the kernel sees it: 64 bits.
fn argument(text: &str) -> Result<u64> {
    let parsed = match (text.strip_prefix("0x"), text.starts_with('-')) {
        (Some(digits), _) => u64::from_str_radix(digits, 16).ok(),
        (None, true) => text.parse::<i64>().ok().map(i64::cast_unsigned),
        (None, false) => text.parse().ok(),
    };
    parsed.ok_or_else(|| Error::Config(format!("{text:?} is no argument: write 5, -1 or 0x80")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_found_alone_and_in_a_configuration() {
        let alone = r#"{"defaultAction": "SCMP_ACT_ERRNO"}"#;
        let whole = format!("{{\"ociVersion\": \"1.0.0\", \"linux\": {{\"seccomp\": {alone}}}}}");
        assert!(profile_of(alone.as_bytes()).is_ok());
        assert_eq!(profile_of(whole.as_bytes()), profile_of(alone.as_bytes()));
        assert!(profile_of(b"{\"linux\": {}}").unwrap_err().contains("no profile"));
    }

    #[test]
    fn arguments_are_64_bits() {
        assert_eq!(argument("0x10").unwrap(), 16);
        assert_eq!(argument("-1").unwrap(), u64::MAX);
        assert_eq!(argument("7").unwrap(), 7);
        assert!(argument("seven").is_err());
    }
}
