//! A container's group: made, found again, given away, removed.
//!
//! The group has the same path in every tree that it is in. Only the tree of version 2 matters for
//! the processes themselves (they are born in it, frozen and killed through it); the trees of
//! version 1, where there are any, only hold limits.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use linux::directory::directories;
use linux::{Errno, OFlag, fd, path};
use serde::{Deserialize, Serialize};

use super::Error;
use super::host::{Controller, Hierarchy, Host, Layout, Version};
use super::place::Place;

/// The name of the tree of version 2 in a [`Record`].
const UNIFIED: &str = "unified";

/// What the state of a container remembers of its group.
///
/// It is complete before the first directory is made, so that a state file which holds it can
/// undo a creation that was cut short at any point.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The group's path below the mount point of each tree.
    pub path: PathBuf,
    /// The mount point of each tree that the group is in; version 2 is `unified`, a tree of
    /// version 1 has its controllers' names.
    pub trees: BTreeMap<String, PathBuf>,
    /// The part of the path that was delegated to an unprivileged caller.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub delegated: PathBuf,
    /// Trees in which the group was there already (and empty): it stays there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<String>,
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

impl Record {
    /// What [`Cgroup::make`] would make.
    pub fn of(host: &Host, place: &Place) -> Self {
        let mut trees = BTreeMap::from([(UNIFIED.to_owned(), host.unified().mount.clone())]);
        if !place.is_delegated() {
            let v1 = host.hierarchies().iter();
            trees.extend(v1.map(|tree| (tree.name.clone(), tree.mount.clone())));
        }
        let mut record = Self {
            path: place.path.clone(),
            trees,
            delegated: place.delegated.clone(),
            found: Vec::new(),
        };
        record.found =
            record.trees.keys().filter(|name| record.exists(host, name)).cloned().collect();
        record
    }

    /// Whether the group is in a part of the tree that its maker may change as a whole.
    pub fn is_roots(&self) -> bool {
        is_empty(&self.delegated)
    }

    fn exists(&self, host: &Host, tree: &str) -> bool {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        self.root(host, tree)
            .and_then(|root| path::open_at(root.as_fd(), &self.path, flags))
            .is_ok()
    }

    /// The root directory of one of its trees.
    fn root(&self, host: &Host, tree: &str) -> linux::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        match (tree, self.trees.get(tree)) {
            // By descriptor: on a legacy host this tree is mounted nowhere.
            (UNIFIED, _) => path::open_at(host.unified().as_fd(), Path::new("."), flags),
            (_, Some(mount)) => path::open(mount, flags),
            (_, None) => Err(linux::Error::new("open", tree, Errno::ENOENT)),
        }
    }
}

/// The group in one tree.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) version: Version,
    pub(super) controllers: Vec<Controller>,
    /// For messages.
    pub(super) path: PathBuf,
    pub(super) dir: OwnedFd,
    /// The root of the tree, as far as it is mounted.
    pub(super) root: OwnedFd,
}

impl Member {
    fn failed(&self, step: &str, cause: linux::Error) -> Error {
        Error::kernel(format!("{step} cgroup {}", self.path.display()), cause)
    }
}

/// The group of a container, in every tree that it is in.
#[derive(Debug)]
pub struct Cgroup {
    record: Record,
    unified: Member,
    legacy: Vec<Member>,
}

impl Cgroup {
    /// Makes the group in every tree, with its controllers enabled and its cpuset usable.
    ///
    /// The group must not exist, or be empty. On failure everything that was made is removed again,
    /// except the groups above (`/minirun`), which containers share.
    pub fn make(host: &Host, place: &Place) -> Result<Self, Error> {
        let record = Record::of(host, place);
        let made = Self::make_all(host, &record);
        if made.is_err() {
            // The error that matters is the first one.
            let _ = Self::open(host, &record).and_then(|group| group.remove());
        }
        made
    }

    fn make_all(host: &Host, record: &Record) -> Result<Self, Error> {
        let group = Self::each(host, record, |name, root| {
            let dir = make_path(root, &record.path)?;
            if name.split(',').any(|controller| controller == Controller::Cpuset.v1_name()) {
                inherit_cpuset(root, &record.path)?;
            }
            Ok(Some(dir))
        })
        .map_err(|(step, cause)| Error::kernel(format!("make {step}"), cause))?;
        for member in group.legacy.iter().chain([&group.unified]) {
            if record.found.contains(&member.name) {
                refuse_used(member)?;
            }
        }
        // On a hybrid host the controllers of version 2 are systemd's business until a limit needs
        // one that is there.
        if host.layout() == Layout::Unified {
            group.enable_all()?;
        }
        Ok(group)
    }

    /// Opens the group that the state of a container names. Trees of version 1 in which it is gone
    /// are skipped; `ENOENT` when it is gone from version 2.
    pub fn open(host: &Host, record: &Record) -> Result<Self, Error> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        Self::each(host, record, |name, root| match path::open_at(root, &record.path, flags) {
            Err(cause) if cause.errno == Errno::ENOENT && name != UNIFIED => Ok(None),
            dir => dir.map(Some),
        })
        .map_err(|(step, cause)| Error::kernel(format!("open {step}"), cause))
    }

    /// The group in each tree of `record`, got by `get` from the tree's name and root.
    fn each(
        host: &Host,
        record: &Record,
        get: impl Fn(&str, BorrowedFd<'_>) -> linux::Result<Option<OwnedFd>>,
    ) -> Result<Self, (String, linux::Error)> {
        let (mut unified, mut legacy) = (None, Vec::new());
        for (name, mount) in &record.trees {
            let path = mount.join(&record.path);
            let failed = |cause| (format!("cgroup {}", path.display()), cause);
            let root = record.root(host, name).map_err(failed)?;
            let Some(dir) = get(name, root.as_fd()).map_err(failed)? else { continue };
            let controllers = Hierarchy::controllers_of(name);
            let version = if name == UNIFIED { Version::V2 } else { Version::V1 };
            let member = Member { name: name.clone(), version, controllers, path, dir, root };
            match version {
                Version::V2 => unified = Some(member),
                Version::V1 => legacy.push(member),
            }
        }
        let gone = || (String::new(), linux::Error::new("open", UNIFIED, Errno::ENOENT));
        Ok(Self { record: record.clone(), unified: unified.ok_or_else(gone)?, legacy })
    }

    /// What to write into the container's state.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The group's path in the tree of version 2, for messages.
    pub fn path(&self) -> &Path {
        &self.unified.path
    }

    /// The directory that a process is born into, for `CLONE_INTO_CGROUP`.
    pub fn birth_fd(&self) -> BorrowedFd<'_> {
        self.unified.dir.as_fd()
    }

    /// The root of the tree of version 2.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.unified.root.as_fd()
    }

    /// The group in the tree of version 2.
    pub(super) fn unified(&self) -> &Member {
        &self.unified
    }

    /// The group in the trees of version 1.
    pub(super) fn legacy(&self) -> &[Member] {
        &self.legacy
    }

    /// The group in the tree that drives `controller`.
    pub(super) fn member_of(&self, controller: Controller) -> &Member {
        let in_v1 = self.legacy.iter().find(|member| member.controllers.contains(&controller));
        in_v1.unwrap_or(&self.unified)
    }

    /// Gives the group in the tree of version 2 to the container's root user, who then manages the
    /// groups below it: the files that the kernel lists in `/sys/kernel/cgroup/delegate`.
    ///
    /// Only for a container with a user namespace and a cgroup namespace of its own.
    pub fn give_to(&self, user: u32, group: u32) -> Result<(), Error> {
        let failed = |cause| {
            let path = self.unified.path.display();
            Error::kernel(format!("give cgroup {path} to user {user}"), cause)
        };
        let files = super::host::read("/sys/kernel/cgroup/delegate")?;
        let dir = self.unified.dir.as_fd();
        linux::directory::give_to(dir, Path::new("."), user, group).map_err(failed)?;
        for name in files.lines() {
            match linux::directory::give_to(dir, Path::new(name), user, group) {
                Err(cause) if cause.errno != Errno::ENOENT => return Err(failed(cause)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes the group everywhere, and the groups that the container made below it.
    ///
    /// Waits for processes that have been killed and are not gone yet. Goes on after an error, and
    /// reports all of them. Groups that were there before the container stay.
    pub fn remove(&self) -> Result<(), Error> {
        let (mut busy, mut errors) = (Vec::new(), Vec::new());
        let members = self.legacy.iter().chain([&self.unified]);
        for member in members.filter(|member| !self.record.found.contains(&member.name)) {
            match path::remove_dir_at(member.root.as_fd(), &self.record.path) {
                Err(cause) if cause.errno == Errno::EBUSY => busy.push(member),
                Err(cause) if cause.errno != Errno::ENOENT => {
                    errors.push(member.failed("remove", cause));
                }
                _ => {}
            }
        }
        if !busy.is_empty() {
            self.wait_until_empty(super::PATIENCE)?;
        }
        for member in busy {
            let removed = remove_below(member.dir.as_fd()).and_then(|()| {
                gone_is_fine(path::remove_dir_at(member.root.as_fd(), &self.record.path))
            });
            errors.extend(removed.err().map(|cause| member.failed("remove", cause)));
        }
        Error::of_many(errors)
    }
}

impl Hierarchy {
    /// The controllers in the name of a tree.
    fn controllers_of(name: &str) -> Vec<Controller> {
        let known = |part: &str| Controller::ALL.into_iter().find(|c| c.v1_name() == part);
        name.split(',').filter_map(known).collect()
    }
}

/// Makes the directory `path` below `root`, and what is missing above it.
fn make_path(root: BorrowedFd<'_>, path: &Path) -> linux::Result<OwnedFd> {
    match path::make_dir_at(root, path, 0o755) {
        Err(error) if error.errno == Errno::ENOENT => {
            for prefix in prefixes(path) {
                match path::make_dir_at(root, &prefix, 0o755) {
                    // Another minirun may be making the same parent just now.
                    Err(error) if error.errno != Errno::EEXIST => return Err(error),
                    _ => {}
                }
            }
        }
        Err(error) if error.errno != Errno::EEXIST => return Err(error),
        _ => {}
    }
    path::open_at(root, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
}

/// `a`, `a/b`, `a/b/c` for `a/b/c`.
pub(super) fn prefixes(path: &Path) -> Vec<PathBuf> {
    let mut prefix = PathBuf::new();
    let mut all = Vec::new();
    for component in path.components() {
        if let Component::Normal(name) = component {
            prefix.push(name);
            all.push(prefix.clone());
        }
    }
    all
}

/// A new container must not be mixed with what runs already.
fn refuse_used(member: &Member) -> Result<(), Error> {
    let failed = |cause| member.failed("look into", cause);
    let dir = member.dir.as_fd();
    let processes = fd::read_file_at(dir, Path::new("cgroup.procs")).map_err(failed)?;
    let below = directories(dir).map_err(failed)?;
    let by = match (processes.lines().next(), below.first()) {
        (None, None) => return Ok(()),
        (None, Some(child)) => format!("groups below it ({})", Path::new(child).display()),
        (Some(first), _) => {
            let count = processes.lines().count();
            format!("{count} processes in it (the first is {first})")
        }
    };
    Err(Error::InUse { path: member.path.clone(), by })
}

/// A new group of the cpuset tree of version 1 has no CPUs and no memory nodes, and nothing can
/// join it: give each level what the one above has.
fn inherit_cpuset(root: BorrowedFd<'_>, path: &Path) -> linux::Result<()> {
    const FILES: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];
    let read = |group: &Path, file: &str| fd::read_file_at(root, &group.join(file));
    let mut above = PathBuf::new();
    for group in prefixes(path) {
        for file in FILES {
            if read(&group, file)?.trim().is_empty() {
                let inherited = read(&above, file)?;
                fd::write_file_at(root, &group.join(file), inherited.trim().as_bytes())?;
            }
        }
        above = group;
    }
    Ok(())
}

/// Removes the groups below `dir`, deepest first.
fn remove_below(dir: BorrowedFd<'_>) -> linux::Result<()> {
    let names = match directories(dir) {
        Err(error) if error.errno == Errno::ENOENT => return Ok(()),
        names => names?,
    };
    for name in names {
        let name = Path::new(&name);
        match path::open_at(dir, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
            Ok(child) => remove_below(child.as_fd())?,
            Err(error) if error.errno == Errno::ENOENT => continue,
            Err(error) => return Err(error),
        }
        gone_is_fine(path::remove_dir_at(dir, name))?;
    }
    Ok(())
}

fn gone_is_fine(result: linux::Result<()>) -> linux::Result<()> {
    match result {
        Err(error) if error.errno == Errno::ENOENT => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_made_from_the_top() {
        let all = prefixes(Path::new("/a/b/c"));
        assert_eq!(all, ["a", "a/b", "a/b/c"].map(PathBuf::from));
    }

    #[test]
    fn the_name_of_a_tree_says_its_controllers() {
        let both = [Controller::Cpu, Controller::Cpuacct];
        assert_eq!(Hierarchy::controllers_of("cpu,cpuacct"), both);
        assert!(Hierarchy::controllers_of("name=systemd").is_empty());
    }
}
