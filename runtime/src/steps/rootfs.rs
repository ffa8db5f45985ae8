//! # What the kernel offers
//! overlayfs shows several directories as one: read-only layers below, one writable on top. A file
//! is copied up when it is first written; a deletion is a mark in the top layer. open_tree(2) makes
//! a copy of any mount that belongs to nobody yet.
//!
//! # What we do
//! In the container's own, new mount namespace: stop changes from passing to the host, mount the
//! overlay (or a copy of a plain directory) where the bundle has its `rootfs`, and hold it by a
//! descriptor. Nothing is ever mounted in the host's namespace, so nothing can be left there,
//! whatever dies.
//!
//! # What goes wrong without it
//! Each container would need a full copy of its image: megabytes and seconds instead of nothing.
//! And with mounts that propagate, the first `mount` in the container would appear on the host.
//!
//! # By hand
//! ```sh
//! d=$(mktemp -d) && mkdir $d/lower $d/upper $d/work $d/root && echo below > $d/lower/file
//! unshare --mount sh -c "mount -t tmpfs t $d/work -o size=1m && mkdir $d/work/u $d/work/w && mount -t overlay o -o lowerdir=$d/lower,upperdir=$d/work/u,workdir=$d/work/w $d/root && echo above > $d/root/file && cat $d/lower/file $d/root/file" | tr '\n' ' ' | grep 'below above'
//! grep -c $d /proc/self/mountinfo | grep -x 0; rm -r $d
//! ```
//! See overlayfs in the kernel's documentation, mount_namespaces(7), open_tree(2).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use linux::mount::{self, Attributes, Propagation};
use linux::overlay::{self, Layers};
use linux::path::Root;
use linux::{Errno, OFlag};

use crate::error::Cause;
use crate::plan::{Overlay, Rootfs};

/// Makes the directories that the writable layer needs. The parent does it, and writes down first
/// that they are to be removed.
pub(crate) fn make_writable_layer(overlay: &Overlay) -> Result<(), Cause> {
    let Some(dir) = &overlay.writable else { return Ok(()) };
    for part in ["upper", "work"] {
        let path = dir.join(part);
        std::fs::create_dir_all(&path).map_err(|error| {
            Cause::new(format!("{}: {error}", path.display())).remedy(format!(
                "the writable layer lives in the bundle unless the annotation {} names another \
                 directory",
                crate::plan::UPPER_ANNOTATION
            ))
        })?;
    }
    Ok(())
}

/// Stops mounts from passing to the host, then puts the root file system in its place and opens it:
/// `made`, where the creator had to make it.
pub(crate) fn attach(
    rootfs: &Rootfs,
    made: Option<OwnedFd>,
    in_user_namespace: bool,
) -> Result<Root, Cause> {
    mount::set_root_propagation(match rootfs.propagation {
        Propagation::Private => Propagation::Private,
        _ => Propagation::Slave,
    })?;
    // What is made from here on is private as its surroundings are; what was made before is not.
    let is_older = made.is_some();
    let open = || linux::path::open(&rootfs.path, OFlag::O_PATH | OFlag::O_DIRECTORY);
    let root = match (&rootfs.overlay, made) {
        (_, Some(tree)) => attached(tree, open()?)?,
        (None, None) => attached(plain(rootfs)?, open()?)?,
        (Some(overlay), None) => {
            stack(overlay, &open()?, in_user_namespace)?;
            // Opened again: this time the path leads into what is mounted there now.
            Root::open(&rootfs.path)?
        }
    };
    if is_older && rootfs.propagation == Propagation::Private {
        mount::set_propagation(root.as_fd(), Propagation::Private, true)?;
    }
    Ok(root)
}

/// Attaches a detached tree: its descriptor is that of the root from then on.
fn attached(tree: OwnedFd, target: OwnedFd) -> linux::Result<Root> {
    mount::attach(tree.as_fd(), target.as_fd())?;
    let root = Root::new(tree);
    root.spend(target);
    Ok(root)
}

fn plain(rootfs: &Rootfs) -> linux::Result<OwnedFd> {
    mount::clone_tree(&rootfs.path, true)
}

/// Mounts the overlay over the directory behind `target`.
pub(super) fn stack(
    overlay: &Overlay,
    target: &OwnedFd,
    user_attributes: bool,
) -> Result<(), Cause> {
    let lower: Vec<&Path> = overlay.lower.iter().map(AsRef::as_ref).collect();
    let (upper, work);
    let writable = match &overlay.writable {
        // Without a writable layer, one directory needs no overlay.
        None if lower.len() == 1 => {
            let tree = mount::clone_tree(lower[0], false)?;
            mount::set_attributes(tree.as_fd(), Attributes::set(Attributes::READ_ONLY), false)?;
            return Ok(mount::attach(tree.as_fd(), target.as_fd())?);
        }
        None => None,
        Some(dir) => {
            (upper, work) = (dir.join("upper"), dir.join("work"));
            Some((upper.as_path(), work.as_path()))
        }
    };
    let layers = Layers { lower: &lower, writable, user_attributes };
    overlay::mount_over(target.as_fd(), layers).map_err(|error| {
        let unknown = error.errno == Errno::ENODEV;
        let cause = Cause::from(error);
        if unknown { cause.remedy("load the kernel module: modprobe overlay") } else { cause }
    })
}

/// Gives the root the propagation that it could not have earlier: pivot_root(2) refuses one that is
/// shared, and masks are bind mounts. A shared root is a group of its own, not the host's; volumes
/// that share their changes with the host do so by themselves.
pub(crate) fn set_late_propagation(rootfs: &Rootfs, root: &Root) -> linux::Result<()> {
    match rootfs.propagation {
        late @ (Propagation::Shared | Propagation::Unbindable) => {
            mount::set_propagation(root.as_fd(), late, false)
        }
        Propagation::Private | Propagation::Slave => Ok(()),
    }
}

/// Makes the root read-only (its mount only: volumes below keep their own setting).
pub(crate) fn make_read_only(root: &Root) -> linux::Result<()> {
    mount::set_attributes(root.as_fd(), Attributes::set(Attributes::READ_ONLY), false)
}
