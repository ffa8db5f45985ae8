//! # What the kernel offers
//! Some processors can divide their last cache and their memory bandwidth, and count what is used
//! of them. Each directory of the resctrl file system is a group: its file `schemata` says what its
//! processes may use, its file `tasks` who they are, and `mon_groups` below it only counts.
//!
//! # What we do
//! Make the group that `linux.intelRdt` names (or one with the container's name), write its
//! schemata, and put init into it before its program starts; and each process of `exec`. What we
//! have made is removed with the container, what was there stays.
//!
//! # What goes wrong without it
//! A neighbour that reads through a lot of memory empties the cache of everybody.
//!
//! # By hand
//! ```sh
//! grep -qw resctrl /proc/filesystems && echo 'this kernel knows it' || echo 'this kernel lacks it'
//! ```
//! See runtime-spec config-linux.md, "IntelRdt"; the kernel's documentation of resctrl.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use linux::Pid;
use serde::{Deserialize, Serialize};

use crate::error::Cause;
use crate::plan::Resctrl;

/// What the state of a container remembers of its group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    /// Its directory.
    path: PathBuf,
    /// Whether it was not there before.
    made: bool,
    /// The group that counts.
    monitor: Option<PathBuf>,
}

/// What is limited, for messages.
pub(crate) fn shown() -> String {
    "cache and memory bandwidth (resctrl)".into()
}

/// Where the file system is mounted, from a table as of proc_pid_mountinfo(5).
pub(crate) fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    let line = mountinfo.lines().find(|line| line.contains(" - resctrl "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

/// The mount point on this host.
pub(crate) fn here() -> Result<PathBuf, Cause> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mount_point(&table).ok_or_else(|| {
        Cause::new("linux.intelRdt: no resctrl file system is mounted").remedy(
            "where the processor can do it (rdt_a in /proc/cpuinfo): mount -t resctrl resctrl \
             /sys/fs/resctrl",
        )
    })
}

impl Group {
    /// Decides which group it is, before anything is made.
    pub(crate) fn decide(wanted: &Resctrl, id: &str, root: &Path) -> Result<Self, Cause> {
        let path = match wanted.group.as_deref() {
            Some("") => root.to_owned(),
            Some(name) => root.join(name),
            None => root.join(id),
        };
        let exists = path.is_dir();
        if !exists && wanted.group.is_some() && wanted.schemata.is_empty() {
            return Err(Cause::new(format!("{}: no such file or directory", path.display()))
                .remedy("a closID without any schema names a group that must be there"));
        }
        let monitor = wanted.monitoring.then(|| path.join("mon_groups").join(id));
        Ok(Self { made: !exists, monitor, path })
    }

    /// Makes it and writes its schemata.
    pub(crate) fn make(&self, lines: &[String]) -> Result<(), Cause> {
        if self.made {
            make_dir(&self.path)?;
        }
        self.write(lines)?;
        match &self.monitor {
            Some(monitor) => make_dir(monitor),
            None => Ok(()),
        }
    }

    /// Changes its schemata.
    pub(crate) fn write(&self, lines: &[String]) -> Result<(), Cause> {
        if lines.is_empty() {
            return Ok(());
        }
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        write(&self.path.join("schemata"), &text).map_err(|cause| {
            // The kernel says more in a file of its own.
            let status = self.path.parent().unwrap_or(&self.path).join("info/last_cmd_status");
            let said = std::fs::read_to_string(status).unwrap_or_default();
            match said.trim() {
                "" | "ok" => cause,
                said => cause.remedy(said.to_owned()),
            }
        })
    }

    /// Puts a process into it. What it starts from now on is in it too.
    pub(crate) fn add(&self, pid: Pid) -> Result<(), Cause> {
        let groups = [Some(&self.path), self.monitor.as_ref()];
        groups
            .into_iter()
            .flatten()
            .try_for_each(|group| write(&group.join("tasks"), &pid.to_string()))
    }

    /// Its directory, and the one that counts what its processes use.
    pub(crate) fn places(&self) -> (&Path, &Path) {
        (&self.path, self.monitor.as_deref().unwrap_or(&self.path))
    }

    /// Removes what was made of it.
    pub(crate) fn remove(&self) -> Result<(), Cause> {
        let group = self.made.then_some(&self.path);
        self.monitor.iter().chain(group).try_for_each(|dir| match std::fs::remove_dir(dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(dir, &error)),
            _ => Ok(()),
        })
    }
}

fn make_dir(path: &Path) -> Result<(), Cause> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == ErrorKind::StorageFull => Err(failed(path, &error)
            .remedy("the processor has no more groups: remove one below /sys/fs/resctrl")),
        made => made.map_err(|error| failed(path, &error)),
    }
}

fn write(file: &Path, text: &str) -> Result<(), Cause> {
    std::fs::write(file, text).map_err(|error| failed(file, &error))
}

fn failed(path: &Path, error: &std::io::Error) -> Cause {
    let cause = Cause::new(format!("{}: {error}", path.display()));
    Cause { errno: error.raw_os_error().unwrap_or(0), ..cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(group: Option<&str>, lines: &[&str], monitoring: bool) -> Resctrl {
        let schemata = lines.iter().map(|line| (*line).to_owned()).collect();
        Resctrl { group: group.map(str::to_owned), schemata, monitoring }
    }

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_group_of_its_own_is_made_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let wanted = wanted(None, &["L3:0=f", "MB:0=50"], false);
        let group = Group::decide(&wanted, "web", root.path()).unwrap();
        group.make(&wanted.schemata).unwrap();
        group.add(Pid::from_raw(7)).unwrap();
        let dir = root.path().join("web");
        assert_eq!(read(&dir.join("schemata")), "L3:0=f\nMB:0=50\n");
        assert_eq!(read(&dir.join("tasks")), "7");
        // In resctrl these files go with their directory.
        std::fs::remove_file(dir.join("schemata")).unwrap();
        std::fs::remove_file(dir.join("tasks")).unwrap();
        group.remove().unwrap();
        group.remove().unwrap();
        assert!(!dir.exists());
    }

    #[test]
    fn a_group_of_others_stays_and_must_be_there() {
        let root = tempfile::tempdir().unwrap();
        let named = wanted(Some("gold"), &[], true);
        let error = Group::decide(&named, "web", root.path()).unwrap_err();
        assert!(error.text.contains("gold"), "{error:?}");
        let dir = root.path().join("gold");
        std::fs::create_dir_all(dir.join("mon_groups")).unwrap();
        let group = Group::decide(&named, "web", root.path()).unwrap();
        group.make(&[]).unwrap();
        assert!(!dir.join("schemata").exists(), "nothing was asked for");
        group.add(Pid::from_raw(7)).unwrap();
        let monitor = dir.join("mon_groups/web");
        assert_eq!(read(&monitor.join("tasks")), "7");
        std::fs::remove_file(monitor.join("tasks")).unwrap();
        group.remove().unwrap();
        assert!(dir.exists() && !monitor.exists());
    }

    #[test]
    fn the_root_group_is_never_removed() {
        let root = tempfile::tempdir().unwrap();
        let group = Group::decide(&wanted(Some(""), &["MB:0=9"], false), "web", root.path());
        let group = group.unwrap();
        group.make(&["MB:0=9".to_owned()]).unwrap();
        group.remove().unwrap();
        assert_eq!(read(&root.path().join("schemata")), "MB:0=9\n");
    }

    #[test]
    fn the_mount_point_is_in_the_table() {
        let table = "30 1 0:20 / /sys rw - sysfs sysfs rw\n\
                     31 30 0:21 / /sys/fs/resctrl rw,relatime - resctrl resctrl rw\n";
        assert_eq!(mount_point(table), Some("/sys/fs/resctrl".into()));
        assert_eq!(mount_point("30 1 0:20 / /resctrl rw - tmpfs resctrl rw\n"), None);
    }
}
