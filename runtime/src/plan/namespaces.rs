//! Which views of the machine are new, which are shared, and who is who in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use linux::namespace::{Kind, Namespaces};
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};

use super::Circumstances;
use crate::error::{Error, Result};

/// Namespaces of a container.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct NamespacePlan {
    /// Those that are made.
    pub new: Namespaces,
    /// Those that are entered, in entering order.
    pub join: Vec<(Kind, PathBuf)>,
    /// Offsets of the clocks of a new time namespace: (clock, seconds, nanoseconds).
    pub clock_offsets: Vec<(String, i64, u32)>,
}

impl NamespacePlan {
    pub(super) fn decide(linux: &Linux) -> Result<Self> {
        let mut plan = Self::default();
        let mut seen = Namespaces::default();
        for namespace in linux.namespaces().iter().flatten() {
            let kind = kind(namespace.typ());
            if seen.contains(kind) {
                return Err(Error::Config(format!(
                    "config.json: linux.namespaces: duplicate namespace {:?}",
                    config_name(kind)
                )));
            }
            seen.insert(kind);
            match namespace.path().clone().filter(|path| !path.as_os_str().is_empty()) {
                None => plan.new.insert(kind),
                Some(path) if path.is_absolute() => plan.join.push((kind, path)),
                Some(path) => {
                    return Err(Error::Config(format!(
                        "config.json: linux.namespaces: path {path:?} of {:?} is not absolute",
                        config_name(kind)
                    )));
                }
            }
        }
        plan.join.sort_by_key(|(kind, _)| *kind);
        plan.clock_offsets = clock_offsets(linux, plan.new)?;
        Ok(plan)
    }

    /// Whether the container has a namespace of that kind that is not the runtime's.
    pub fn has(&self, kind: Kind) -> bool {
        self.new.contains(kind) || self.joins(kind)
    }

    /// Whether the container enters an existing namespace of that kind.
    pub fn joins(&self, kind: Kind) -> bool {
        self.join.iter().any(|(joined, _)| *joined == kind)
    }
}

fn clock_offsets(linux: &Linux, new: Namespaces) -> Result<Vec<(String, i64, u32)>> {
    let Some(offsets) = linux.time_offsets().as_ref().filter(|offsets| !offsets.is_empty()) else {
        return Ok(Vec::new());
    };
    if !new.contains(Kind::Time) {
        return Err(Error::Config(
            "config.json: linux.timeOffsets needs a new time namespace in linux.namespaces".into(),
        ));
    }
    let sorted: BTreeMap<_, _> = offsets.iter().collect();
    let checked = sorted.into_iter().map(|(clock, offset)| {
        if clock != "monotonic" && clock != "boottime" {
            return Err(Error::Config(format!(
                "config.json: linux.timeOffsets: {clock:?} is neither monotonic nor boottime"
            )));
        }
        Ok((clock.clone(), offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0)))
    });
    checked.collect()
}

/// One range of user or group numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMap {
    /// The first number inside.
    pub inside: u32,
    /// The first number outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// How users and groups of a new user namespace map to the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityMap {
    /// Users.
    pub users: Vec<IdMap>,
    /// Groups.
    pub groups: Vec<IdMap>,
    /// Whether newuidmap(1) and newgidmap(1) must write it: we may only map ourselves.
    pub by_helper: bool,
    /// Whether setgroups(2) is switched off first, as the kernel wants it of an unprivileged
    /// process that maps its own group.
    pub deny_setgroups: bool,
}

pub(super) fn identity_map(
    linux: &Linux,
    namespaces: &NamespacePlan,
    at: &Circumstances<'_>,
) -> Result<Option<IdentityMap>> {
    let users = ranges("linux.uidMappings", linux.uid_mappings().as_deref())?;
    let groups = ranges("linux.gidMappings", linux.gid_mappings().as_deref())?;
    if namespaces.joins(Kind::User) {
        // It has its maps; engines that made it repeat them here.
        return Ok(None);
    }
    if !namespaces.new.contains(Kind::User) {
        if users.is_empty() && groups.is_empty() {
            return Ok(None);
        }
        return Err(Error::Config(
            "config.json: linux.uidMappings and gidMappings need a new user namespace in \
             linux.namespaces"
                .into(),
        ));
    }
    if users.is_empty() || groups.is_empty() {
        return Err(Error::Config(
            "config.json: a new user namespace needs linux.uidMappings and linux.gidMappings"
                .into(),
        ));
    }
    let only_ourselves =
        |map: &[IdMap], id: u32| matches!(map, [one] if one.count == 1 && one.outside == id);
    let ours = only_ourselves(&users, at.user)
        && only_ourselves(&groups, linux::credentials::effective_group());
    let by_helper = !at.privileged && !ours;
    Ok(Some(IdentityMap { users, groups, by_helper, deny_setgroups: !at.privileged && ours }))
}

/// The maps of a user namespace that exists, from the process in whose directory it is named.
pub(super) fn maps_of_process(namespace: &Path) -> Result<(Vec<IdMap>, Vec<IdMap>)> {
    let unknown = || {
        Error::Unsupported(format!(
            "config.json: linux.namespaces: the layers of an image are mapped to the users of the \
             container, and {} does not tell them: name the namespace as /proc/PID/ns/user",
            namespace.display()
        ))
    };
    let process = namespace.ancestors().nth(2).filter(|_| namespace.ends_with("ns/user"));
    let process = process.ok_or_else(unknown)?;
    let read = |name: &str| -> Result<Vec<IdMap>> {
        let file = process.join(name);
        let text = std::fs::read_to_string(&file)
            .map_err(Error::file(format!("read {}", file.display())))?;
        text.lines().map(|line| line_of_map(line).ok_or_else(unknown)).collect()
    };
    Ok((read("uid_map")?, read("gid_map")?))
}

fn line_of_map(line: &str) -> Option<IdMap> {
    let mut numbers = line.split_whitespace().map(|word| word.parse().ok());
    let mut next = || numbers.next().flatten();
    Some(IdMap { inside: next()?, outside: next()?, count: next()? })
}

pub(super) fn ranges(field: &str, maps: Option<&[LinuxIdMapping]>) -> Result<Vec<IdMap>> {
    let ranges: Vec<_> = maps
        .unwrap_or_default()
        .iter()
        .map(|map| IdMap { inside: map.container_id(), outside: map.host_id(), count: map.size() })
        .collect();
    let ends = |start: u32, count: u32| u64::from(start) + u64::from(count);
    for (index, range) in ranges.iter().enumerate() {
        let fits = range.count > 0
            && ends(range.inside, range.count) <= u64::from(u32::MAX)
            && ends(range.outside, range.count) <= u64::from(u32::MAX);
        let overlaps = ranges.iter().take(index).any(|other| {
            u64::from(range.inside) < ends(other.inside, other.count)
                && u64::from(other.inside) < ends(range.inside, range.count)
        });
        if !fits || overlaps {
            let problem = if fits { "overlaps another range" } else { "is empty or too large" };
            return Err(Error::Config(format!(
                "config.json: {field}[{index}]: the range {problem}"
            )));
        }
    }
    Ok(ranges)
}

/// The interfaces that move into the container, each with its name there.
pub(super) fn net_devices(
    linux: &Linux,
    namespaces: &NamespacePlan,
) -> Result<BTreeMap<String, String>> {
    let wrong = |what: String| Error::Config(format!("config.json: linux.netDevices: {what}"));
    let mut devices = BTreeMap::new();
    for (name, device) in linux.net_devices().iter().flatten() {
        let inside = device.name().clone().filter(|inside| !inside.is_empty());
        let inside = inside.unwrap_or_else(|| name.clone());
        for one in [name, &inside] {
            // dev_valid_name of the kernel.
            let fits = (1..16).contains(&one.len()) && one != "." && one != "..";
            if !fits || one.contains(['/', ':']) || one.contains(char::is_whitespace) {
                return Err(wrong(format!("{one:?} is no name of an interface")));
            }
        }
        if devices.values().any(|other| *other == inside) {
            return Err(wrong(format!("two interfaces are to be called {inside:?}")));
        }
        devices.insert(name.clone(), inside);
    }
    if !devices.is_empty() && !namespaces.has(Kind::Network) {
        return Err(wrong("they need a network namespace in linux.namespaces to move to".into()));
    }
    Ok(devices)
}

/// Kernel parameters, as paths below `/proc/sys`, each checked to belong to a namespace that the
/// container has: any other would change the host.
pub(super) fn sysctl(
    linux: &Linux,
    namespaces: &NamespacePlan,
) -> Result<BTreeMap<String, String>> {
    const IPC: [&str; 8] = [
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
    ];
    let mut checked = BTreeMap::new();
    for (name, value) in linux.sysctl().iter().flatten() {
        let path = sysctl_path(name);
        let needs = if IPC.contains(&path.as_str()) || path.starts_with("fs/mqueue/") {
            Kind::Ipc
        } else if path.starts_with("net/") {
            Kind::Network
        } else if path == "kernel/domainname" {
            Kind::Uts
        } else if path.starts_with("user/") {
            Kind::User
        } else {
            let hint = if path == "kernel/hostname" { " (set hostname instead)" } else { "" };
            return Err(Error::Config(format!(
                "config.json: linux.sysctl: {name:?} is not a namespaced parameter{hint}: it \
                 would change the host"
            )));
        };
        if path.split('/').any(|part| part.is_empty() || part == "..") {
            return Err(Error::Config(format!("config.json: linux.sysctl: {name:?} is no name")));
        }
        if !namespaces.has(needs) {
            return Err(Error::Config(format!(
                "config.json: linux.sysctl: {name:?} needs a {} namespace of the container's own",
                config_name(needs)
            )));
        }
        checked.insert(path, value.clone());
    }
    Ok(checked)
}

/// sysctl(8): the first separator decides which one it is; the other then stands for itself
/// swapped (an interface name with a dot: `net/ipv4/conf/eth0.5/…` or `net.ipv4.conf.eth0/5.…`).
fn sysctl_path(name: &str) -> String {
    let first = name.find(['.', '/']).and_then(|at| name.as_bytes().get(at));
    if first != Some(&b'.') {
        return name.to_owned();
    }
    name.chars()
        .map(|character| match character {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect()
}

fn kind(typ: LinuxNamespaceType) -> Kind {
    match typ {
        LinuxNamespaceType::Mount => Kind::Mount,
        LinuxNamespaceType::Cgroup => Kind::Cgroup,
        LinuxNamespaceType::Uts => Kind::Uts,
        LinuxNamespaceType::Ipc => Kind::Ipc,
        LinuxNamespaceType::User => Kind::User,
        LinuxNamespaceType::Pid => Kind::Pid,
        LinuxNamespaceType::Network => Kind::Network,
        LinuxNamespaceType::Time => Kind::Time,
    }
}

/// The name in config.json.
pub fn config_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Network => "network",
        Kind::Mount => "mount",
        other => other.proc_name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_of_parameters_swap() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(sysctl_path("net/ipv4/ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(sysctl_path("net.ipv4.conf.eth0/5.rp_filter"), "net/ipv4/conf/eth0.5/rp_filter");
    }
}
