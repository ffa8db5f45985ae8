//! `minirun ps`: the processes of a container.

use clap::{Arg, ArgMatches, Command};

use super::answer::print;
use super::arguments::{id_argument, text_of};
use super::list::format_argument;
use super::verb::{Global, Verb, container};
use crate::container::open_cgroup;
use crate::error::{Error, Result};

pub(super) const VERB: Verb = Verb {
    name: "ps",
    about: "List the processes of a container",
    arguments,
    run,
    enters_containers: false,
    failure_status: 1,
};

fn arguments(command: Command) -> Command {
    command.arg(format_argument()).arg(id_argument()).arg(
        Arg::new("options")
            .value_name("PS-OPTIONS")
            .num_args(0..)
            .trailing_var_arg(true)
            .allow_hyphen_values(true)
            .help("Options of ps(1) [-ef]"),
    )
}

fn run(global: &Global, matches: &ArgMatches) -> Result<i32> {
    let (home, state) = container(global, matches)?;
    let cgroup = open_cgroup(state.cgroup.as_ref());
    let processes = match cgroup {
        Some(cgroup) => cgroup.processes()?,
        None => state.init.iter().filter(|init| init.open().is_some()).map(|i| i.pid).collect(),
    };
    if text_of(matches, "format") == Some("json") {
        let text = serde_json::to_string(&processes).unwrap_or_default();
        print(&text)?;
        return Ok(0);
    }
    let options: Vec<&String> =
        matches.get_many("options").map(Iterator::collect).unwrap_or_default();
    let mut ps = std::process::Command::new("ps");
    if options.is_empty() {
        ps.arg("-ef")
    } else {
        ps.args(options)
    };
    let output = ps.output().map_err(Error::file(format!("ps for container {}", home.id())))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Config(format!("ps: {}", said.trim())));
    }
    print(&rows_of(&String::from_utf8_lossy(&output.stdout), &processes)?)?;
    Ok(0)
}

/// The header and the rows whose PID column names one of `processes`.
fn rows_of(output: &str, processes: &[i32]) -> Result<String> {
    let mut lines = output.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_whitespace().position(|title| title == "PID").ok_or_else(|| {
        Error::Config("the output of ps has no PID column: choose options that print it".into())
    })?;
    let ours = |line: &&str| {
        let number = line.split_whitespace().nth(column).and_then(|cell| cell.parse().ok());
        number.is_some_and(|number: i32| processes.contains(&number))
    };
    Ok(std::iter::once(header).chain(lines.filter(ours)).map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_rows_are_kept() {
        let output = "UID   PID CMD\nroot    1 init\nroot   42 web\n";
        assert_eq!(rows_of(output, &[42]).unwrap(), "UID   PID CMD\nroot   42 web\n");
        assert!(rows_of("CMD\nx\n", &[42]).is_err());
    }
}
