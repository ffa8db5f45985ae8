//! # What the kernel offers
//! A device node is a name for a driver: mknod(2) makes one, and whoever may open it talks to the
//! driver. A user namespace may not make any that work; there an existing node is bind-mounted.
//!
//! # What we do
//! Six harmless nodes, the links that programs expect in `/dev`, and what the configuration lists,
//! all relative to a descriptor of `/dev` that was opened without following links. Which devices
//! may be *used* is a second wall: the cgroup's device rules, see [`super::limits`].
//!
//! # What goes wrong without it
//! Programs without `/dev/null` fail in strange ways. And where an image's `/dev` may be a link,
//! the nodes appear on the host (CVE-2026-47766, CVE-2026-41579).
//!
//! # By hand
//! ```sh
//! d=$(mktemp -d) && mknod -m 666 $d/null c 1 3 && echo gone > $d/null && stat -c '%t:%T' $d/null | grep -x 1:3; rm -r $d
//! d=$(mktemp -d); unshare --user --map-root-user mknod $d/null c 1 3 2>&1 | grep 'not permitted'; rm -r $d
//! ```
//! See mknod(2), null(4), runtime-spec config-linux.md, "Default Devices".

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use linux::device::{self, Kind, Number};
use linux::path::Root;
use linux::{Errno, OFlag, credentials, mount, path};

use crate::error::Cause;
use crate::plan::{DEFAULT_DEVICES, Device};

/// The links of every `/dev`: (name, where to).
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// Makes the nodes and links of every container.
pub(crate) fn make_default(root: &Root, may_make: bool) -> Result<(), Cause> {
    let dev = open_dev(root)?;
    with_modes_as_given(|| {
        DEFAULT_DEVICES.into_iter().try_for_each(|(name, number)| {
            let node = Node { kind: Kind::Character, number, mode: 0o666, owner: (0, 0) };
            make(dev.as_fd(), Path::new(name), &node, &Path::new("/dev").join(name), may_make)
        })
    })?;
    // A kernel without /proc/kcore: the link would lead nowhere.
    let has_core = Path::new("/proc/kcore").exists();
    for (name, target) in LINKS.into_iter().filter(|(name, _)| has_core || *name != "core") {
        match path::symlink_at(Path::new(target), dev.as_fd(), Path::new(name)) {
            // An image with a /dev of its own has them, and they are inside the root anyway.
            Err(error) if error.errno == Errno::EEXIST => {}
            made => made?,
        }
    }
    root.spend(dev);
    Ok(())
}

/// Does something while the file mode mask is off: that of our caller is about files, and must not
/// make /dev/null root's own.
fn with_modes_as_given<T>(work: impl FnOnce() -> T) -> T {
    let mask = credentials::set_umask(0);
    let result = work();
    credentials::set_umask(mask);
    result
}

fn open_dev(root: &Root) -> Result<OwnedFd, Cause> {
    let dev = Path::new("/dev");
    match root.in_root_without_links(dev, OFlag::O_PATH | OFlag::O_DIRECTORY) {
        Err(error) if error.errno == Errno::ENOENT => Ok(root.make_missing_dir(dev, 0o755)?),
        Err(error) if error.errno == Errno::ELOOP => {
            Err(Cause::new("the image's /dev is a symbolic link")
                .remedy("/dev must be a real directory: a link there could put nodes anywhere"))
        }
        found => Ok(found?),
    }
}

/// Makes one node that the configuration lists.
pub(crate) fn make_one(root: &Root, wanted: &Device, may_make: bool) -> Result<(), Cause> {
    let parent = wanted.path.parent().unwrap_or(Path::new("/"));
    let name = wanted.path.file_name().map(PathBuf::from).unwrap_or_default();
    let dir = root.make_dir(parent, 0o755)?;
    let node = Node {
        kind: wanted.kind,
        number: wanted.number,
        mode: wanted.mode,
        owner: (wanted.user, wanted.group),
    };
    with_modes_as_given(|| make(dir.as_fd(), &name, &node, &wanted.path, may_make))?;
    root.spend(dir);
    Ok(())
}

struct Node {
    kind: Kind,
    number: Number,
    mode: u32,
    owner: (u32, u32),
}

fn make(
    dir: BorrowedFd<'_>,
    name: &Path,
    node: &Node,
    on_host: &Path,
    may_make: bool,
) -> Result<(), Cause> {
    if !may_make && node.kind != Kind::Fifo {
        return bind(dir, name, node, on_host);
    }
    match device::make_at(dir, name, node.kind, node.mode, node.number) {
        Ok(()) => {}
        Err(error) if error.errno == Errno::EEXIST => return same(dir, name, node),
        Err(error) if error.errno == Errno::EPERM => return bind(dir, name, node, on_host),
        Err(error) => return Err(error.into()),
    }
    if node.owner != (0, 0) {
        let made =
            path::open_at(dir, name, OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK)?;
        credentials::change_owner(made, node.owner.0, node.owner.1)?;
    }
    Ok(())
}

/// What is there already is fine when it is that very device.
fn same(dir: BorrowedFd<'_>, name: &Path, node: &Node) -> Result<(), Cause> {
    let found = path::open_at(dir, name, OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
    if node.kind == Kind::Fifo || device::identify(found.as_fd())? == Some((node.kind, node.number))
    {
        return Ok(());
    }
    Err(Cause::new("the image has something else of that name")
        .remedy("remove it from the image, or mount a tmpfs on /dev"))
}

/// Puts the host's node there, for those who may not make one.
fn bind(dir: BorrowedFd<'_>, name: &Path, node: &Node, on_host: &Path) -> Result<(), Cause> {
    let source = device::open_verified(on_host, node.kind, node.number)?;
    match path::create_at(dir, name, 0o666) {
        Err(error) if error.errno != Errno::EEXIST => return Err(error.into()),
        _ => {}
    }
    let target = path::open_at(dir, name, OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
    let tree = mount::clone_tree_at(source.as_fd(), false)?;
    Ok(mount::attach(tree.as_fd(), target.as_fd())?)
}
