//! Controllers of version 2 are enabled from the top of the tree down.
//!
//! # What the kernel offers
//! A group has the files of a controller only when the group above lists it in its
//! `cgroup.subtree_control`, and that one can list only what its own parent lists.
//!
//! # What we do
//! Enable whatever is offered, at each level above the container's group; the first container pays
//! for it, the next ones find it done.
//!
//! # What goes wrong without it
//! The limit's file is not there, and a runtime that does not look gives a container without limit.
//!
//! # By hand
//! Where version 2 has the controllers:
//! ```sh
//! tree=/sys/fs/cgroup; test -f $tree/cgroup.controllers || exit 0
//! echo +pids > $tree/cgroup.subtree_control
//! mkdir -p $tree/lesson-enable/below
//! echo +pids > $tree/lesson-enable/cgroup.subtree_control
//! test -f $tree/lesson-enable/below/pids.max
//! rmdir $tree/lesson-enable/below $tree/lesson-enable
//! ```
//!
//! A group that has processes of its own cannot enable controllers for its children (`EBUSY`):
//! who uses something, and who divides it, must not be the same. For a caller whose only group is
//! the one that it sits in, minirun moves itself, and nothing else, one level down, into the group
//! [`LEAF`]; when others sit there too, that does not help, and the error says what does.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use linux::{Errno, fd, path};

use super::Error;
use super::group::Cgroup;
use super::host::Controller;
use super::make::prefixes;
use super::{Missing, place};

/// The leaf that minirun moves itself into to free its own group for the containers.
pub(super) const LEAF: &str = "minirun-itself";

const OFFERED: &str = "cgroup.controllers";
const ENABLED: &str = "cgroup.subtree_control";

/// The controllers that every container wants; when the group has these, nothing is to be done.
const USUAL: [Controller; 4] =
    [Controller::Cpu, Controller::Memory, Controller::Pids, Controller::Io];

/// A level of the tree at which a controller could not be enabled.
#[derive(Debug)]
struct Refusal {
    group: PathBuf,
    errno: Errno,
}

impl Cgroup {
    /// Whether the group, in version 2, has `controller` now.
    fn has(&self, controllers: &[Controller]) -> Result<bool, Error> {
        let dir = self.unified().dir.as_fd();
        let text = fd::read_record_at(dir, Path::new(OFFERED)).map_err(|cause| {
            Error::kernel(format!("read controllers of {}", self.path().display()), cause)
        })?;
        Ok(controllers.iter().all(|controller| lists(&text, *controller)))
    }

    /// Enables every controller that is offered, on the way down to the group.
    ///
    /// A refusal is no error yet: it is one when a limit needs the controller.
    pub(super) fn enable_all(&self) -> Result<(), Error> {
        if !self.has(&USUAL)? {
            self.enable(&Controller::V2)?;
        }
        Ok(())
    }

    /// Enables `wanted` where they are offered, and gives the refusals.
    fn enable(&self, wanted: &[Controller]) -> Result<Vec<Refusal>, Error> {
        let mut refusals = Vec::new();
        let delegated = self.record().delegated.clone();
        let above = self.record().path.parent().unwrap_or(Path::new("")).to_path_buf();
        let levels = std::iter::once(PathBuf::new()).chain(prefixes(&above));
        // What a group enables is what the one below is offered.
        let mut offered = None;
        for level in levels.filter(|level| level.starts_with(&delegated)) {
            let (refused, enabled) = self.enable_at(&level, wanted, offered)?;
            refusals.extend(refused);
            offered = Some(enabled);
        }
        Ok(refusals)
    }

    /// The refusals of one level, and which of `wanted` it enables in the end.
    fn enable_at(
        &self,
        level: &Path,
        wanted: &[Controller],
        offered: Option<Vec<Controller>>,
    ) -> Result<(Vec<Refusal>, Vec<Controller>), Error> {
        let root = self.root();
        let failed = |cause| {
            Error::kernel(format!("enable controllers in cgroup /{}", level.display()), cause)
        };
        let listed = |file: &str| {
            let text = fd::read_record_at(root, &level.join(file)).map_err(failed)?;
            let known = wanted.iter().copied().filter(|one| lists(&text, *one));
            Ok::<Vec<Controller>, Error>(known.collect())
        };
        let offered = offered.map_or_else(|| listed(OFFERED), Ok)?;
        let enabled = listed(ENABLED)?;
        let todo: Vec<_> = offered.iter().copied().filter(|one| !enabled.contains(one)).collect();
        if todo.is_empty() {
            return Ok((Vec::new(), enabled));
        }
        let refusal = |errno| Refusal { group: level.to_path_buf(), errno };
        if is_inhabited(root, level).map_err(failed)? {
            move_to_leaf(root, level).map_err(failed)?;
            if is_inhabited(root, level).map_err(failed)? {
                return Ok((vec![refusal(Errno::EBUSY)], enabled));
            }
        }
        if write_enabled(root, level, &todo).is_ok() {
            return Ok((Vec::new(), offered));
        }
        // The kernel takes all or nothing, so that one refusal hides the rest: one by one, then.
        let one_by_one = todo.into_iter().map(|one| write_enabled(root, level, &[one]));
        let refusals = one_by_one.filter_map(|result| Some(refusal(result.err()?.errno))).collect();
        Ok((refusals, listed(ENABLED)?))
    }

    /// Makes sure that the group has `controller` in version 2, or says why it has not.
    pub(super) fn require(&self, controller: Controller, asked: &str) -> Result<(), Error> {
        if self.has(&[controller])? {
            return Ok(());
        }
        let refusals = self.enable(&[controller])?;
        if self.has(&[controller])? {
            return Ok(());
        }
        let missing = Box::new(self.why_missing(controller, asked, refusals.first()));
        Err(Error::Missing { asked: asked.to_owned(), missing })
    }

    fn why_missing(
        &self,
        controller: Controller,
        asked: &str,
        refusal: Option<&Refusal>,
    ) -> Missing {
        let is_delegated = !self.record().is_roots();
        let (mut found, mut cure) = (String::new(), remedy(controller, is_delegated));
        if let Some(Refusal { group, errno }) = refusal {
            let group = group.display();
            found = format!("cgroup /{group} does not enable it for its children: {errno}");
            if *errno == Errno::EBUSY {
                found.push_str(", because processes sit in that group itself");
                cure = "move them into a group of their own, or choose a `cgroupsPath` elsewhere; \
                        for one command, `systemd-run --user --scope -p Delegate=yes minirun …`"
                    .to_owned();
            }
        } else if let Some(mount) = self.record().tree_of(controller) {
            found =
                format!("version 1 has it, at {}, and this limit is version 2's", mount.display());
            cure = "use the limits of `linux.resources` that are not `unified`, or boot with \
                    `systemd.unified_cgroup_hierarchy=1`"
                .to_owned();
        } else if let Some(mount) = self.record().trees.get("unified") {
            let base = mount.join(&self.record().delegated);
            let offered = fd::read_file_at(self.root(), &self.record().delegated.join(OFFERED));
            found = what_was_found(&base, &offered.unwrap_or_default());
        }
        Missing { controller, wanted_by: asked.to_owned(), found, remedy: cure }
    }
}

/// What a level of the tree offers, in words.
pub(super) fn what_was_found(group: &Path, offered: &str) -> String {
    let offered = match offered.trim() {
        "" => "none",
        names => names,
    };
    format!("{} offers: {offered}", group.display())
}

/// How the missing controller comes to be there.
pub(super) fn remedy(controller: Controller, is_delegated: bool) -> String {
    match (controller, is_delegated) {
        (Controller::NetCls | Controller::NetPrio, _) => format!(
            "cgroup v2 has no {controller}: match on the cgroup with nftables (`socket cgroupv2`) \
             or tc"
        ),
        (_, true) => format!(
            "ask systemd to delegate it: `systemd-run --user --scope -p Delegate={controller} …`, \
             or for all users `Delegate=cpu cpuset io memory pids` in a drop-in of user@.service"
        ),
        (Controller::Memory, false) => {
            "boot with `cgroup_enable=memory` (and without `cgroup_disable=memory`)".to_owned()
        }
        (_, false) => format!(
            "a kernel with it is needed; if version 1 has it (`grep {controller} /proc/cgroups`), \
             boot with `systemd.unified_cgroup_hierarchy=1` or `cgroup_no_v1=all`"
        ),
    }
}

fn lists(text: &str, controller: Controller) -> bool {
    text.split_whitespace().any(|name| name == controller.v2_name())
}

fn write_enabled(
    root: BorrowedFd<'_>,
    level: &Path,
    controllers: &[Controller],
) -> linux::Result<()> {
    let names: Vec<String> = controllers.iter().map(|c| format!("+{}", c.v2_name())).collect();
    fd::write_file_at(root, &level.join(ENABLED), names.join(" ").as_bytes())
}

/// Whether processes sit in the group itself, which then must not divide what it has.
///
/// The kernel alone would not stop everything: it lets such a group enable cpu and pids, which work
/// on threads, but turns it into the root of a threaded subtree by that, in which no container can
/// be born any more. The root of the whole tree is free of the rule; it has no type.
fn is_inhabited(root: BorrowedFd<'_>, level: &Path) -> linux::Result<bool> {
    let may_be_root = level.as_os_str().is_empty();
    match may_be_root.then(|| fd::read_record_at(root, Path::new("cgroup.type"))) {
        Some(Err(error)) if error.errno == Errno::ENOENT => return Ok(false),
        other => drop(other.transpose()?),
    }
    fd::read_file_at(root, &level.join("cgroup.procs")).map(|text| !text.trim().is_empty())
}

/// Moves this process from the group `level` into a leaf of it, when it is there.
fn move_to_leaf(root: BorrowedFd<'_>, level: &Path) -> linux::Result<()> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = place::own_group(&own).unwrap_or_default();
    if own != level {
        return Ok(());
    }
    let leaf = level.join(LEAF);
    match path::make_dir_at(root, &leaf, 0o755) {
        Err(error) if error.errno != Errno::EEXIST => return Err(error),
        _ => {}
    }
    fd::write_file_at(root, &leaf.join("cgroup.procs"), b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_whole_words() {
        assert!(lists("cpuset cpu io\n", Controller::Cpu));
        assert!(!lists("cpuset io\n", Controller::Cpu));
    }

    #[test]
    fn remedies_differ_by_who_asks() {
        assert!(remedy(Controller::Memory, true).contains("Delegate=memory"));
        assert!(remedy(Controller::Memory, false).contains("cgroup_enable=memory"));
        assert!(remedy(Controller::NetCls, false).contains("nftables"));
    }
}
