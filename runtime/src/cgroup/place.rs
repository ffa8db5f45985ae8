//! Where a container's cgroup is.
//!
//! Root may make groups anywhere: the default is `/minirun/ID`. Everybody else gets a part of the
//! tree only when somebody gives it to them (systemd does, to a unit with `Delegate=yes`), and then
//! the container's group is below the caller's own.

use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

use linux::{OFlag, path};
use oci_spec::runtime::LinuxResources;

use super::host::{self, Host, Layout};
use super::{Error, Missing, limits};

/// The group that all containers of root are below, unless their configuration says otherwise.
const OURS: &str = "minirun";

/// The path of a container's cgroup, the same in every tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Below the trees' mount points.
    pub(super) path: PathBuf,
    /// The part of the path that was given to the caller: nothing above it is touched. Empty for
    /// root.
    pub(super) delegated: PathBuf,
}

impl Place {
    /// Decides where the group of container `id` is, from `linux.cgroupsPath` of its configuration.
    ///
    /// `None` when the caller has not been given any part of the tree: then a container can run
    /// only without limits. A relative path is below `/minirun` (the specification leaves that to
    /// the runtime). For a caller with a delegated group, every path is below that group.
    pub fn new(host: &Host, cgroups_path: Option<&Path>, id: &str) -> Result<Option<Self>, Error> {
        let wanted = cgroups_path.filter(|path| !path.as_os_str().is_empty());
        let own = Path::new(OURS).join(id);
        let (absolute, wanted) = match wanted {
            Some(path) => (path.is_absolute(), plain(path)?),
            None => (true, own),
        };
        let wanted = if absolute { wanted } else { Path::new(OURS).join(wanted) };
        // Root of the first user namespace may write to every tree; root of a container may do so
        // in the part of the tree that its cgroup namespace shows.
        if linux::directory::may_write(host.unified().as_fd(), Path::new("cgroup.procs")) {
            return Ok(Some(Self { path: wanted, delegated: PathBuf::new() }));
        }
        if host.layout() == Layout::Legacy {
            return Ok(None);
        }
        let Some(delegated) = delegated(host)? else { return Ok(None) };
        let path = if wanted.starts_with(&delegated) { wanted } else { delegated.join(wanted) };
        Ok(Some(Self { path, delegated }))
    }

    /// The path below each tree's mount point, for messages: `/minirun/web`.
    pub fn shown(&self) -> PathBuf {
        Path::new("/").join(&self.path)
    }

    /// Whether the group is in a part of the tree that was delegated to an unprivileged caller.
    pub fn is_delegated(&self) -> bool {
        !self.delegated.as_os_str().is_empty()
    }

    /// The controllers that `resources` need and this host does not offer here.
    ///
    /// Changes nothing. An empty list is no promise that every value will be accepted.
    pub fn missing(&self, host: &Host, resources: &LinuxResources) -> Result<Vec<Missing>, Error> {
        let base = host.unified().mount.join(&self.delegated);
        let offered = path::open(&base, OFlag::O_PATH | OFlag::O_DIRECTORY)
            .and_then(|dir| linux::fd::read_file_at(dir.as_fd(), Path::new("cgroup.controllers")))
            .map_err(|cause| Error::kernel("read the controllers of cgroup v2", cause))?;
        let settings = limits::settings(resources, |c| host.version_of(c), &|_| None)?;
        let mut missing: Vec<Missing> = Vec::new();
        for setting in settings {
            let controller = setting.controller;
            let in_v1 = host.version_of(controller) == host::Version::V1;
            let in_v2 = offered.split_whitespace().any(|name| name == controller.v2_name());
            let known = missing.iter().any(|earlier| earlier.controller == controller);
            if !in_v1 && !in_v2 && !known {
                let found = super::enable::what_was_found(&base, &offered);
                missing.push(Missing {
                    controller,
                    wanted_by: setting.asked,
                    found,
                    remedy: super::enable::remedy(controller, self.is_delegated()),
                });
            }
        }
        Ok(missing)
    }
}

/// Whether `resources` can be had without any group: an error that names the first limit in them.
///
/// For a caller without a [`Place`]. Rules about devices are no limits: see
/// [`Cgroup::apply`](super::Cgroup::apply).
pub fn check_no_limits(resources: &LinuxResources) -> Result<(), Error> {
    let settings = limits::settings(resources, |_| host::Version::V2, &|_| None)?;
    match settings.into_iter().next() {
        None => Ok(()),
        Some(setting) => Err(Error::NoGroup { asked: setting.asked }),
    }
}

/// A path without its leading slash and without ways out.
fn plain(path: &Path) -> Result<PathBuf, Error> {
    let mut result = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => result.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                let why = format!("{}: `..` is not allowed in a cgroup path", path.display());
                return Err(Error::invalid("linux.cgroupsPath", why));
            }
        }
    }
    if result.as_os_str().is_empty() {
        let why = "the root of the cgroup tree cannot be a container's group".to_owned();
        return Err(Error::invalid("linux.cgroupsPath", why));
    }
    Ok(result)
}

/// The group that was given to this process: its own, when it may make groups in it.
fn delegated(host: &Host) -> Result<Option<PathBuf>, Error> {
    let Some(own) = own_group(&host::read("/proc/self/cgroup")?) else { return Ok(None) };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let Ok(dir) = path::open_at(host.unified().as_fd(), &own, flags) else { return Ok(None) };
    let needed = [".", "cgroup.procs", "cgroup.subtree_control"];
    let given = needed.iter().all(|name| linux::directory::may_write(dir.as_fd(), Path::new(name)));
    // minirun leaves its own group for a leaf of it when that is what it takes to enable
    // controllers (see `enable`); what it starts next then finds itself one level too deep.
    let group = if own.ends_with(super::enable::LEAF) {
        own.parent().map(Path::to_path_buf).unwrap_or_default()
    } else {
        own
    };
    Ok(given.then_some(group))
}

/// The path of this process in the tree of version 2, from `/proc/self/cgroup`.
///
/// `None` when the process is outside of the part that its cgroup namespace shows.
pub(super) fn own_group(text: &str) -> Option<PathBuf> {
    let line = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    (!line.starts_with("..") && !line.is_empty()).then(|| PathBuf::from(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_without_a_group_are_refused_by_name() {
        use super::limits::testing::resources;
        let error = check_no_limits(&resources(r#"{"pids":{"limit":5}}"#)).unwrap_err();
        assert!(error.to_string().contains("linux.resources.pids.limit"), "{error}");
        assert!(check_no_limits(&resources(r#"{"devices":[{"allow":false}]}"#)).is_ok());
    }

    #[test]
    fn paths_lead_nowhere_else() {
        assert_eq!(plain(Path::new("/a//b/./c")).unwrap(), Path::new("a/b/c"));
        assert!(plain(Path::new("/a/../../b")).is_err());
        assert!(plain(Path::new("/")).is_err());
    }

    #[test]
    fn the_own_group_is_found_among_the_trees_of_version_1() {
        let text = "4:memory:/x\n0::/user.slice/run-1.scope\n";
        assert_eq!(own_group(text), Some("user.slice/run-1.scope".into()));
        assert_eq!(own_group("0::/../../elsewhere\n"), None);
        assert_eq!(own_group("4:memory:/x\n"), None);
    }
}
