//! What people may say about a container on the command line, over what its configuration says.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use clap::parser::ValueSource::CommandLine;
use clap::{Arg, ArgAction, ArgMatches, value_parser};
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxIdMapping, LinuxMemory, LinuxNamespace, LinuxNamespaceType,
    LinuxPids, LinuxResources, LinuxThrottleDevice, Mount, Spec,
};

use super::arguments::{flag, text_of, value};
use crate::cgroup::{Host, Layout};
use crate::error::{Error, Result};
use crate::spec::units;

/// The arguments.
pub(super) fn arguments() -> Vec<Arg> {
    let list = |name, placeholder, help| value(name, placeholder, help).action(ArgAction::Append);
    let limits = "Limits";
    let process = "Process";
    let limit = |arg: Arg| arg.help_heading(limits);
    let about = |arg: Arg| arg.help_heading(process);
    vec![
        limit(value("memory", "SIZE", "Memory: 512m, 1g, 268435456").short('m')),
        limit(
            value("memory-swap", "SIZE", "Memory and swap together; -1 for any swap")
                .allow_negative_numbers(true),
        ),
        limit(value("memory-reservation", "SIZE", "Memory that is kept when others want it")),
        limit(value("cpus", "N", "Processors: 1.5")),
        limit(
            value("cpu-weight", "1-10000", "Share of processor time against others; 100 is usual")
                .value_parser(value_parser!(u64).range(1..=10_000)),
        ),
        limit(value("cpuset", "LIST", "Which processors: 0-1,3")),
        limit(
            value("pids", "N", "Processes and threads; -1 for any number")
                .allow_negative_numbers(true)
                .value_parser(value_parser!(i64).range(-1..)),
        ),
        limit(
            value("io-weight", "10-1000", "Share of disk bandwidth against others")
                .value_parser(value_parser!(u16).range(10..=1000)),
        ),
        limit(list("io-read-bps", "DEV:SIZE", "Bytes per second read from a disk: /dev/sda:10m")),
        limit(list("io-write-bps", "DEV:SIZE", "Bytes per second written to a disk")),
        limit(list("io-read-iops", "DEV:N", "Reads per second of a disk")),
        limit(list("io-write-iops", "DEV:N", "Writes per second to a disk")),
        about(
            list("env", "NAME=VALUE", "Environment variable (NAME alone: as it is here)")
                .short('e'),
        ),
        about(value("user", "UID[:GID]", "Who the program runs as").short('u')),
        about(value("workdir", "DIR", "Working directory").short('w')),
        about(value("hostname", "NAME", "Host name")),
        about(
            list("volume", "SRC:DST[:ro]", "Show a file or directory of the host inside")
                .short('v'),
        ),
        about(value(
            "userns",
            "FIRST[:COUNT]",
            "Root of the container is user FIRST here, its user 1 the next, … [COUNT 65536]",
        )),
        about(flag("tty", "Give the program a terminal").short('t')),
        about(flag("read-only", "Forbid writes to the root file system")),
    ]
}

/// Writes what was said into the configuration. Gives whether anything was.
pub(super) fn apply(spec: &mut Spec, matches: &ArgMatches, command: Vec<String>) -> Result<bool> {
    let said = |arg: &Arg| matches.value_source(arg.get_id().as_str()) == Some(CommandLine);
    if command.is_empty() && !arguments().iter().any(said) {
        return Ok(false);
    }
    limits(spec, matches)?;
    process(spec, matches, command)?;
    mounts(spec, matches)?;
    user_namespace(spec, matches)?;
    Ok(true)
}

fn limits(spec: &mut Spec, matches: &ArgMatches) -> Result<()> {
    // Taken out and put back, and not copied: the system call filter in there is large.
    let linux = spec.linux_mut().get_or_insert_default();
    let mut resources = linux.resources_mut().take().unwrap_or_default();
    memory(&mut resources, matches)?;
    cpu(&mut resources, matches)?;
    if let Some(limit) = matches.get_one::<i64>("pids") {
        let mut pids = LinuxPids::default();
        pids.set_limit(*limit);
        resources.set_pids(Some(pids));
    }
    block_io(&mut resources, matches)?;
    linux.set_resources(Some(resources));
    Ok(())
}

fn size(matches: &ArgMatches, name: &str) -> Result<Option<i64>> {
    let Some(text) = text_of(matches, name) else { return Ok(None) };
    if text == "-1" {
        return Ok(Some(-1));
    }
    units::bytes(text).map(Some).map_err(|why| wrong(name, &why))
}

fn memory(resources: &mut LinuxResources, matches: &ArgMatches) -> Result<()> {
    let (limit, swap, reservation) = (
        size(matches, "memory")?,
        size(matches, "memory-swap")?,
        size(matches, "memory-reservation")?,
    );
    if limit.is_none() && swap.is_none() && reservation.is_none() {
        return Ok(());
    }
    let mut memory: LinuxMemory = resources.memory().unwrap_or_default();
    if let Some(limit) = limit {
        memory.set_limit(Some(limit));
        // Unless somebody asks for swap, a memory limit means memory. (v1 hosts often cannot count
        // swap, and there a limit that nobody asked for must not become an error.)
        let unified = matches!(Host::get(), Ok(Some(host)) if host.layout() == Layout::Unified);
        if unified && memory.swap().is_none() {
            memory.set_swap(Some(limit));
        }
    }
    if let Some(swap) = swap {
        memory.set_swap(Some(swap));
    }
    if let Some(reservation) = reservation {
        memory.set_reservation(Some(reservation));
    }
    resources.set_memory(Some(memory));
    Ok(())
}

fn cpu(resources: &mut LinuxResources, matches: &ArgMatches) -> Result<()> {
    let mut cpu: LinuxCpu = resources.cpu().clone().unwrap_or_default();
    let before = cpu.clone();
    if let Some(text) = text_of(matches, "cpus") {
        let (quota, period) = units::cpus(text).map_err(|why| wrong("cpus", &why))?;
        cpu.set_quota(Some(quota)).set_period(Some(period));
    }
    if let Some(text) = text_of(matches, "cpuset") {
        let list = units::number_list(text).map_err(|why| wrong("cpuset", &why))?;
        cpu.set_cpus(Some(list.to_string()));
    }
    if let Some(weight) = matches.get_one::<u64>("cpu-weight") {
        if matches!(Host::get(), Ok(Some(host)) if host.layout() == Layout::Unified) {
            let mut unified = resources.unified().clone().unwrap_or_default();
            unified.insert("cpu.weight".into(), weight.to_string());
            resources.set_unified(Some(unified));
        } else {
            // The usual share of version 1 is 1024, the usual weight 100.
            cpu.set_shares(Some((weight * 1024 / 100).max(2)));
        }
    }
    if cpu != before {
        resources.set_cpu(Some(cpu));
    }
    Ok(())
}

fn block_io(resources: &mut LinuxResources, matches: &ArgMatches) -> Result<()> {
    let mut io: LinuxBlockIo = resources.block_io().clone().unwrap_or_default();
    let before = io.clone();
    if let Some(weight) = matches.get_one::<u16>("io-weight") {
        io.set_weight(Some(*weight));
    }
    if let Some(list) = throttles(matches, "io-read-bps")? {
        io.set_throttle_read_bps_device(Some(list));
    }
    if let Some(list) = throttles(matches, "io-write-bps")? {
        io.set_throttle_write_bps_device(Some(list));
    }
    if let Some(list) = throttles(matches, "io-read-iops")? {
        io.set_throttle_read_iops_device(Some(list));
    }
    if let Some(list) = throttles(matches, "io-write-iops")? {
        io.set_throttle_write_iops_device(Some(list));
    }
    if io != before {
        resources.set_block_io(Some(io));
    }
    Ok(())
}

/// `DEV:RATE`, the device by its node on the host.
fn throttles(matches: &ArgMatches, name: &str) -> Result<Option<Vec<LinuxThrottleDevice>>> {
    let Some(list) = matches.get_many::<String>(name) else { return Ok(None) };
    let parsed: Result<Vec<_>> = list
        .map(|text| {
            let (device, rate) = text
                .rsplit_once(':')
                .ok_or_else(|| wrong(name, &format!("{text:?} is not DEVICE:RATE")))?;
            let rate = units::bytes(rate).map_err(|why| wrong(name, &why))?;
            let metadata = std::fs::metadata(device)
                .map_err(|error| wrong(name, &format!("{device}: {error}")))?;
            if !metadata.file_type().is_block_device() {
                return Err(wrong(name, &format!("{device} is not a block device")));
            }
            let numbers = metadata.rdev();
            let throttle = serde_json::json!({
                "major": linux::device::major(numbers),
                "minor": linux::device::minor(numbers),
                "rate": rate,
            });
            crate::json::typed::<LinuxThrottleDevice>(&throttle)
                .map_err(|error| wrong(name, &error.to_string()))
        })
        .collect();
    parsed.map(Some)
}

fn process(spec: &mut Spec, matches: &ArgMatches, command: Vec<String>) -> Result<()> {
    let mut process = spec.process().clone().unwrap_or_default();
    if !command.is_empty() {
        process.set_args(Some(command));
    }
    if let Some(list) = matches.get_many::<String>("env") {
        let mut environment = process.env().clone().unwrap_or_default();
        for entry in list {
            match (entry.contains('='), std::env::var(entry)) {
                (true, _) => environment.push(entry.clone()),
                (false, Ok(value)) => environment.push(format!("{entry}={value}")),
                (false, Err(_)) => return Err(wrong("env", &format!("{entry} is not set here"))),
            }
        }
        process.set_env(Some(environment));
    }
    if let Some(text) = text_of(matches, "user") {
        let (uid, gid) = super::exec::user_of(text)?;
        process.user_mut().set_uid(uid).set_gid(gid.unwrap_or(0)).set_additional_gids(None);
    }
    if let Some(dir) = text_of(matches, "workdir") {
        process.set_cwd(dir.into());
    }
    if matches.get_flag("tty") {
        process.set_terminal(Some(true));
    }
    spec.set_process(Some(process));
    if let Some(name) = text_of(matches, "hostname") {
        spec.set_hostname(Some(name.to_owned()));
    }
    if matches.get_flag("read-only") {
        let mut root = spec.root().clone().unwrap_or_default();
        root.set_readonly(Some(true));
        spec.set_root(Some(root));
    }
    Ok(())
}

fn mounts(spec: &mut Spec, matches: &ArgMatches) -> Result<()> {
    let Some(list) = matches.get_many::<String>("volume") else { return Ok(()) };
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for text in list {
        let mut parts = text.split(':');
        let (source, destination, mode) = (parts.next(), parts.next(), parts.next());
        let read_only = match (mode, parts.next()) {
            (None | Some("rw"), None) => false,
            (Some("ro"), None) => true,
            _ => return Err(wrong("volume", &format!("{text:?} is not SRC:DST or SRC:DST:ro"))),
        };
        let (Some(source), Some(destination)) =
            (source, destination.filter(|d| d.starts_with('/')))
        else {
            return Err(wrong("volume", &format!("{text:?} is not SRC:/DST[:ro]")));
        };
        let source = std::fs::canonicalize(source)
            .map_err(|error| wrong("volume", &format!("{source}: {error}")))?;
        let mut mount = Mount::default();
        let mut options = vec!["rbind".to_owned(), "nosuid".to_owned(), "nodev".to_owned()];
        options.extend(read_only.then(|| "rro".to_owned()));
        mount
            .set_destination(destination.into())
            .set_source(Some(source))
            .set_typ(Some("bind".into()))
            .set_options(Some(options));
        mounts.push(mount);
    }
    spec.set_mounts(Some(mounts));
    Ok(())
}

/// Users and groups from 0 on become `FIRST` and those after it.
fn user_namespace(spec: &mut Spec, matches: &ArgMatches) -> Result<()> {
    let Some(text) = text_of(matches, "userns") else { return Ok(()) };
    let wrong = |why: &str| wrong("userns", why);
    if linux::credentials::effective_user() != 0 {
        return Err(wrong(
            "only root chooses users: yours is a user namespace of your own already",
        ));
    }
    let (first, count) = text.split_once(':').unwrap_or((text, "65536"));
    let number = |text: &str| {
        let number = text.parse::<u32>().ok().filter(|&number| number > 0);
        number.ok_or_else(|| wrong(&format!("{text:?} is not FIRST or FIRST:COUNT, from 1 on")))
    };
    let (first, count) = (number(first)?, number(count)?);
    let linux = spec.linux_mut().get_or_insert_default();
    let namespaces = linux.namespaces_mut().get_or_insert_default();
    if namespaces.iter().any(|namespace| namespace.typ() == LinuxNamespaceType::User) {
        return Err(wrong("config.json has a user namespace already"));
    }
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(LinuxNamespaceType::User);
    namespaces.push(namespace);
    let range = serde_json::json!([{"containerID": 0, "hostID": first, "size": count}]);
    let ranges: Vec<LinuxIdMapping> =
        crate::json::typed(&range).map_err(|error| wrong(&error.to_string()))?;
    linux.set_uid_mappings(Some(ranges.clone()));
    linux.set_gid_mappings(Some(ranges));
    Ok(())
}

fn wrong(name: &str, why: &str) -> Error {
    Error::Config(format!("--{name}: {why}"))
}
