//! `minirun list`: all containers.

use clap::{Arg, ArgMatches, Command};

use super::answer::{print, print_json};
use super::arguments::{flag, text_of};
use super::verb::{Global, Verb};
use crate::container::oci_state::Report;
use crate::error::{Error, Result};

pub(super) const VERB: Verb = Verb {
    name: "list",
    about: "List all containers",
    arguments,
    run,
    enters_containers: false,
    failure_status: 1,
};

fn arguments(command: Command) -> Command {
    command.arg(flag("quiet", "Names only").short('q')).arg(format_argument())
}

/// `--format table|json`.
pub(super) fn format_argument() -> Arg {
    Arg::new("format")
        .long("format")
        .short('f')
        .value_name("FORMAT")
        .value_parser(["table", "json"])
        .default_value("table")
        .help("How to print it")
}

fn run(global: &Global, matches: &ArgMatches) -> Result<i32> {
    let root = global.state_root()?;
    let names = root.list()?;
    if matches.get_flag("quiet") {
        print(&names.iter().map(|name| format!("{name}\n")).collect::<String>())?;
        return Ok(0);
    }
    let mut reports = Vec::new();
    for name in names {
        match root.home(&name).and_then(|home| Report::of(&home)) {
            Ok(report) => reports.push(report),
            // Deleted meanwhile.
            Err(Error::NotFound(_)) => {}
            Err(error) => global.log.warning(&format!("{name}: {error}")),
        }
    }
    if text_of(matches, "format") == Some("json") {
        print_json(&reports)?;
    } else {
        print(&table(&reports))?;
    }
    Ok(0)
}

fn table(reports: &[Report]) -> String {
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let rows = reports.iter().map(|report| {
        [
            report.id.clone(),
            report.pid.to_string(),
            report.status.to_string(),
            report.bundle.display().to_string(),
            report.created.clone(),
            report.owner.clone(),
        ]
    });
    columns(&std::iter::once(header).chain(rows).collect::<Vec<_>>())
}

/// Rows with columns as wide as their widest cell.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("   ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["ID", "STATUS"], ["long-name", "x"]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), "ID          STATUS\nlong-name   x\n");
    }
}
