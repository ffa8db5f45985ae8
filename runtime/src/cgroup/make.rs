//! A new group, in every tree.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use linux::directory::directories;
use linux::{Errno, OFlag, fd, path};

use super::Error;
use super::group::{Cgroup, Record};
use super::host::{Controller, Host, Layout};
use super::place::Place;

impl Cgroup {
    /// Makes the group in every tree, with its controllers enabled and its cpuset usable.
    ///
    /// The group must not exist, or be empty. On failure everything that was made is removed again,
    /// except the groups above (`/minirun`), which containers share.
    pub fn make(host: &Host, place: &Place) -> Result<Self, Error> {
        Self::make_recorded(host, &Record::of(host, place)?)
    }

    /// The same, from the record that the state has already.
    pub fn make_recorded(host: &Host, record: &Record) -> Result<Self, Error> {
        let made = Self::make_all(host, record);
        if made.is_err() {
            // The error that matters is the first one.
            let _ = Self::remove_recorded(host, record);
        }
        made
    }

    fn make_all(host: &Host, record: &Record) -> Result<Self, Error> {
        let group = Self::each(host, record, |name, root| {
            let is_found = record.found.iter().any(|found| found == name);
            let dir = make_path(root, &record.path, is_found)?;
            if name.split(',').any(|controller| controller == Controller::Cpuset.v1_name()) {
                inherit_cpuset(root, &record.path)?;
            }
            Ok(Some(dir))
        })
        .map_err(|(step, cause)| Error::kernel(format!("make {step}"), cause))?
        .made();
        // On a hybrid host the controllers of version 2 are systemd's business until a limit needs
        // one that is there.
        if host.layout() == Layout::Unified {
            group.enable_all()?;
        }
        Ok(group)
    }
}

/// Makes the directory `path` below `root`, and what is missing above it. One that was not there
/// before and is there now belongs to somebody else, and is an error (`EEXIST`).
fn make_path(root: BorrowedFd<'_>, path: &Path, is_found: bool) -> linux::Result<OwnedFd> {
    let mut made = path::make_dir_at(root, path, 0o755);
    if matches!(&made, Err(error) if error.errno == Errno::ENOENT) {
        for prefix in prefixes(path.parent().unwrap_or(Path::new(""))) {
            match path::make_dir_at(root, &prefix, 0o755) {
                // Another minirun may be making the same parent just now.
                Err(error) if error.errno != Errno::EEXIST => return Err(error),
                _ => {}
            }
        }
        made = path::make_dir_at(root, path, 0o755);
    }
    match made {
        Err(error) if error.errno != Errno::EEXIST || !is_found => return Err(error),
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
pub(super) fn refuse_used(dir: BorrowedFd<'_>, shown: &Path) -> Result<(), Error> {
    let failed = |cause| Error::kernel(format!("look into cgroup {}", shown.display()), cause);
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
    Err(Error::InUse { path: shown.to_path_buf(), by })
}

/// A new group of the cpuset tree of version 1 has no CPUs and no memory nodes, and nothing can
/// join it: give it, and each level above that lacks them, what the next one above has.
fn inherit_cpuset(root: BorrowedFd<'_>, path: &Path) -> linux::Result<()> {
    ["cpuset.cpus", "cpuset.mems"].into_iter().try_for_each(|file| fill(root, path, file).map(drop))
}

/// Gives what `file` of `group` holds in the end.
fn fill(root: BorrowedFd<'_>, group: &Path, file: &str) -> linux::Result<String> {
    let own = fd::read_record_at(root, &group.join(file))?;
    match group.parent().filter(|_| own.trim().is_empty()) {
        None => Ok(own),
        Some(above) => {
            let inherited = fill(root, above, file)?;
            fd::write_file_at(root, &group.join(file), inherited.trim().as_bytes())?;
            Ok(inherited)
        }
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
}
