//! `minirun exec`: one more process in a running container.

use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command};
use linux::signal::Signals;
use oci_spec::runtime::{Process as Config, Spec};

use super::arguments::{flag, id_argument, path_of, path_value, text_of, value};
use super::create::preserved;
use super::verb::{Global, Verb, container};
use crate::container::agent::Agent;
use crate::container::receivers::{send_descriptor, send_terminal, write_pid_file};
use crate::container::state::{Home, Status};
use crate::container::{exec, foreground, open_cgroup};
use crate::error::{Error, Result};
use crate::plan::{Landlock, Process};

pub(super) const VERB: Verb = Verb {
    name: "exec",
    about: "Run one more process in a container",
    arguments,
    run,
    enters_containers: true,
    // As runc does, to tell it from a status of the process.
    failure_status: 255,
};

fn arguments(command: Command) -> Command {
    let list = |name, placeholder, help| value(name, placeholder, help).action(ArgAction::Append);
    command
        .arg(path_value("process", "FILE", "The process as in config.json").short('p'))
        .arg(path_value("console-socket", "SOCKET", "Send the terminal's master to this socket"))
        .arg(path_value("pidfd-socket", "SOCKET", "Send a pidfd of the process to this socket"))
        .arg(path_value("pid-file", "FILE", "Write the process's number to this file"))
        .arg(value("cwd", "DIR", "Working directory"))
        .arg(list("env", "NAME=VALUE", "Environment variable").short('e'))
        .arg(flag("tty", "Give it a terminal").short('t'))
        .arg(value("user", "UID[:GID]", "Who it runs as").short('u'))
        .arg(list("additional-gids", "GID", "Supplementary group").short('g'))
        .arg(flag("detach", "Return when it runs").short('d'))
        .arg(value("process-label", "LABEL", "SELinux label"))
        .arg(value("apparmor", "PROFILE", "AppArmor profile"))
        .arg(flag("no-new-privs", "Forbid it to gain privileges"))
        .arg(list("cap", "CAPABILITY", "One more capability").short('c'))
        .arg(
            value("preserve-fds", "N", "Pass N more descriptors to it")
                .value_parser(clap::value_parser!(u32)),
        )
        .arg(list("cgroup", "[CONTROLLERS:]PATH", "Start it in a cgroup below the container's"))
        .arg(flag("ignore-paused", "Also enter a paused container"))
        .arg(id_argument())
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .num_args(0..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .help("The program and its arguments"),
        )
}

fn run(global: &Global, matches: &ArgMatches) -> Result<i32> {
    let (home, state) = container(global, matches)?;
    match state.status(&home) {
        Status::Stopped | Status::Creating => {
            return Err(Error::WrongState("cannot exec in a stopped container".into()));
        }
        Status::Paused if !matches.get_flag("ignore-paused") => {
            return Err(Error::WrongState(
                "cannot exec in a paused container (use --ignore-paused to override)".into(),
            ));
        }
        _ => {}
    }
    let process = process_of(&home, matches)?;
    let detach = matches.get_flag("detach");
    let socket = path_of(matches, "console-socket");
    check_terminal(process.terminal, detach, socket.is_some())?;
    let init = state.init.as_ref().and_then(|init| init.open()).ok_or(Error::NotRunning)?;
    let cgroup = open_cgroup(state.cgroup.as_ref());
    let below: Vec<String> =
        matches.get_many("cgroup").map(|list| list.cloned().collect()).unwrap_or_default();
    let cgroup = match (cgroup, below.is_empty()) {
        (cgroup, true) => cgroup,
        (Some(cgroup), false) => Some(cgroup.within(&below)?),
        (None, false) => {
            return Err(Error::Unsupported("--cgroup: the container has no cgroup".into()));
        }
    };
    let options = exec::Options { preserve_fds: preserved(matches), foreground: !detach };
    let capture = || Signals::capture().map_err(Error::kernel("capture signals"));
    let signals = if detach { None } else { Some(capture()?) };
    let mut entered = exec::enter(&state, &init, cgroup, &process, &options)?;
    if let Some(file) = path_of(matches, "pid-file") {
        write_pid_file(file, entered.child.pid.as_raw())?;
    }
    if let (Some(socket), Some(master)) = (socket, &entered.terminal) {
        send_terminal(socket, master)?;
    }
    if let Some(socket) = path_of(matches, "pidfd-socket") {
        send_descriptor(socket, b"setns", &entered.child.pidfd, "--pidfd-socket")?;
    }
    let terminal = entered.terminal.take().filter(|_| socket.is_none());
    terminal.iter().for_each(foreground::pass_size);
    let agent = process.listener().map(|listener| Agent::new(listener, &state));
    if let Err(error) = exec::release(&entered, agent.as_ref()) {
        drop(linux::pidfd::signal(&entered.child.pidfd, 9));
        drop(linux::pidfd::wait(&entered.child.pidfd));
        return Err(error);
    }
    drop(entered.line);
    match signals {
        None => Ok(0),
        Some(signals) => {
            let exit = foreground::wait(&entered.child.pidfd, (&signals, None), terminal.as_ref())?;
            Ok(exit.status())
        }
    }
}

fn check_terminal(terminal: bool, detach: bool, socket: bool) -> Result<()> {
    let text = match (terminal, detach, socket) {
        (true, true, false) => {
            "cannot allocate tty if minirun will detach without setting console socket"
        }
        (false, _, true) => "cannot use console socket if the process has no terminal",
        _ => return Ok(()),
    };
    Err(Error::Config(text.into()))
}

/// The process: of a file, or the container's own with another command line.
fn process_of(home: &Home, matches: &ArgMatches) -> Result<Process> {
    let file = home.path().join("config.json");
    let bytes = std::fs::read(&file).map_err(Error::file(format!("read {}", file.display())))?;
    let (spec, _) = crate::spec::parse(&bytes, &file)?;
    let config = match path_of(matches, "process") {
        Some(path) => read_process(path)?,
        None => changed(&spec, matches)?,
    };
    let mut process = Process::decide(&config, spec.linux().as_ref())?;
    process.landlock = Landlock::decide(spec.annotations().as_ref())?;
    Ok(process)
}

fn read_process(path: &Path) -> Result<Config> {
    let bytes = std::fs::read(path).map_err(Error::file(format!("read {}", path.display())))?;
    crate::spec::parse_process(&bytes)
        .map_err(|error| Error::Config(format!("{}: {error}", path.display())))
}

fn changed(spec: &Spec, matches: &ArgMatches) -> Result<Config> {
    let strings = |name: &str| -> Vec<String> {
        matches.get_many::<String>(name).map(|list| list.cloned().collect()).unwrap_or_default()
    };
    let command = strings("command");
    if command.is_empty() {
        return Err(Error::Config("exec needs a command, or --process FILE".into()));
    }
    let mut config = spec.process().clone().unwrap_or_default();
    config.set_args(Some(command));
    config.set_terminal(Some(matches.get_flag("tty")));
    if let Some(dir) = text_of(matches, "cwd") {
        config.set_cwd(dir.into());
    }
    let mut environment = config.env().clone().unwrap_or_default();
    environment.extend(strings("env"));
    config.set_env(Some(environment));
    if let Some(user) = text_of(matches, "user") {
        let (uid, gid) = user_of(user)?;
        config.user_mut().set_uid(uid).set_gid(gid.unwrap_or(0)).set_additional_gids(None);
    }
    let groups: Result<Vec<u32>> = strings("additional-gids").iter().map(|id| number(id)).collect();
    let groups = groups?;
    if !groups.is_empty() {
        let mut all = config.user().additional_gids().clone().unwrap_or_default();
        all.extend(groups);
        config.user_mut().set_additional_gids(Some(all));
    }
    if matches.get_flag("no-new-privs") {
        config.set_no_new_privileges(Some(true));
    }
    if let Some(label) = text_of(matches, "process-label") {
        config.set_selinux_label(Some(label.to_owned()));
    }
    if let Some(profile) = text_of(matches, "apparmor") {
        config.set_apparmor_profile(Some(profile.to_owned()));
    }
    add_capabilities(&mut config, &strings("cap"))?;
    Ok(config)
}

/// More capabilities go into the bounding, effective and permitted sets. Never into the inheritable
/// or the ambient one: that has given programs power that nobody asked for (CVE-2022-29162).
fn add_capabilities(config: &mut Config, names: &[String]) -> Result<()> {
    let mut sets = config.capabilities().clone().unwrap_or_default();
    for name in names {
        let known = crate::json::typed(&name.to_ascii_uppercase().into());
        let capability: oci_spec::runtime::Capability =
            known.map_err(|_| Error::Config(format!("unknown capability {name:?}")))?;
        for set in [sets.bounding().clone(), sets.effective().clone(), sets.permitted().clone()]
            .into_iter()
            .enumerate()
        {
            let (which, members) = set;
            let mut members = members.unwrap_or_default();
            members.insert(capability);
            match which {
                0 => sets.set_bounding(Some(members)),
                1 => sets.set_effective(Some(members)),
                _ => sets.set_permitted(Some(members)),
            };
        }
    }
    if !names.is_empty() {
        config.set_capabilities(Some(sets));
    }
    Ok(())
}

/// `UID` or `UID:GID`, plain decimal numbers and nothing else: a lenient reader has made root of a
/// typing error (CVE-2026-30892).
pub(super) fn user_of(text: &str) -> Result<(u32, Option<u32>)> {
    match text.split_once(':') {
        None => Ok((number(text)?, None)),
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
    }
}

fn number(text: &str) -> Result<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // The last number means "no change" to the kernel.
    let parsed = text.parse::<u32>().ok().filter(|number| digits && *number != u32::MAX);
    parsed.ok_or_else(|| Error::Config(format!("{text:?} is not a user or group number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read_strictly() {
        assert_eq!(user_of("0").unwrap(), (0, None));
        assert_eq!(user_of("1000:100").unwrap(), (1000, Some(100)));
        for text in [
            "",
            ":",
            "1:",
            ":1",
            "-1",
            "+1",
            "4294967295",
            "4294967296",
            "0x1",
            " 1",
            "1 ",
            "1:2:3",
            "root",
        ] {
            assert!(user_of(text).is_err(), "{text:?}");
        }
    }
}
