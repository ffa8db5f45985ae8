//! # What the kernel offers
//! Procfs and sysfs are only partly divided by namespaces: some of their files show, or change, the
//! whole machine. A mount hides what is below it, and a read-only mount refuses writes whatever the
//! permission bits say.
//!
//! # What we do
//! A masked file gets `/dev/null` of the host over it, checked to be just that; a masked directory
//! gets an empty one (the same for all). A read-only path gets a read-only copy of itself. A path
//! that does not exist needs no mask.
//!
//! # What goes wrong without it
//! `/proc/kcore` is the memory of the machine; a write to `/proc/sysrq-trigger` restarts it. And
//! where the runtime takes the *image's* `/dev/null`, a link in its place chose what was mounted
//! (CVE-2025-31133).
//!
//! # By hand
//! ```sh
//! unshare --mount sh -c 'mount --bind /dev/null /proc/kallsyms && wc -c < /proc/kallsyms' | grep -x 0
//! unshare --mount sh -c 'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && ! echo 1 2>/dev/null > /proc/sys/vm/drop_caches && echo refused' | grep -x refused
//! ```
//! See runtime-spec config-linux.md, "Masked Paths" and "Readonly Paths".

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use linux::device::{self, Kind, Number};
use linux::mount::{self, Attributes};
use linux::path::Root;
use linux::{Errno, OFlag};

use super::mounts::empty_directory;
use crate::error::Cause;

/// Masks paths.
pub(crate) fn mask(root: &Root, paths: &[PathBuf]) -> Result<(), Cause> {
    let null = Number { major: 1, minor: 3 };
    let mut null_device: Option<OwnedFd> = None;
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let Some((target, is_directory)) = place(root, path)? else { continue };
        let tree = match (is_directory, &empty) {
            // Attached already, so a copy of it can be attached again.
            (true, Some(first)) => mount::clone_tree_at(first.as_fd(), false)?,
            (true, None) => empty_directory(root)?,
            (false, _) => {
                let source = match null_device.take() {
                    Some(open) => open,
                    None => device::open_verified(Path::new("/dev/null"), Kind::Character, null)?,
                };
                let tree = mount::clone_tree_at(source.as_fd(), false)?;
                null_device = Some(source);
                tree
            }
        };
        mount::attach(tree.as_fd(), target.as_fd())?;
        root.spend(target);
        match is_directory && empty.is_none() {
            true => empty = Some(tree),
            false => root.spend(tree),
        }
    }
    null_device.into_iter().chain(empty).for_each(|source| root.spend(source));
    Ok(())
}

/// Makes paths read-only, with everything below them.
pub(crate) fn make_read_only(root: &Root, paths: &[PathBuf]) -> Result<(), Cause> {
    for path in paths {
        let Some(target) = existing(root, path)? else { continue };
        let tree = mount::clone_tree_at(target.as_fd(), true)?;
        mount::set_attributes(tree.as_fd(), Attributes::set(Attributes::READ_ONLY), true)?;
        mount::attach(tree.as_fd(), target.as_fd())?;
        root.spend(tree);
        root.spend(target);
    }
    Ok(())
}

/// What is at `path`, and whether it is a directory: the kernel says that while it opens it.
fn place(root: &Root, path: &Path) -> Result<Option<(OwnedFd, bool)>, Cause> {
    match root.in_root(path, OFlag::O_PATH | OFlag::O_DIRECTORY) {
        Err(error) if error.errno == Errno::ENOENT => Ok(None),
        // A file; or one is where a directory above should be, and there is nothing.
        Err(error) if error.errno == Errno::ENOTDIR => {
            Ok(existing(root, path)?.map(|file| (file, false)))
        }
        found => Ok(Some((found?, true))),
    }
}

/// What is at `path`. That nothing is there is fine; any other failure is not, because a path that
/// stays visible by mistake is a hole.
fn existing(root: &Root, path: &Path) -> Result<Option<OwnedFd>, Cause> {
    match root.in_root(path, OFlag::O_PATH) {
        Ok(target) => Ok(Some(target)),
        Err(error) if [Errno::ENOENT, Errno::ENOTDIR].contains(&error.errno) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
