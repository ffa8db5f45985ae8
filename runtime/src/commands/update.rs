//! `minirun update`: change the limits of a container that exists.

use std::io::Read;

use clap::{ArgMatches, Command, value_parser};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use super::arguments::{id_argument, text_of, value};
use super::verb::{Global, Verb, container};
use crate::container::open_cgroup;
use crate::container::state::Status;
use crate::error::{Error, Result};
use crate::json;
use crate::plan::schemata_lines;
use crate::spec::units;

pub(super) const VERB: Verb = Verb {
    name: "update",
    about: "Change the limits of a container",
    arguments,
    run,
    enters_containers: false,
    failure_status: 1,
};

fn arguments(command: Command) -> Command {
    let number = |name, help| value(name, "N", help).allow_hyphen_values(true);
    command
        .arg(
            value("resources", "FILE", "The limits as in config.json; `-` reads standard input")
                .short('r')
                .allow_hyphen_values(true),
        )
        .arg(
            number("blkio-weight", "Share of disk bandwidth, 10 to 1000")
                .value_parser(value_parser!(u16)),
        )
        .arg(
            number("cpu-period", "Period of the processor quota, in µs")
                .value_parser(value_parser!(u64)),
        )
        .arg(
            number("cpu-quota", "Processor time in each period, in µs")
                .value_parser(value_parser!(i64)),
        )
        .arg(number("cpu-burst", "Saved up processor time, in µs").value_parser(value_parser!(u64)))
        .arg(number("cpu-share", "Share of processor time").value_parser(value_parser!(u64)))
        .arg(number("cpu-idle", "1: only what nobody else wants").value_parser(value_parser!(i64)))
        .arg(number("cpu-rt-period", "Real-time period, in µs").value_parser(value_parser!(u64)))
        .arg(number("cpu-rt-runtime", "Real-time quota, in µs").value_parser(value_parser!(i64)))
        .arg(value("cpuset-cpus", "LIST", "Which processors"))
        .arg(value("cpuset-mems", "LIST", "Which memory nodes"))
        .arg(value("memory", "SIZE", "Memory").allow_hyphen_values(true))
        .arg(value("memory-reservation", "SIZE", "Memory that is kept").allow_hyphen_values(true))
        .arg(value("memory-swap", "SIZE", "Memory and swap together").allow_hyphen_values(true))
        .arg(number("pids-limit", "Processes and threads").value_parser(value_parser!(i64)))
        .arg(value("l3-cache-schema", "LINES", "Share of the processor's cache (resctrl)"))
        .arg(value("mem-bw-schema", "LINE", "Share of memory bandwidth (resctrl)"))
        .arg(id_argument())
}

fn run(global: &Global, matches: &ArgMatches) -> Result<i32> {
    let (home, state) = container(global, matches)?;
    let _lock = home.lock()?;
    if state.status(&home) == Status::Stopped {
        return Err(Error::NotRunning);
    }
    let names = ["l3-cache-schema", "mem-bw-schema"].map(|name| text_of(matches, name));
    let lines = schemata_lines(names[0], names[1])?;
    if !lines.is_empty() {
        let none =
            || Error::Unsupported("the container has no linux.intelRdt in its config.json".into());
        let group = state.resctrl.as_ref().ok_or_else(none)?;
        group.write(&lines).map_err(|cause| Error::Config(cause.text))?;
    }
    let resources = resources_of(matches)?;
    let cgroup = open_cgroup(state.cgroup.as_ref()).ok_or_else(|| {
        Error::Unsupported("the container has no cgroup: its limits cannot be changed".into())
    })?;
    cgroup.update(&resources)?;
    Ok(0)
}

fn resources_of(matches: &ArgMatches) -> Result<LinuxResources> {
    if let Some(source) = text_of(matches, "resources") {
        let mut text = String::new();
        let read = if source == "-" {
            std::io::stdin().read_to_string(&mut text).map(drop)
        } else {
            std::fs::read_to_string(source).map(|all| text = all)
        };
        read.map_err(Error::file(format!("read resources from {source}")))?;
        return json::read(text.as_bytes())
            .map_err(|error| Error::Config(format!("resources of {source}: {error}")));
    }
    let mut resources: LinuxResources =
        json::read(b"{}").map_err(|error| Error::Config(format!("no resources: {error}")))?;
    resources.set_memory(memory(matches)?);
    resources.set_cpu(cpu(matches));
    if let Some(limit) = matches.get_one::<i64>("pids-limit") {
        let mut pids = LinuxPids::default();
        pids.set_limit(*limit);
        resources.set_pids(Some(pids));
    }
    if let Some(weight) = matches.get_one::<u16>("blkio-weight") {
        let mut io = LinuxBlockIo::default();
        io.set_weight(Some(*weight));
        resources.set_block_io(Some(io));
    }
    Ok(resources)
}

fn memory(matches: &ArgMatches) -> Result<Option<LinuxMemory>> {
    let size = |name: &str| -> Result<Option<i64>> {
        let Some(text) = text_of(matches, name) else { return Ok(None) };
        if text == "-1" {
            return Ok(Some(-1));
        }
        let parsed = units::bytes(text).map(Some);
        parsed.map_err(|why| Error::Config(format!("--{name}: {why}")))
    };
    let (limit, reservation, swap) =
        (size("memory")?, size("memory-reservation")?, size("memory-swap")?);
    if limit.is_none() && reservation.is_none() && swap.is_none() {
        return Ok(None);
    }
    let mut memory = LinuxMemory::default();
    memory.set_limit(limit).set_reservation(reservation).set_swap(swap);
    Ok(Some(memory))
}

fn cpu(matches: &ArgMatches) -> Option<LinuxCpu> {
    let mut cpu: LinuxCpu = LinuxCpu::default();
    cpu.set_shares(matches.get_one("cpu-share").copied())
        .set_quota(matches.get_one("cpu-quota").copied())
        .set_period(matches.get_one("cpu-period").copied())
        .set_burst(matches.get_one("cpu-burst").copied())
        .set_idle(matches.get_one("cpu-idle").copied())
        .set_realtime_period(matches.get_one("cpu-rt-period").copied())
        .set_realtime_runtime(matches.get_one("cpu-rt-runtime").copied())
        .set_cpus(text_of(matches, "cpuset-cpus").map(str::to_owned))
        .set_mems(text_of(matches, "cpuset-mems").map(str::to_owned));
    (cpu != LinuxCpu::default()).then_some(cpu)
}
