//! # What the kernel offers
//! overlayfs takes idmapped mounts for its layers (Linux 5.19): a file that belongs to user 0 on
//! disk is one of user 100000 in the overlay. Such a mount is told to overlayfs by the path where
//! it is mounted, so it must be somewhere.
//!
//! # What we do
//! Copy the mounts of the layers, map the copies by the container's map, and put each on top of its
//! own directory, in a mount namespace that a process makes for this and that ends with it. There
//! the overlay is made, with the host's power, and handed to init as a descriptor. What the
//! container writes belongs on disk to the users that it has outside; the directory of the writable
//! layer is its root's, and tells the map, for `rootfs-tools commit`.
//!
//! # What goes wrong without it
//! The files of an image belong to root, who in the container is nobody: it could not even make
//! `/proc`. So somebody chowns the whole image, once for each map, and nothing is shared. And an
//! overlay that the container itself mounts does not see the marks of layers that root unpacked:
//! directories that hide what is below them would not.
//!
//! # By hand
//! With a mount(8) that knows the option (util-linux 2.39):
//! ```sh
//! mount --help | grep -q map-users || exit 0
//! d=$(mktemp -d) && mkdir $d/lower $d/upper $d/work $d/root && touch $d/lower/file
//! unshare --mount sh -c "mount --bind -o X-mount.idmap=b:0:1000:1 $d/lower $d/lower && mount -t overlay o -o lowerdir=$d/lower,upperdir=$d/upper,workdir=$d/work $d/root && stat -c %u $d/root/file" | grep -x 1000
//! stat -c %u $d/lower/file | grep -x 0; rm -r $d
//! ```
//! See mount_setattr(2), overlayfs in the kernel's documentation.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use linux::clone::{Birth, spawn};
use linux::mount::{self, Propagation};
use linux::namespace::{Kind, Namespaces};
use linux::{Errno, OFlag, fd, metadata, path, pidfd};
use serde_json::json;

use super::{owners, rootfs};
use crate::container::handshake::{Heard, Line, Message};
use crate::error::{Cause, Failure};
use crate::plan::{IdMap, IdentityMap, Overlay, Rootfs};

/// Where the directory of a writable layer says whose the files in it are.
const MAP: &str = "owners.json";

/// Makes the overlay of a container whose root is somebody else, attached nowhere.
pub(crate) fn overlay(rootfs: &Rootfs, overlay: &Overlay, map: &Map<'_>) -> Result<OwnedFd, Cause> {
    if let Some(dir) = &overlay.writable {
        give_away(dir, map)?;
    }
    let (users, groups) = (map.0.to_vec(), map.1.to_vec());
    let namespace = owners::namespace_with(&IdentityMap {
        users,
        groups,
        by_helper: false,
        deny_setgroups: false,
    })?;
    let mut layers = Vec::new();
    for layer in &overlay.lower {
        let tree = mount::clone_tree(layer, false)?;
        mount::map_owners(tree.as_fd(), namespace.as_fd(), false).map_err(explained)?;
        layers.push((layer.as_path(), tree));
    }
    let (line, inner) = Line::pair()?;
    let birth = Birth { namespaces: Namespaces::from_iter([Kind::Mount]), ..Birth::default() };
    let child = spawn(birth, move || {
        let said = match stack(rootfs, overlay, &layers) {
            Ok(tree) => inner.say_with(&Message::Ready, &[tree.as_fd()]),
            Err(Cause { text, errno, remedy }) => {
                let (step, object) = (super::Step::Rootfs, String::new());
                let failure = Failure { step, object, cause: text, errno, remedy };
                inner.say(&Message::Failed(failure))
            }
        };
        i32::from(said.is_err())
    })?;
    let heard = line.hear();
    drop(pidfd::wait(&child.pidfd));
    match heard? {
        Heard::Message(Message::Ready, fds) => fds
            .into_iter()
            .next()
            .ok_or_else(|| Cause::new("the overlay of mapped layers came without a descriptor")),
        Heard::Message(Message::Failed(Failure { cause: text, errno, remedy, .. }), _) => {
            Err(Cause { text, errno, remedy })
        }
        _ => Err(Cause::new("the process that mounts the mapped layers died")),
    }
}

/// The ranges of users and of groups.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Map<'a>(pub(crate) &'a [IdMap], pub(crate) &'a [IdMap]);

/// In the mount namespace that nobody else sees.
fn stack(
    rootfs: &Rootfs,
    overlay: &Overlay,
    layers: &[(&Path, OwnedFd)],
) -> Result<OwnedFd, Cause> {
    mount::set_root_propagation(Propagation::Private)?;
    for (layer, tree) in layers {
        let target = path::open(layer, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        mount::attach(tree.as_fd(), target.as_fd())?;
    }
    let target = path::open(&rootfs.path, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    rootfs::stack(overlay, &target, false).map_err(|cause| match cause.errno {
        errno if errno == Errno::EINVAL as i32 => {
            cause.remedy("overlayfs takes layers with mapped owners from Linux 5.19 on")
        }
        _ => cause,
    })?;
    Ok(mount::clone_tree(&rootfs.path, false)?)
}

/// Makes the writable layer the container's root's, and writes down the map.
fn give_away(dir: &Path, Map(users, groups): &Map<'_>) -> Result<(), Cause> {
    let root =
        |ranges: &[IdMap]| ranges.iter().find(|range| range.inside == 0).map(|range| range.outside);
    let (Some(user), Some(group)) = (root(users), root(groups)) else {
        return Err(Cause::new("the user namespace has no root: nobody could own the layers")
            .remedy("map user and group 0 in linux.uidMappings and linux.gidMappings"));
    };
    let dir = path::open(dir, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    for part in ["upper", "work"] {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let directory = path::open_at(dir.as_fd(), Path::new(part), flags)?;
        metadata::set_owner(directory.as_fd(), user, group)?;
    }
    let list = |ranges: &[IdMap]| -> Vec<_> {
        let one = |range: &IdMap| json!({"containerID": range.inside, "hostID": range.outside, "size": range.count});
        ranges.iter().map(one).collect()
    };
    let text = json!({"uidMappings": list(users), "gidMappings": list(groups)}).to_string();
    // Left by one that died here, of the same name.
    drop(path::unlink_at(dir.as_fd(), Path::new(MAP)));
    let file = path::create_at(dir.as_fd(), Path::new(MAP), 0o600)?;
    Ok(fd::write_all(&file, text.as_bytes())?)
}

fn explained(error: linux::Error) -> Cause {
    let remedy = match error.errno {
        Errno::EINVAL => {
            "the file system of the layers cannot be idmapped by this kernel (tmpfs can from Linux \
             6.3 on): keep the store on ext4, xfs or btrfs, or run without a user namespace"
        }
        Errno::EPERM => "idmapping needs CAP_SYS_ADMIN where the file system was mounted: root",
        _ => return error.into(),
    };
    Cause::from(error).remedy(remedy)
}
