//! # What the kernel offers
//! pivot_root(2) makes another mount the root of a mount namespace. Once the old root is unmounted,
//! no path leads to it: not `..`, not a link, nothing.
//!
//! # What we do
//! Step into the new root, swap, unmount the old one. Both with `.`, so that neither needs a
//! directory inside the other. Where the container has no mount namespace of its own, chroot(2) is
//! all that is left (and is weaker, see below).
//!
//! # What goes wrong without it
//! chroot changes where *one process* starts to look; its mount namespace still holds the host's
//! tree, and a process with `CAP_SYS_CHROOT` and an open directory gets out again.
//!
//! # By hand
//! ```sh
//! d=$(mktemp -d); unshare --mount sh -c "mount -t tmpfs t $d && mkdir $d/bin && cp /bin/busybox $d/bin && cd $d && /sbin/pivot_root . . && exec /bin/busybox sh -c 'cd / && /bin/busybox umount -l . && echo /*'" | grep -x /bin; rmdir $d
//! ```
//! See pivot_root(2), notes on `pivot_root(".", ".")`.

use std::os::fd::AsFd;
use std::path::Path;

use linux::mount;
use linux::path::Root;

use crate::error::Cause;

/// The old root, until it is unmounted: it lies on top of the new one, and the working directory
/// is below it.
#[derive(Debug)]
#[must_use = "the host's files stay reachable until it is detached"]
pub(crate) struct OldRoot(());

/// Makes `root` the root.
pub(crate) fn pivot(root: &Root) -> Result<OldRoot, Cause> {
    mount::enter_directory(root.as_fd())?;
    mount::pivot_to_current_directory()?;
    Ok(OldRoot(()))
}

impl OldRoot {
    /// Unmounts the old root. It takes a while (the kernel waits for its readers), so it is done
    /// when nobody waits for us any more, and always before a program of the container runs.
    ///
    /// Nothing of that passes to the host: the mounts of the old root share no changes with others
    /// since [`super::rootfs::attach`].
    pub(crate) fn detach(self) -> Result<(), Cause> {
        mount::detach_current_directory()?;
        Ok(mount::enter_path(Path::new("/"))?)
    }
}

/// Changes the root of this process only.
pub(crate) fn chroot(root: &Root) -> Result<(), Cause> {
    mount::enter_directory(root.as_fd())?;
    mount::change_root_to_current_directory()?;
    Ok(())
}
