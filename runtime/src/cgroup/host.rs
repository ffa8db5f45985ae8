//! Which cgroups this host has, and where.
//!
//! There are two generations. Version 2 is one tree for everything. Version 1 has a tree for each
//! controller, or for a few of them together; many hosts of its time also mount the tree of
//! version 2, without controllers, for what only that one can do (be born in it, kill, freeze).
//! That is a hybrid host, and there a limit is written to one tree and the rest to another.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use linux::{Errno, OFlag, path};

use super::Error;

/// Where every distribution mounts cgroups.
const USUAL_MOUNT: &str = "/sys/fs/cgroup";
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

/// What limits or counts one kind of resource. The names are those of version 2 where both have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the kernel's documentation explains each controller")]
pub enum Controller {
    Cpu,
    Cpuacct,
    Cpuset,
    Memory,
    Io,
    Pids,
    Devices,
    Freezer,
    Hugetlb,
    Rdma,
    Misc,
    NetCls,
    NetPrio,
    PerfEvent,
}

impl Controller {
    pub(super) const ALL: [Self; 14] = [
        Self::Cpu,
        Self::Cpuacct,
        Self::Cpuset,
        Self::Memory,
        Self::Io,
        Self::Pids,
        Self::Devices,
        Self::Freezer,
        Self::Hugetlb,
        Self::Rdma,
        Self::Misc,
        Self::NetCls,
        Self::NetPrio,
        Self::PerfEvent,
    ];

    /// The controllers of version 2, which have to be enabled level by level.
    pub const V2: [Self; 8] = [
        Self::Cpuset,
        Self::Cpu,
        Self::Io,
        Self::Memory,
        Self::Hugetlb,
        Self::Pids,
        Self::Rdma,
        Self::Misc,
    ];

    /// Its name in version 1 (`blkio` is the one that was renamed).
    pub fn v1_name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Io => "blkio",
            Self::Pids => "pids",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::Hugetlb => "hugetlb",
            Self::Rdma => "rdma",
            Self::Misc => "misc",
            Self::NetCls => "net_cls",
            Self::NetPrio => "net_prio",
            Self::PerfEvent => "perf_event",
        }
    }

    /// Its name in version 2.
    pub fn v2_name(self) -> &'static str {
        match self {
            Self::Io => "io",
            other => other.v1_name(),
        }
    }
}

impl std::fmt::Display for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.v2_name())
    }
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
    dir: OwnedFd,
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
    /// Looks at what is mounted. `None` where there is nothing that this process could use: no
    /// cgroups at all, or only those of version 1 and no right to mount the others.
    ///
    /// On a host with version 2 only, which one call can tell, nothing is read at all: parsing
    /// `/proc/self/mountinfo` grows with the number of mounts, and a busy host has thousands.
    pub fn detect() -> Result<Option<Self>, Error> {
        let mount = PathBuf::from(USUAL_MOUNT);
        if let Ok(dir) = path::open(&mount, OFlag::O_PATH | OFlag::O_DIRECTORY)
            && linux::fd::file_system(&dir).ok() == Some(CGROUP2_MAGIC)
        {
            let unified = Unified { mount, dir };
            let layout = Layout::Unified;
            return Ok(Some(Self { layout, unified, hierarchies: Vec::new() }));
        }
        let table = Table::parse(&read("/proc/self/mountinfo")?);
        if table.hierarchies.is_empty() && table.unified.is_none() {
            return Ok(None);
        }
        let layout = match (&table.unified, table.hierarchies.is_empty()) {
            (Some(_), true) => Layout::Unified,
            (Some(_), false) => Layout::Hybrid,
            (None, _) => Layout::Legacy,
        };
        let unified = match table.unified {
            Some(mount) => {
                let dir = path::open(&mount, OFlag::O_PATH | OFlag::O_DIRECTORY)
                    .map_err(|cause| Error::kernel("open the cgroup v2 tree", cause))?;
                Unified { mount, dir }
            }
            None => match Self::mount_privately() {
                Ok(unified) => unified,
                Err(cause) if cause.errno == Errno::EPERM => return Ok(None),
                Err(cause) => {
                    return Err(Error::kernel("mount the cgroup v2 tree privately", cause));
                }
            },
        };
        Ok(Some(Self { layout, unified, hierarchies: table.hierarchies }))
    }

    /// On a host where nobody has mounted version 2, we do, attached nowhere: the kernel has that
    /// tree anyway, and only it can freeze and kill a group, and tell when the group is empty.
    fn mount_privately() -> linux::Result<Unified> {
        let attributes = linux::mount::Attributes::NO_SUID
            | linux::mount::Attributes::NO_DEV
            | linux::mount::Attributes::NO_EXEC;
        let dir = linux::mount::FileSystem::open("cgroup2")
            .and_then(|context| context.mount(attributes))?;
        Ok(Unified { mount: PathBuf::from("(cgroup2)"), dir })
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
    std::fs::read_to_string(file)
        .map_err(|error| Error::Unreadable { file: file.to_owned(), why: error.to_string() })
}

/// What `/proc/self/mountinfo` says about cgroups, see proc_pid_mountinfo(5).
#[derive(Debug, Default, PartialEq, Eq)]
struct Table {
    unified: Option<PathBuf>,
    hierarchies: Vec<Hierarchy>,
}

impl Table {
    fn parse(mountinfo: &str) -> Self {
        let mut table = Self::default();
        let mut seen = BTreeSet::new();
        for line in mountinfo.lines() {
            let Some((place, kind)) = line.split_once(" - ") else { continue };
            let Some(mount) = place.split(' ').nth(4).map(unescape) else { continue };
            let mut kind = kind.split(' ');
            match kind.next() {
                Some("cgroup2") if table.unified.is_none() => table.unified = Some(mount),
                Some("cgroup") => {
                    let tree = Hierarchy::from_options(kind.nth(1).unwrap_or(""), mount);
                    // A tree can be mounted twice; the first mount is as good as the second.
                    if seen.insert(tree.name.clone()) {
                        table.hierarchies.push(tree);
                    }
                }
                _ => {}
            }
        }
        table.hierarchies.sort_by(|a, b| a.name.cmp(&b.name));
        table
    }
}

impl Hierarchy {
    /// Reads the options of the tree's mount, among which are the controllers' names.
    fn from_options(options: &str, mount: PathBuf) -> Self {
        let mut names = Vec::new();
        let mut controllers = Vec::new();
        for option in options.split(',') {
            if let Some(known) = Controller::ALL.iter().find(|c| c.v1_name() == option) {
                controllers.push(*known);
                names.push(option);
            } else if option.starts_with("name=") {
                names.push(option);
            }
        }
        Self { name: names.join(","), controllers, mount }
    }
}

/// Undoes the octal escapes of mountinfo (`\040` is a space).
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (first, code) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    Path::new(std::ffi::OsStr::new(&*String::from_utf8_lossy(&bytes))).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
38 31 0:35 / /sys/fs/cgroup/blk\\040io rw,relatime - cgroup cgroup rw,blkio
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 31 0:32 / /mnt/memory rw,relatime - cgroup cgroup rw,memory
";

    #[test]
    fn a_hybrid_table_is_understood() {
        let table = Table::parse(HYBRID);
        assert_eq!(table.unified, Some("/sys/fs/cgroup/unified".into()));
        let names: Vec<_> = table.hierarchies.iter().map(|tree| tree.name.as_str()).collect();
        assert_eq!(names, ["blkio", "cpu,cpuacct", "memory", "name=systemd"]);
        assert_eq!(table.hierarchies[0].controllers, [Controller::Io]);
        assert_eq!(table.hierarchies[0].mount, Path::new("/sys/fs/cgroup/blk io"));
        assert_eq!(table.hierarchies[2].mount, Path::new("/sys/fs/cgroup/memory"));
        assert!(table.hierarchies[3].controllers.is_empty());
    }

    #[test]
    fn lines_that_are_not_about_cgroups_are_skipped() {
        assert_eq!(Table::parse("garbage\n1 2 3\n9 8 0:1 / /x rw - ext4 a b"), Table::default());
    }

    #[test]
    fn this_host_has_cgroups() {
        let host = Host::detect().unwrap().unwrap();
        assert_eq!(host.layout() == Layout::Unified, host.hierarchies().is_empty());
    }
}
