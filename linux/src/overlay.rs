//! A copy-on-write root: read-only layers below, a writable one on top, overlayfs.
//!
//! Linux 6.7 takes the layers one by one (`lowerdir+`), so that neither their number nor a `:` in a
//! path matters. Before, they are one string, which the mount API cuts at 255 bytes; there
//! mount(2) is used, with each layer as `/proc/self/fd/N`, short whatever the path.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::MsFlags;

use crate::mount::{FileSystem, attach};
use crate::trace::observe;
use crate::{Error, Result, path};

/// The longest value that fsconfig(2) takes.
const VALUE_MAX: usize = 255;

/// What to stack.
#[derive(Debug, Clone, Copy)]
pub struct Layers<'a> {
    /// The read-only directories, the topmost first.
    pub lower: &'a [&'a Path],
    /// The writable directory and the scratch directory beside it. Without them the overlay is
    /// read-only and wants at least two layers.
    pub writable: Option<(&'a Path, &'a Path)>,
    /// Whether marks are kept in `user.` attributes: for mounts inside a user namespace.
    pub user_attributes: bool,
}

/// Mounts an overlay over the directory behind `target`.
pub fn mount_over(target: BorrowedFd<'_>, layers: Layers<'_>) -> Result<()> {
    match detached(layers) {
        Ok(tree) => attach(tree.as_fd(), target),
        // A kernel that does not know `lowerdir+`. From 6.5 on it says so at once; before, it takes
        // any parameter and refuses the whole in the end, without a word in its log.
        Err(error) if error.errno == Errno::EINVAL && is_unknown_parameter(&error) => {
            mount_as_one_string(target, layers)
        }
        Err(error) => Err(error),
    }
}

fn is_unknown_parameter(error: &Error) -> bool {
    let at_the_end = error.arguments.contains("FSCONFIG_CMD_CREATE");
    error.arguments.contains("lowerdir+") || (at_the_end && error.kernel_says.is_none())
}

fn detached(layers: Layers<'_>) -> Result<OwnedFd> {
    let overlay = FileSystem::open("overlay")?;
    overlay.set("source", "overlay")?;
    let mut held = Vec::new();
    for layer in layers.lower {
        overlay.set("lowerdir+", &short(layer, &mut held)?)?;
    }
    if let Some((upper, work)) = layers.writable {
        overlay.set("upperdir", &short(upper, &mut held)?)?;
        overlay.set("workdir", &short(work, &mut held)?)?;
        // The upper layer is thrown away with the container: no need to sync it to the disk.
        overlay.flag("volatile")?;
    }
    if layers.user_attributes {
        overlay.flag("userxattr")?;
    }
    overlay.mount(0)
}

/// A path that fsconfig takes, by way of a descriptor when it is too long.
fn short(dir: &Path, held: &mut Vec<OwnedFd>) -> Result<String> {
    match dir.to_str().filter(|text| text.len() <= VALUE_MAX) {
        Some(text) => Ok(text.to_owned()),
        None => through_descriptor(dir, held),
    }
}

fn through_descriptor(dir: &Path, held: &mut Vec<OwnedFd>) -> Result<String> {
    let fd = path::open(dir, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
    held.push(fd);
    Ok(name)
}

fn mount_as_one_string(target: BorrowedFd<'_>, layers: Layers<'_>) -> Result<()> {
    let mut held = Vec::new();
    let lower: Result<Vec<_>> =
        layers.lower.iter().map(|layer| through_descriptor(layer, &mut held)).collect();
    let mut options = format!("lowerdir={}", lower?.join(":"));
    if let Some((upper, work)) = layers.writable {
        options += &format!(
            ",upperdir={},workdir={},volatile",
            through_descriptor(upper, &mut held)?,
            through_descriptor(work, &mut held)?
        );
    }
    if layers.user_attributes {
        options += ",userxattr";
    }
    let place = format!("/proc/self/fd/{}", target.as_raw_fd());
    let result = nix::mount::mount(
        Some("overlay"),
        place.as_str(),
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    );
    observe("mount", || format!("\"overlay\", {place:?}, {options:?}"), result)
        .map_err(|error| explained(error, layers))
}

/// The kernel log that the new interface gives is missing here; the usual reasons are few.
fn explained(error: Error, layers: Layers<'_>) -> Error {
    let reason = match error.errno {
        Errno::EINVAL if layers.writable.is_some() => {
            Some("the writable layer must be on a file system with extended attributes and d_type, not on another overlay".to_owned())
        }
        _ => None,
    };
    error.with_kernel_log(reason)
}
