//! `minirun network fault`: a bad network for a container that runs, and a good one again.

use std::os::fd::AsFd;
use std::path::Path;

use clap::{Arg, ArgMatches, Command};
use linux::namespace::{self, Kind};
use network::process::Process;
use network::store::Store;
use network::traffic::relay::Launch;
use network::traffic::{Direction, Fault, Faults, Record, apply, records};

use super::super::answer::print;
use super::super::arguments::{id_argument, id_of, text_of, value};
use super::super::connect;
use super::super::verb::{Global, container};
use super::told;
use crate::container::state::{Home, State};
use crate::error::{Error, Result};

/// What can be wrong: the option, and its name in [`Faults::parse`].
const KINDS: [(&str, &str, &str, &str); 6] = [
    ("delay", "latency", "TIME", "Every packet comes that much later: 100ms"),
    ("jitter", "jitter", "TIME", "The delay varies by that much up and down: 10ms"),
    ("loss", "loss", "SHARE", "Packets that are lost: 1%"),
    ("duplicate", "duplicate", "SHARE", "Packets that come twice: 1%"),
    ("reorder", "reorder", "SHARE", "Packets that overtake the delayed ones: 5%"),
    ("rate", "rate", "RATE", "The bandwidth: 10mbit"),
];

/// Describes the arguments.
pub(super) fn command() -> Command {
    let direction = Arg::new("direction")
        .long("direction")
        .value_parser(["in", "out", "both"])
        .default_value("both")
        .help("Towards the container, from it, or each");
    let kinds = KINDS.map(|(option, _, placeholder, help)| value(option, placeholder, help));
    Command::new("fault")
        .about("Make a container's network bad: delay, loss, duplicates, disorder, a rate")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("set")
                .about("Replace the container's faults by these")
                .arg(id_argument())
                .args(kinds)
                .arg(direction)
                .arg(value(
                    "until-exit",
                    "PID",
                    "Until that process ends [until they are cleared]",
                )),
        )
        .subcommand(Command::new("ls").about("List the faults"))
        .subcommand(
            Command::new("clear").about("Take the container's faults back").arg(id_argument()),
        )
}

/// Does it.
pub(super) fn run(global: &Global, matches: &ArgMatches, store: &Store) -> Result<()> {
    // Faults of processes that have died are none any more.
    network::collect::collect(store).map_err(told)?;
    match matches.subcommand() {
        Some(("set", matches)) => set(global, matches, store, Some(fault_of(matches)?)),
        Some(("clear", matches)) => set(global, matches, store, None),
        _ => {
            print(&table(store)?)?;
            Ok(())
        }
    }
}

fn fault_of(matches: &ArgMatches) -> Result<Fault> {
    let asked = KINDS.iter().filter_map(|(option, name, ..)| {
        text_of(matches, option).map(|text| format!("{name}={text}"))
    });
    let text = asked.collect::<Vec<_>>().join(",");
    if text.is_empty() {
        let options: Vec<_> = KINDS.iter().map(|(option, ..)| format!("--{option}")).collect();
        return Err(Error::Config(format!("no fault was given: {}", options.join(", "))));
    }
    let faults = Faults::parse(&text).map_err(told)?;
    let direction = text_of(matches, "direction").unwrap_or("both");
    let if_not = |other| if direction == other { Faults::default() } else { faults };
    let holder = text_of(matches, "until-exit").map(process).transpose()?;
    Ok(Fault { inward: if_not("out"), outward: if_not("in"), holder })
}

fn process(text: &str) -> Result<Process> {
    let found = text.parse().ok().and_then(Process::of);
    found.ok_or_else(|| Error::Config(format!("--until-exit {text}: there is no such process")))
}

fn set(global: &Global, matches: &ArgMatches, store: &Store, fault: Option<Fault>) -> Result<()> {
    let (home, state) = container(global, matches)?;
    let id = id_of(matches);
    let leases = connected(&state)?;
    // Held open, the process keeps its number, and with that the path keeps its meaning.
    let init = state.init.and_then(|init| Some((init.pid, init.open()?)));
    let (pid, _process) = init.ok_or_else(|| {
        Error::WrongState(format!("container {id} does not run; its faults went with it"))
    })?;
    let netns = namespace::open(format!("/proc/{pid}/ns/net").as_ref(), Kind::Network)
        .map_err(Error::kernel(format!("open the network namespace of {id}")))?;
    let guarded = is_guarded(&home)?;
    let arguments = &["minirun", "network", "relay"];
    let launch = Launch { program: Path::new("/proc/self/exe"), arguments };
    for endpoint in leases {
        let lease = &endpoint.lease;
        apply(store, netns.as_fd(), lease, None, Some(fault), guarded, Some(launch))
            .map_err(told)?;
    }
    Ok(())
}

/// The connections that minirun has made.
pub(super) fn connected(state: &State) -> Result<&[network::attach::Endpoint]> {
    let endpoints = state.network.as_ref().map(|network| &*network.attachment.endpoints);
    endpoints.filter(|all| !all.is_empty()).ok_or_else(|| {
        let text = "is in no network of minirun's; `minirun run --net bridge` connects one";
        Error::WrongState(format!("container {} {text}", state.id))
    })
}

fn is_guarded(home: &Home) -> Result<bool> {
    let file = home.path().join("config.json");
    let bytes = std::fs::read(&file).map_err(Error::file(format!("read {}", file.display())))?;
    Ok(connect::is_guarded(&crate::spec::parse(&bytes, &file)?.0))
}

fn table(store: &Store) -> Result<String> {
    let mut text = format!("{:<20} {:<12} {:<9} FAULTS\n", "CONTAINER", "NETWORK", "DIRECTION");
    for record in records(store).map_err(told)? {
        let Some(fault) = record.fault else { continue };
        let directions =
            [("in", Direction::In, fault.inward), ("out", Direction::Out, fault.outward)];
        for (name, direction, faults) in directions {
            if faults.is_none() {
                continue;
            }
            let (container, network) = (&record.lease.container, &record.lease.network);
            let faults = faults.text() + &by_whom(&record, direction);
            text.push_str(&format!("{container:<20} {network:<12} {name:<9} {faults}\n"));
        }
    }
    Ok(text)
}

/// Which process makes the fault, and whether it still does.
fn by_whom(record: &Record, direction: Direction) -> String {
    match record.relayed(direction) {
        None => String::new(),
        Some(relay) if relay.is_alive() => format!(" (by process {})", relay.pid),
        Some(relay) => format!(" (over: process {}, which made it, is gone)", relay.pid),
    }
}
