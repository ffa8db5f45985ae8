//! `minirun events`: what a container uses, and when the kernel kills in it, one JSON line each.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use clap::{ArgMatches, Command};
use linux::poll::{self, Ready};
use serde::Serialize;

use super::answer::print;
use super::arguments::{flag, id_argument, text_of, value};
use super::verb::{Global, Verb, container};
use crate::cgroup::{Cgroup, OomWatch, Stats};
use crate::container::open_cgroup;
use crate::container::resctrl_use::Statistics;
use crate::container::state::State;
use crate::error::{Error, Result};
use crate::steps::resctrl::Group;

pub(super) const VERB: Verb = Verb {
    name: "events",
    about: "Print what a container uses, and its deaths by lack of memory, as JSON lines",
    arguments,
    run,
    enters_containers: false,
    failure_status: 1,
};

fn arguments(command: Command) -> Command {
    command
        .arg(flag("stats", "Print the statistics once"))
        .arg(value("interval", "TIME", "Time between statistics: 5s, 500ms").default_value("5s"))
        .arg(id_argument())
}

/// One line. The names are runc's, which tools parse.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
}

#[derive(Serialize)]
struct Data {
    #[serde(flatten)]
    stats: Stats,
    intel_rdt: Statistics,
    network_interfaces: Vec<Interface>,
}

/// Counters of a network interface, in the order of proc_pid_net(5).
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Interface {
    name: String,
    rx_bytes: u64,
    rx_packets: u64,
    rx_errors: u64,
    rx_dropped: u64,
    tx_bytes: u64,
    tx_packets: u64,
    tx_errors: u64,
    tx_dropped: u64,
}

fn run(global: &Global, matches: &ArgMatches) -> Result<i32> {
    let (home, state) = container(global, matches)?;
    let init = state.init.filter(|init| init.open().is_some()).ok_or(Error::NotRunning)?;
    let process = init.open().ok_or(Error::NotRunning)?;
    let group = open_cgroup(state.cgroup.as_ref()).ok_or_else(|| {
        Error::Unsupported("the container has no cgroup: nothing counts what it uses".into())
    })?;
    if matches.get_flag("stats") {
        return tell_stats(&state, &group, init.pid).map(|()| 0);
    }
    let interval = interval_of(text_of(matches, "interval").unwrap_or_default())?;
    // Without a memory controller nobody can tell of its deaths, and the rest is still worth it.
    let mut deaths = group.watch_oom().ok();
    let mut next = Instant::now() + interval;
    loop {
        let mut watched = vec![(process.as_fd(), READ)];
        watched.extend(deaths.iter().map(|deaths| (deaths.as_fd(), deaths.interest())));
        let left = next.saturating_duration_since(Instant::now());
        let ready = poll::wait(&watched, Some(left)).map_err(Error::kernel("wait for events"))?;
        if ready.get(1).is_some_and(|ready| ready.readable || ready.hung_up) {
            tell_deaths(home.id(), &mut deaths)?;
        }
        if ready.first().is_some_and(|ready| ready.readable) {
            return Ok(0);
        }
        if Instant::now() >= next {
            tell_stats(&state, &group, init.pid)?;
            next += interval;
        }
    }
}

const READ: Ready = Ready { readable: true, writable: false, hung_up: false };

fn interval_of(text: &str) -> Result<Duration> {
    // A number alone is seconds, as youki takes it; a duration is runc's form.
    let parsed = match text.parse().map(Duration::from_secs) {
        Ok(seconds) => Some(seconds),
        Err(_) => humantime::parse_duration(text).ok(),
    };
    parsed.filter(|interval| !interval.is_zero()).ok_or_else(|| {
        Error::Config(format!("--interval {text:?}: give a time above zero, like 5s or 500ms"))
    })
}

fn tell_deaths(id: &str, deaths: &mut Option<OomWatch>) -> Result<()> {
    match deaths.as_mut().and_then(OomWatch::take) {
        Some(count) => (0..count).try_for_each(|_| tell(&Event { kind: "oom", id, data: None })),
        // The group is gone, and its file would wake us up for ever.
        None => {
            *deaths = None;
            Ok(())
        }
    }
}

fn tell_stats(state: &State, group: &Cgroup, pid: i32) -> Result<()> {
    let stats = group.stats();
    let counters = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let network_interfaces = interfaces(&counters);
    let resctrl = state.resctrl.as_ref().map(Group::places);
    let intel_rdt =
        resctrl.map_or_else(Statistics::default, |(group, monitor)| Statistics::of(group, monitor));
    let data = Some(Data { stats, intel_rdt, network_interfaces });
    tell(&Event { kind: "stats", id: &state.id, data })
}

fn tell(event: &Event<'_>) -> Result<()> {
    let text = serde_json::to_string(event)
        .map_err(|error| Error::Config(format!("write JSON: {error}")))?;
    print(&format!("{text}\n"))?;
    Ok(())
}

/// The interfaces in `/proc/PID/net/dev`: two lines of titles, then a line each.
fn interfaces(text: &str) -> Vec<Interface> {
    let one = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let counters: Vec<u64> = counters.split_whitespace().flat_map(str::parse).collect();
        let get = |index: usize| counters.get(index).copied();
        Some(Interface {
            name: name.trim().to_owned(),
            rx_bytes: get(0)?,
            rx_packets: get(1)?,
            rx_errors: get(2)?,
            rx_dropped: get(3)?,
            tx_bytes: get(8)?,
            tx_packets: get(9)?,
            tx_errors: get(10)?,
            tx_dropped: get(11)?,
        })
    };
    text.lines().skip(2).filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_from_procfs() {
        let text =
            "Inter-|   Receive\n face |bytes\n  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
        let found = interfaces(text);
        let [eth0] = &found[..] else { panic!("{found:?}") };
        assert_eq!((eth0.name.as_str(), eth0.rx_bytes, eth0.tx_dropped), ("eth0", 1, 12));
        assert!(interfaces("").is_empty());
    }

    #[test]
    fn intervals_are_times_above_zero() {
        assert_eq!(interval_of("5s").unwrap(), Duration::from_secs(5));
        assert_eq!(interval_of("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(interval_of("2").unwrap(), Duration::from_secs(2));
        for text in ["0", "0s", "-1s", "soon", ""] {
            assert!(interval_of(text).is_err(), "{text:?}");
        }
    }
}
