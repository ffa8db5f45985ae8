//! `minirun network stats`: what went through the interfaces of containers.

use clap::{Arg, ArgMatches, Command};
use network::store::Store;
use network::traffic::{Statistics, statistics};

use super::super::answer::{print, print_json};
use super::super::arguments::{flag, text_of};
use super::super::verb::Global;
use super::told;
use crate::error::{Error, Result};

/// Describes the arguments.
pub(super) fn command() -> Command {
    Command::new("stats")
        .about("Show bytes, packets and drops of containers, as they see them")
        .arg(Arg::new("id").value_name("CONTAINER").help("Only this one [all]"))
        .arg(flag("json", "Print JSON"))
}

/// One interface of one container.
#[derive(serde::Serialize)]
struct Row {
    container: String,
    #[serde(flatten)]
    statistics: Statistics,
}

/// Does it.
pub(super) fn run(global: &Global, matches: &ArgMatches, store: &Store) -> Result<()> {
    let root = global.state_root()?;
    let asked = text_of(matches, "id");
    let names = asked.map_or_else(|| root.list(), |id| Ok(vec![id.to_owned()]))?;
    let mut rows = Vec::new();
    for name in names {
        let state = match root.home(&name).and_then(|home| home.load()) {
            Ok(Some(state)) => state,
            // Deleted meanwhile, unless it was asked for.
            Ok(None) | Err(Error::NotFound(_)) if asked.is_none() => continue,
            Ok(None) => return Err(Error::NotFound(name)),
            Err(error) => return Err(error),
        };
        if asked.is_some() {
            super::fault::connected(&state)?;
        }
        let Some(network) = state.network else { continue };
        let all = statistics(store, &network.attachment).map_err(told)?;
        rows.extend(all.into_iter().map(|statistics| Row { container: name.clone(), statistics }));
    }
    if matches.get_flag("json") {
        return print_json(&rows);
    }
    print(&table(&rows))?;
    Ok(())
}

fn table(rows: &[Row]) -> String {
    let line = |cells: [&str; 9]| {
        let [container, network, interface, numbers @ ..] = cells;
        let numbers: String = numbers.iter().map(|cell| format!(" {cell:>12}")).collect();
        format!("{container:<20} {network:<12} {interface:<9}{numbers}\n")
    };
    let mut text = line([
        "CONTAINER",
        "NETWORK",
        "INTERFACE",
        "IN BYTES",
        "PACKETS",
        "DROPPED",
        "OUT BYTES",
        "PACKETS",
        "DROPPED",
    ]);
    for Row { container, statistics } in rows {
        let traffic = &statistics.traffic;
        let numbers = [
            traffic.received_bytes,
            traffic.received_packets,
            traffic.received_dropped + statistics.shaped_drops,
            traffic.sent_bytes,
            traffic.sent_packets,
            traffic.sent_dropped,
        ]
        .map(|number| number.to_string());
        let [a, b, c, d, e, f] = &numbers;
        let Statistics { network, interface, .. } = statistics;
        text.push_str(&line([container, network, interface, a, b, c, d, e, f]));
    }
    text
}
