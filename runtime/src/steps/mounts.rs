//! # What the kernel offers
//! Kernel file systems show the namespaces of whoever mounts them: a new procfs lists the processes
//! of a new PID namespace, sysfs the interfaces of a network namespace, mqueue the queues of an IPC
//! namespace. A bind mount shows a directory of the host at a second place.
//!
//! # What we do
//! Each mount is made detached, given its attributes, and only then attached to a descriptor that
//! was opened inside the root by rules that no image can bend. `/proc`, `/sys` and `/dev` must
//! be real directories. No path of the container is ever given to mount(2).
//!
//! # What goes wrong without it
//! Without a procfs of its own, `ps` in the container shows the host. Where a runtime mounts by
//! path, an image whose `/proc` is a link makes it mount somewhere else; two containers that share a
//! volume can swap a directory for a link between check and mount (CVE-2021-30465).
//!
//! # By hand
//! ```sh
//! unshare --pid --fork --mount sh -c 'mount -t proc proc /proc && ls -d /proc/[0-9]*' | head -1 | grep -x /proc/1
//! unshare --mount sh -c 'mount -t tmpfs -o ro,size=64k t /mnt && ! touch /mnt/x 2>/dev/null && echo refused' | grep -x refused
//! ```
//! See mount(2), fsopen(2) and move_mount(2), proc(5), mount_namespaces(7).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use linux::mount::{self, Attributes, FileSystem, Propagation};
use linux::path::{self, Root};
use linux::{Errno, OFlag, fd};

use super::cgroup_view::View;
use super::copy_up;
use crate::error::Cause;
use crate::plan::{Mount, Source};

/// Copies of the sources of those bind mounts that share their changes with the host: they must be
/// taken before the container's mount table is cut off from the host's.
pub(crate) fn take_shared(mounts: &[Mount]) -> Result<Vec<Option<OwnedFd>>, Cause> {
    mounts
        .iter()
        .map(|mount| match &mount.source {
            Source::Bind(source, recursive) if is_shared(mount) => {
                Ok(Some(mount::clone_tree(source, *recursive)?))
            }
            _ => Ok(None),
        })
        .collect()
}

/// Whether a mount shares its changes with the host.
pub(crate) fn is_shared(mount: &Mount) -> bool {
    let keeps_link =
        |(kind, _): &(Propagation, bool)| matches!(kind, Propagation::Shared | Propagation::Slave);
    mount.options.propagation.iter().any(keeps_link)
}

/// Mounts one thing inside `root`. `taken` is what [`take_shared`] has taken for it.
pub(crate) fn mount_one(
    root: &Root,
    mount: &Mount,
    taken: Option<OwnedFd>,
    cgroups: &View,
) -> Result<(), Cause> {
    let attributes = mount.options.attributes;
    root.forget_but_above(&mount.destination);
    match &mount.source {
        Source::Bind(source, recursive) => {
            let tree = match taken {
                Some(tree) => tree,
                None => mount::clone_tree(source, *recursive)?,
            };
            let target = bind_target(root, mount, tree.as_fd())?;
            finish(root, tree, target, mount)
        }
        Source::Cgroup => {
            let target = directory(root, mount)?;
            cgroups.mount(root, target, attributes)
        }
        Source::Mqueue => {
            let context = FileSystem::open("mqueue")?;
            context.set("source", "mqueue")?;
            let tree = context.mount(attributes.set)?;
            root.spend(context.into_descriptor());
            finish(root, tree, directory(root, mount)?, mount)
        }
        Source::FileSystem { kind, name } if kind == "tmpfs" => {
            let target = directory(root, mount)?;
            let tree = temporary(root, name.as_deref(), mount, target.as_fd())?;
            finish(root, tree, target, mount)
        }
        Source::Link(target) => link(root, &mount.destination, target),
        Source::Present => change(root, mount),
        Source::FileSystem { kind, name } => {
            let context = file_system(kind, name.as_deref(), mount)?;
            let tree = context.mount(attributes.set)?;
            root.spend(context.into_descriptor());
            finish(root, tree, directory(root, mount)?, mount)
        }
    }
}

/// A tmpfs, which looks like the directory that it hides as far as nobody wants it otherwise.
fn temporary(
    root: &Root,
    name: Option<&str>,
    mount: &Mount,
    target: BorrowedFd<'_>,
) -> Result<OwnedFd, Cause> {
    let context = file_system("tmpfs", name, mount)?;
    let options = mount.options.data.iter().flat_map(|text| text.split(','));
    if !options.into_iter().any(|option| option.starts_with("mode=")) {
        context.set("mode", &format!("{:o}", copy_up::mode_of(target)?))?;
    }
    let attributes = mount.options.attributes;
    let at_first = match mount.options.copy_up {
        true => attributes.set & !Attributes::READ_ONLY,
        false => attributes.set,
    };
    let tree = context.mount(at_first)?;
    root.spend(context.into_descriptor());
    if !mount.options.copy_up {
        return Ok(tree);
    }
    copy_up::copy_up(target, tree.as_fd())?;
    if attributes.set & Attributes::READ_ONLY != 0 {
        mount::set_attributes(tree.as_fd(), Attributes::set(Attributes::READ_ONLY), false)?;
    }
    Ok(tree)
}

fn file_system(kind: &str, name: Option<&str>, mount: &Mount) -> Result<FileSystem, Cause> {
    let context = FileSystem::open(kind).map_err(|error| {
        let unknown = error.errno == Errno::ENODEV;
        let cause = Cause::from(error);
        if unknown {
            cause.remedy(format!("this kernel has no file system {kind:?}"))
        } else {
            cause
        }
    })?;
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        context.set("source", name)?;
    }
    if let Some(label) = &mount.options.label {
        context.set("context", label).map_err(|error| {
            Cause::from(error).remedy("linux.mountLabel: is SELinux on in this kernel?")
        })?;
    }
    for flag in &mount.options.superblock {
        context.flag(flag)?;
    }
    for option in &mount.options.data {
        // Every devpts is a new instance since Linux 4.7, and the new interface knows no option.
        if kind == "devpts" && option == "newinstance" {
            continue;
        }
        context.options(option).map_err(|error| option_refused(kind, option, error))?;
    }
    Ok(context)
}

fn option_refused(kind: &str, option: &str, error: linux::Error) -> Cause {
    let unmapped = error.errno == Errno::EINVAL && option.starts_with("gid=");
    let cause = Cause::from(error);
    if unmapped {
        return cause.remedy(format!("group {} is not mapped in linux.gidMappings", &option[4..]));
    }
    cause.remedy(format!("{option:?} is no option of {kind}"))
}

/// Makes a symbolic link, or finds that it is there.
fn link(root: &Root, place: &Path, target: &Path) -> Result<(), Cause> {
    let (Some(parent), Some(name)) = (place.parent(), place.file_name().map(Path::new)) else {
        return Err(Cause::new("the root cannot be a link"));
    };
    let parent = root.make_dir(parent, 0o755).map_err(|error| no_place(place, error))?;
    match path::symlink_at(target, parent.as_fd(), name) {
        Err(error) if error.errno == Errno::EEXIST => {
            match path::read_link_at(parent.as_fd(), name) {
                Ok(found) if found == target => Ok(()),
                _ => Err(Cause::from(error).remedy("the image has something else of that name")),
            }
        }
        made => made.map_err(|error| no_place(place, error)),
    }
}

/// Changes the attributes of what is mounted at the destination: on a descriptor, whose mount is in
/// the container's own table.
fn change(root: &Root, mount: &Mount) -> Result<(), Cause> {
    let place = &mount.destination;
    let target = match mount.refuses_links() {
        true => root.in_root_without_links(place, OFlag::O_PATH),
        false => root.in_root(place, OFlag::O_PATH),
    }?;
    adjust(target.as_fd(), mount).map_err(|error| match error.errno {
        Errno::EINVAL => Cause::from(error).remedy("nothing is mounted exactly there"),
        Errno::EPERM => Cause::from(error)
            .remedy("a user namespace may not take back what the mount had outside of it"),
        _ => error.into(),
    })
}

fn adjust(target: BorrowedFd<'_>, mount: &Mount) -> linux::Result<()> {
    let options = &mount.options;
    for (attributes, whole) in [(options.attributes, false), (options.recursive, true)] {
        if !attributes.is_empty() {
            mount::set_attributes(target, attributes, whole)?;
        }
    }
    for (propagation, whole) in &options.propagation {
        mount::set_propagation(target, *propagation, *whole)?;
    }
    Ok(())
}

/// Propagation and recursive attributes come last, on the attached mount.
fn finish(root: &Root, tree: OwnedFd, target: OwnedFd, mount: &Mount) -> Result<(), Cause> {
    let is_bind = matches!(mount.source, Source::Bind(..));
    if is_bind && !mount.options.attributes.is_empty() {
        mount::set_attributes(tree.as_fd(), mount.options.attributes, false)?;
    }
    if !mount.options.recursive.is_empty() {
        mount::set_attributes(tree.as_fd(), mount.options.recursive, true)?;
    }
    mount::attach(tree.as_fd(), target.as_fd())?;
    for (propagation, whole) in &mount.options.propagation {
        mount::set_propagation(tree.as_fd(), *propagation, *whole)?;
    }
    root.spend(target);
    // Other mounts come below a new /dev next.
    let is_new = matches!(&mount.source, Source::FileSystem { kind, .. } if kind == "tmpfs");
    match is_new && mount.refuses_links() {
        true => root.remember(&mount.destination, tree),
        false => root.spend(tree),
    }
    Ok(())
}

/// The directory to mount on; it is made when it is missing.
pub(crate) fn directory(root: &Root, mount: &Mount) -> Result<OwnedFd, Cause> {
    if mount.refuses_links() {
        match root.in_root_without_links(&mount.destination, OFlag::O_PATH | OFlag::O_DIRECTORY) {
            Err(error) if error.errno == Errno::ENOENT => {
                let made = root.make_missing_dir(&mount.destination, 0o755);
                return made.map_err(|error| no_place(&mount.destination, error));
            }
            Err(error) => return Err(refused_link(&mount.destination, error)),
            Ok(target) => return Ok(target),
        }
    }
    root.make_dir(&mount.destination, 0o755).map_err(|error| no_place(&mount.destination, error))
}

fn refused_link(destination: &Path, error: linux::Error) -> Cause {
    let text = match error.errno {
        Errno::ELOOP => "the image has a symbolic link there".to_owned(),
        Errno::ENOTDIR => "the image has something there that is not a directory".to_owned(),
        _ => return error.into(),
    };
    let place = destination.display();
    let remedy = match error.errno {
        Errno::ELOOP => {
            format!("{place} must be a real directory: a link there could send the mount anywhere")
        }
        _ => format!("{place} must be a directory: remove from the image what is there"),
    };
    Cause { text, errno: error.errno as i32, remedy: Some(remedy) }
}

fn no_place(destination: &Path, error: linux::Error) -> Cause {
    if error.errno == Errno::ENOTDIR {
        return refused_link(destination, error);
    }
    let read_only = error.errno == Errno::EROFS;
    let cause = Cause::from(error);
    if read_only {
        return cause.remedy(format!(
            "what {} is on is read-only: make the directory in the image",
            destination.display()
        ));
    }
    cause
}

/// A bind mount needs a place of its own kind: a directory for a directory, else a file.
fn bind_target(root: &Root, mount: &Mount, source: BorrowedFd<'_>) -> Result<OwnedFd, Cause> {
    if is_directory(source)? {
        return directory(root, mount);
    }
    root.make_file(&mount.destination, 0o644).map_err(|error| no_place(&mount.destination, error))
}

/// Whether a descriptor is a directory.
pub(crate) fn is_directory(file: BorrowedFd<'_>) -> linux::Result<bool> {
    const FORMAT: u32 = 0o170_000;
    const DIRECTORY: u32 = 0o040_000;
    fd::stat(file).map(|stat| stat.st_mode & FORMAT == DIRECTORY)
}

/// An empty, read-only directory that belongs to nobody: what is put over a masked directory.
pub(crate) fn empty_directory(root: &Root) -> linux::Result<OwnedFd> {
    let context = FileSystem::open("tmpfs")?;
    context.set("mode", "555")?;
    context.set("size", "4k")?;
    let tree = context.mount(
        Attributes::READ_ONLY | Attributes::NO_SUID | Attributes::NO_DEV | Attributes::NO_EXEC,
    )?;
    root.spend(context.into_descriptor());
    Ok(tree)
}
