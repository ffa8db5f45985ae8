//! The end of a group.
//!
//! The kernel removes a group only when no process and no group is in it. Whatever the container
//! made below its group goes first, deepest first; processes that were killed may take a moment.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use linux::directory::directories;
use linux::{Errno, OFlag, path};

use super::group::{Cgroup, Record};
use super::host::Host;
use super::{Error, systemd};

impl Record {
    /// Removes the group if nothing is in it, as after the end of most containers: one call for
    /// each tree, without opening anything. `false` where that is not enough.
    pub fn remove_empty(&self) -> bool {
        let is_plain = self.unit.is_none() && self.found.is_empty();
        is_plain
            && self.trees.values().all(|mount| {
                // On a legacy host the tree of version 2 is mounted nowhere.
                let removed = match mount.is_absolute() {
                    true => path::remove_dir(&mount.join(&self.path)),
                    false => return false,
                };
                matches!(removed, Ok(()) | Err(linux::Error { errno: Errno::ENOENT, .. }))
            })
    }
}

impl Cgroup {
    /// Removes what there is of the group that `record` names, wherever its creation or removal was
    /// cut short.
    pub fn remove_recorded(host: &Host, record: &Record) -> Result<(), Error> {
        match Self::open(host, record) {
            Err(error) if error.is_gone() => {}
            group => return group?.remove(),
        }
        let mut errors = Vec::new();
        for name in record.trees.keys().filter(|name| !record.found.contains(name)) {
            let removed = record
                .root(host, name)
                .and_then(|root| remove_with_below(root.as_fd(), &record.path));
            let step = || format!("remove cgroup {} from {name}", record.path.display());
            errors.extend(removed.err().map(|cause| Error::kernel(step(), cause)));
        }
        Error::of_many(errors)
    }

    /// Removes the group everywhere, and the groups that the container made below it.
    ///
    /// Waits for processes that have been killed and are not gone yet. Goes on after an error, and
    /// reports all of them. Groups that were there before the container stay.
    pub fn remove(&self) -> Result<(), Error> {
        let (mut busy, mut errors) = (Vec::new(), Vec::new());
        let record = self.record();
        if record.unit.is_some() && !record.made {
            // A unit of that name is somebody else's; ours, if it came to be, is empty by now, and
            // systemd removes those.
            return Ok(());
        }
        errors.extend(systemd::stop(record).err());
        for member in self.members().filter(|member| !record.found.contains(&member.name)) {
            match path::remove_dir_at(member.root.as_fd(), &record.path) {
                Err(cause) if cause.errno == Errno::EBUSY => busy.push(member),
                Err(cause) if cause.errno != Errno::ENOENT => {
                    errors.push(member.failed("remove", cause));
                }
                _ => {}
            }
        }
        if !busy.is_empty() && !record.made {
            // Whoever has made it while we only meant to, keeps it.
            if !self.wait_empty(super::PATIENCE)? {
                return Error::of_many(errors);
            }
        } else if !busy.is_empty() {
            self.wait_until_empty(super::PATIENCE)?;
        }
        for member in busy {
            let removed = remove_with_below(member.root.as_fd(), &record.path);
            errors.extend(removed.err().map(|cause| member.failed("remove", cause)));
        }
        Error::of_many(errors)
    }
}

/// Removes the group `path` below `root`, and before it the groups in it.
fn remove_with_below(root: BorrowedFd<'_>, path: &Path) -> linux::Result<()> {
    let dir = match path::open_at(root, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
        Err(error) if error.errno == Errno::ENOENT => return Ok(()),
        dir => dir?,
    };
    let below = match directories(dir.as_fd()) {
        Err(error) if error.errno == Errno::ENOENT => return Ok(()),
        below => below?,
    };
    for name in below {
        remove_with_below(dir.as_fd(), Path::new(&name))?;
    }
    match path::remove_dir_at(root, path) {
        Err(error) if error.errno == Errno::ENOENT => Ok(()),
        result => result,
    }
}
