//! Groups that systemd makes: `--systemd-cgroup`.
//!
//! # What the kernel offers
//! Nothing: that only one program manages the cgroup tree is an agreement of user space, and on
//! most hosts that program is systemd. Engines that follow it (Docker and Kubernetes do by default)
//! name a unit instead of a path, `slice:prefix:name`.
//!
//! # What we do
//! Ask systemd over D-Bus for a transient scope around the container's first process, which
//! exists already and waits, and with `Delegate=yes`, so that from then on the group's files are
//! ours. One message with everything in it, one wait for the end of the job, then the files are
//! written as without systemd.
//!
//! # What goes wrong without it
//! On a systemd host, limits on groups that systemd does not know disappear when it reloads, and
//! the host's own accounting (`systemd-cgls`, `systemctl status`) does not see the container.
//!
//! # By hand
//! Where systemd is process 1:
//! ```sh
//! test -d /run/systemd/system || exit 0
//! systemd-run --scope --unit=lesson -p Delegate=yes -p MemoryMax=64M cat /proc/self/cgroup
//! ```
//!
//! See: systemd.scope(5), org.freedesktop.systemd1(5), systemd's CGROUP_DELEGATION.md.

mod bus;
mod message;
mod properties;

use std::path::{Path, PathBuf};

use linux::Pid;
use oci_spec::runtime::LinuxResources;

use super::group::{Cgroup, Record};
use super::host::{self, Host, Layout, Version};
use super::limits::{self, Setting};
use super::{Error, place};
use bus::{Bus, Refused, Scope};
use message::{Properties, Value};

/// A scope of systemd for one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// `docker-0123abcd.scope`.
    pub name: String,
    /// The slice that it is in: `system.slice`.
    pub slice: String,
    scope: Scope,
}

impl Unit {
    /// Reads `linux.cgroupsPath` in systemd's form, `slice:prefix:name`, or chooses the defaults
    /// for container `id`.
    ///
    /// An empty slice is `system.slice`, or `user.slice` for an unprivileged caller.
    pub fn parse(cgroups_path: Option<&str>, id: &str) -> Result<Self, Error> {
        let scope = match linux::credentials::effective_user() {
            0 => Scope::System,
            _ => Scope::User,
        };
        let usual_slice = if scope == Scope::System { "system.slice" } else { "user.slice" };
        let default = format!("{usual_slice}:minirun:{id}");
        let text = cgroups_path.filter(|path| !path.is_empty()).unwrap_or(&default);
        let [slice, prefix, name] = text.split(':').collect::<Vec<_>>()[..] else {
            let why = format!(
                "{text:?} is not of the form `slice:prefix:name` that `--systemd-cgroup` takes"
            );
            return Err(Error::invalid("linux.cgroupsPath", why));
        };
        let slice = if slice.is_empty() { usual_slice } else { slice };
        expand(slice)?;
        if name.is_empty() || name.ends_with(".slice") {
            let why = format!("{text:?} names no scope: a slice is for groups, not for processes");
            return Err(Error::invalid("linux.cgroupsPath", why));
        }
        let name = match (prefix, name) {
            ("", name) => format!("{name}.scope"),
            (prefix, name) => format!("{prefix}-{name}.scope"),
        };
        Ok(Self { name, slice: slice.to_owned(), scope })
    }

    /// What the container's state remembers, complete before the unit is started.
    pub fn record(&self, host: &Host) -> Result<Record, Error> {
        if host.layout() != Layout::Unified {
            let why = "with systemd, minirun needs a host with cgroup v2 only; leave \
                       `--systemd-cgroup` out, or boot with `systemd.unified_cgroup_hierarchy=1`";
            return Err(Error::invalid("linux.cgroupsPath", why));
        }
        let mut path = match self.scope {
            Scope::System => PathBuf::new(),
            Scope::User => user_manager()?,
        };
        path.push(expand(&self.slice)?);
        path.push(&self.name);
        let trees = [("unified".to_owned(), host.unified().mount.clone())].into_iter().collect();
        let delegated = if self.scope == Scope::User { path.clone() } else { PathBuf::new() };
        let unit = Some(self.name.clone());
        Ok(Record { path, trees, delegated, found: Vec::new(), made: false, unit })
    }

    /// Starts the unit around process `first`, waits until systemd has moved it there, and opens
    /// the group. The caller then sets the limits with [`Cgroup::apply`].
    pub fn start(
        &self,
        host: &Host,
        first: Pid,
        resources: &LinuxResources,
    ) -> Result<Cgroup, Error> {
        let settings = limits::settings(resources, |_| Version::V2, &|_| None)?;
        let mut wanted = self.frame(first);
        wanted.extend(properties::of(&settings));
        let answer = Bus::connect(self.scope)?.call(
            "StartTransientUnit",
            "ssa(sv)a(sa(sv))",
            true,
            |w| {
                w.text(&self.name);
                w.text("replace");
                w.properties(&wanted);
                w.array(8, |_| {});
            },
        )?;
        answer.map_err(|refused| self.refused("start", &refused))?;
        Ok(Cgroup::open(host, &self.found_by(first, host)?)?.made())
    }

    /// What makes a scope out of the process, apart from its limits.
    fn frame(&self, first: Pid) -> Properties {
        let mut all =
            vec![("Description", Value::Text(format!("minirun container {}", self.name)))];
        if self.name.ends_with(".slice") {
            all.push(("Wants", Value::Text(self.slice.clone())));
        } else {
            all.push(("Slice", Value::Text(self.slice.clone())));
            all.push(("Delegate", Value::Bool(true)));
            all.push(("PIDs", Value::U32s(vec![first.as_raw().cast_unsigned()])));
        }
        // Counting is what makes systemd enable the controllers.
        for name in ["MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"] {
            all.push((name, Value::Bool(true)));
        }
        all.push(("DefaultDependencies", Value::Bool(false)));
        all.push(("CollectMode", Value::Text("inactive-or-failed".to_owned())));
        all
    }

    /// The record with the path where systemd really put the process.
    fn found_by(&self, first: Pid, host: &Host) -> Result<Record, Error> {
        let mut record = self.record(host)?;
        let file = format!("/proc/{first}/cgroup");
        if let Some(path) = place::own_group(&host::read(&file)?) {
            if !record.delegated.as_os_str().is_empty() {
                record.delegated.clone_from(&path);
            }
            record.path = path;
        }
        Ok(record)
    }

    fn refused(&self, what: &str, why: &Refused) -> Error {
        let remedy = match why {
            Refused::Error { name, .. } if name.ends_with(".UnitExists") => {
                "; `systemctl stop` it, or choose another id"
            }
            Refused::Error { name, .. } if name.ends_with("AccessDenied") => {
                "; only root may ask the system's systemd"
            }
            _ => "",
        };
        let step = format!("{what} {}", self.name);
        Error::Systemd { step, why: why.to_string(), remedy: remedy.to_owned() }
    }
}

/// The unit of a container that exists.
fn unit_of(record: &Record) -> Option<Unit> {
    let scope = if record.is_roots() { Scope::System } else { Scope::User };
    let name = record.unit.clone()?;
    Some(Unit { name, slice: String::new(), scope })
}

/// Tells systemd of changed limits, so that it does not take them back.
pub(super) fn update(record: &Record, settings: &[Setting]) -> Result<(), Error> {
    let (Some(unit), changed) = (unit_of(record), properties::of(settings)) else { return Ok(()) };
    if changed.is_empty() {
        return Ok(());
    }
    let answer = Bus::connect(unit.scope)?.call("SetUnitProperties", "sba(sv)", false, |w| {
        w.text(&unit.name);
        // At run time: the unit is transient anyway.
        w.number(1);
        w.properties(&changed);
    })?;
    answer.map_err(|refused| unit.refused("update", &refused))
}

/// Stops the unit; one that is gone already is fine.
pub(super) fn stop(record: &Record) -> Result<(), Error> {
    let Some(unit) = unit_of(record) else { return Ok(()) };
    let answer = Bus::connect(unit.scope)?.call("StopUnit", "ss", true, |w| {
        w.text(&unit.name);
        w.text("replace");
    })?;
    match answer {
        Err(Refused::Error { name, .. }) if name.ends_with(".NoSuchUnit") => Ok(()),
        answer => answer.map_err(|refused| unit.refused("stop", &refused)),
    }
}

/// Where a slice is in the tree: `a-b.slice` is `a.slice/a-b.slice`, and `-.slice` is the root.
fn expand(slice: &str) -> Result<PathBuf, Error> {
    let invalid = || {
        let why = format!("{slice:?} is not the name of a slice, such as `system.slice`");
        Error::invalid("linux.cgroupsPath", why)
    };
    let name = slice.strip_suffix(".slice").ok_or_else(invalid)?;
    if name == "-" {
        return Ok(PathBuf::new());
    }
    if name.is_empty() || name.contains('/') || name.split('-').any(str::is_empty) {
        return Err(invalid());
    }
    let mut path = PathBuf::new();
    for (end, _) in name.match_indices('-').chain([(name.len(), "")]) {
        path.push(format!("{}.slice", &name[..end]));
    }
    Ok(path)
}

/// The group of this user's own systemd, found from our own group below it.
fn user_manager() -> Result<PathBuf, Error> {
    let own = place::own_group(&host::read("/proc/self/cgroup")?).unwrap_or_default();
    let user = format!("user@{}.service", linux::credentials::effective_user());
    let is_manager = |path: &&Path| path.file_name().is_some_and(|name| *name == *user);
    let usual = || {
        let user = linux::credentials::effective_user();
        PathBuf::from(format!("user.slice/user-{user}.slice/user@{user}.service"))
    };
    Ok(own.ancestors().find(is_manager).map_or_else(usual, Path::to_path_buf))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_named_as_every_engine_expects() {
        let unit = |text| Unit::parse(Some(text), "id").unwrap();
        assert_eq!(unit("system.slice:docker:abc").name, "docker-abc.scope");
        assert_eq!(unit("kubepods-pod1.slice:cri:x").slice, "kubepods-pod1.slice");
        assert_eq!(unit("a.slice::name").name, "name.scope");
        assert_eq!(Unit::parse(None, "web").unwrap().name, "minirun-web.scope");
        for bad in [
            "/a/b",
            "a:b",
            "a.slice:p:b.slice",
            "a.slice:p:",
            "a:b:c",
            "a--b.slice:x:y",
            "../x.slice:a:b",
            ".slice:a:b",
        ] {
            assert!(Unit::parse(Some(bad), "id").is_err(), "{bad}");
        }
    }

    #[test]
    fn a_slice_is_below_the_slices_that_its_name_holds() {
        let path = expand("a-b-c.slice").unwrap();
        assert_eq!(path, Path::new("a.slice/a-b.slice/a-b-c.slice"));
        assert_eq!(expand("-.slice").unwrap(), Path::new(""));
    }
}
