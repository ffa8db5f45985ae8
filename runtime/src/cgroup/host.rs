//! Which cgroups this host has, and where.
//!
//! There are two generations. Version 2 is one tree for everything. Version 1 has a tree for each
//! controller, or for a few of them together; many hosts of its time also mount the tree of
//! version 2, without controllers, for what only that one can do (be born in it, kill, freeze).
//! That is a hybrid host, and there a limit is written to one tree and the rest to another.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use linux::{Errno, OFlag, fd, path};

use super::Error;
pub use super::controller::Controller;
use super::mounts::Table;

/// Where every distribution mounts cgroups.
const USUAL_MOUNT: &str = "/sys/fs/cgroup";
/// What stands for the mount point of a tree that is mounted nowhere; see `mount_privately`.
pub(super) const PRIVATE: &str = "(cgroup2)";
/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// How the host's cgroups are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Version 2 only.
    Unified,
    /// Version 1 for the controllers, version 2 mounted beside it.
    Hybrid,
    /// Version 1 only.
    Legacy,
}

/// The version of the interface that a controller is driven through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A tree for each controller.
    V1,
    /// One tree for all.
    V2,
}

/// A tree of version 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its controllers as in `/proc/self/cgroup`: `memory`, `cpu,cpuacct`, `name=systemd`.
    pub name: String,
    /// The same, understood; empty for a tree that only has a name.
    pub controllers: Vec<Controller>,
    /// Where it is mounted.
    pub mount: PathBuf,
}

/// The tree of version 2.
#[derive(Debug)]
pub struct Unified {
    /// Where it is mounted.
    pub mount: PathBuf,
    dir: Arc<OwnedFd>,
}

impl Unified {
    fn new(mount: PathBuf, dir: OwnedFd) -> Self {
        Self { mount, dir: Arc::new(dir) }
    }

    /// Its root, for whoever keeps it.
    pub(super) fn shared(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.dir)
    }
}

impl AsFd for Unified {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// The cgroups of this host.
#[derive(Debug)]
pub struct Host {
    layout: Layout,
    unified: Unified,
    hierarchies: Vec<Hierarchy>,
}

impl Host {
    /// The cgroups of this machine, looked at once: a table of mounts is long on a busy host.
    pub fn get() -> Result<Option<&'static Self>, Error> {
        static HOST: OnceLock<Option<Host>> = OnceLock::new();
        if HOST.get().is_none() {
            let found = Self::detect()?;
            return Ok(HOST.get_or_init(|| found).as_ref());
        }
        Ok(HOST.get().and_then(Option::as_ref))
    }

    /// Looks at what is mounted. `None` where there is nothing that this process could use: no
    /// cgroups at all, or only those of version 1 and no right to mount the others.
    ///
    /// On a host with version 2 only, which one call can tell, nothing is read at all: parsing
    /// `/proc/self/mountinfo` grows with the number of mounts, and a busy host has thousands.
    pub fn detect() -> Result<Option<Self>, Error> {
        let mount = PathBuf::from(USUAL_MOUNT);
        if let Ok(dir) = path::open(&mount, OFlag::O_PATH | OFlag::O_DIRECTORY)
            && fd::file_system(&dir).ok() == Some(CGROUP2_MAGIC)
        {
            let unified = Unified::new(mount, dir);
            let layout = Layout::Unified;
            return Ok(Some(Self { layout, unified, hierarchies: Vec::new() }));
        }
        let table = Table::parse(&read("/proc/self/mountinfo")?);
        if table.hierarchies.is_empty() && table.unified.is_none() {
            return Ok(None);
        }
        let mounted = table.unified.map(Self::open_unified).transpose()?.flatten();
        let layout = match (&mounted, table.hierarchies.is_empty()) {
            (Some(_), true) => Layout::Unified,
            (Some(_), false) => Layout::Hybrid,
            (None, _) => Layout::Legacy,
        };
        let unified = match mounted.map_or_else(Self::mount_privately, Ok) {
            Ok(unified) => unified,
            Err(cause) if cause.errno == Errno::EPERM => return Ok(None),
            Err(cause) => {
                return Err(Error::kernel("mount the cgroup v2 tree privately", cause));
            }
        };
        Ok(Some(Self { layout, unified, hierarchies: table.hierarchies }))
    }

    /// The tree of version 2 that the table of mounts has at `mount`; `None` if something else has
    /// been mounted over it, which the table does not tell.
    fn open_unified(mount: PathBuf) -> Result<Option<Unified>, Error> {
        let dir = path::open(&mount, OFlag::O_PATH | OFlag::O_DIRECTORY)
            .map_err(|cause| Error::kernel("open the cgroup v2 tree", cause))?;
        let is_unified = fd::file_system(&dir).ok() == Some(CGROUP2_MAGIC);
        Ok(is_unified.then(|| Unified::new(mount, dir)))
    }

    /// On a host where nobody has mounted version 2, we do, attached nowhere: the kernel has that
    /// tree anyway, and only it can freeze and kill a group, and tell when the group is empty.
    fn mount_privately() -> linux::Result<Unified> {
        let attributes = linux::mount::Attributes::NO_SUID
            | linux::mount::Attributes::NO_DEV
            | linux::mount::Attributes::NO_EXEC;
        let dir = linux::mount::FileSystem::open("cgroup2")
            .and_then(|context| context.mount(attributes))?;
        Ok(Unified::new(PathBuf::from(PRIVATE), dir))
    }

    /// How the host's cgroups are laid out.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The tree of version 2. Every host that runs containers has it, if only without controllers.
    pub fn unified(&self) -> &Unified {
        &self.unified
    }

    /// The trees of version 1.
    pub fn hierarchies(&self) -> &[Hierarchy] {
        &self.hierarchies
    }

    /// Through which version `controller` is driven here.
    ///
    /// Version 2 has no devices and no net_cls controller: a program does the work of the first.
    pub fn version_of(&self, controller: Controller) -> Version {
        let in_v1 = |tree: &Hierarchy| tree.controllers.contains(&controller);
        if self.hierarchies.iter().any(in_v1) { Version::V1 } else { Version::V2 }
    }
}

/// Reads a file of procfs.
pub(super) fn read(file: &str) -> Result<String, Error> {
    fd::read_kernel_file(file.as_ref())
        .map_err(|error| Error::Unreadable { file: file.to_owned(), why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_cgroups() {
        let host = Host::detect().unwrap().unwrap();
        assert_eq!(host.layout() == Layout::Unified, host.hierarchies().is_empty());
    }
}
