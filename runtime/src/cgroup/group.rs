//! A container's group: made, found again, given away, removed.
//!
//! The group has the same path in every tree that it is in. Only the tree of version 2 matters for
//! the processes themselves (they are born in it, frozen and killed through it); the trees of
//! version 1, where there are any, only hold limits.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use linux::{Errno, OFlag, path};
use serde::{Deserialize, Serialize};

use super::Error;
use super::host::{Controller, Hierarchy, Host, Version};
use super::place::Place;

/// The name of the tree of version 2 in a [`Record`].
pub(super) const UNIFIED: &str = "unified";

/// What the state of a container remembers of its group.
///
/// It is complete before the first directory is made, so that a state file which holds it can
/// undo a creation that was cut short at any point. Once the group is made it says so; save it
/// again then, because only from that moment on a group of that name is known to be the container's
/// own.
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
    /// Whether the group has been made. Until then it may be somebody else's: nothing in it is
    /// killed, and it is removed only if it is empty. (A process of ours that is in it all the same
    /// dies with its creator.)
    #[serde(default)]
    pub made: bool,
    /// The unit of systemd that the group belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

impl Record {
    /// What [`Cgroup::make`] would make. An error when the group is in use already.
    pub fn of(host: &Host, place: &Place) -> Result<Self, Error> {
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
            made: false,
            unit: None,
        };
        for (name, mount) in &record.trees {
            if let Some(dir) = record.existing(host, name) {
                super::make::refuse_used(dir.as_fd(), &mount.join(&record.path))?;
                record.found.push(name.clone());
            }
        }
        Ok(record)
    }

    /// Whether the group is in a part of the tree that its maker may change as a whole.
    pub fn is_roots(&self) -> bool {
        is_empty(&self.delegated)
    }

    /// Where the tree of version 1 is mounted that has this controller.
    pub(super) fn tree_of(&self, controller: Controller) -> Option<&Path> {
        let has = |name: &str| name.split(',').any(|part| part == controller.v1_name());
        self.trees.iter().find(|(name, _)| has(name)).map(|(_, mount)| mount.as_path())
    }

    fn existing(&self, host: &Host, tree: &str) -> Option<OwnedFd> {
        let mount = self.trees.get(tree).filter(|mount| mount.is_absolute());
        if mount.is_some_and(|mount| !mount.join(&self.path).exists()) {
            return None;
        }
        let root = self.root(host, tree).ok()?;
        path::open_at(root.as_fd(), &self.path, OFlag::O_RDONLY | OFlag::O_DIRECTORY).ok()
    }

    /// The root directory of one of its trees.
    pub(super) fn root(&self, host: &Host, tree: &str) -> linux::Result<Arc<OwnedFd>> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        match (tree, self.trees.get(tree)) {
            // By descriptor: on a legacy host this tree is mounted nowhere.
            (UNIFIED, _) => Ok(host.unified().shared()),
            (_, Some(mount)) => path::open(mount, flags).map(Arc::new),
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
    pub(super) root: Arc<OwnedFd>,
}

impl Member {
    pub(super) fn failed(&self, step: &str, cause: linux::Error) -> Error {
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
    pub(super) fn each(
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

    /// The same group, now that it is the container's.
    pub(super) fn made(mut self) -> Self {
        self.record.made = true;
        self
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

    /// The group in every tree; that of version 2 is the last.
    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.legacy.iter().chain([&self.unified])
    }

    /// The same, to be changed.
    pub(super) fn members_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.legacy.iter_mut().chain([&mut self.unified])
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
}

impl Hierarchy {
    /// The controllers in the name of a tree.
    fn controllers_of(name: &str) -> Vec<Controller> {
        let known = |part: &str| Controller::ALL.into_iter().find(|c| c.v1_name() == part);
        name.split(',').filter_map(known).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_tree_says_its_controllers() {
        let both = [Controller::Cpu, Controller::Cpuacct];
        assert_eq!(Hierarchy::controllers_of("cpu,cpuacct"), both);
        assert!(Hierarchy::controllers_of("name=systemd").is_empty());
    }

    #[test]
    fn a_record_says_no_more_than_it_has_to() {
        let record = Record { path: "a/b".into(), ..Record::default() };
        assert_eq!(
            serde_json::to_string(&record).unwrap(),
            r#"{"path":"a/b","trees":{},"made":false}"#
        );
    }
}
