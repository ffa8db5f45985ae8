//! # What the kernel offers
//! A cgroup namespace shows its own group as the root of the tree. In version 2 one mount shows the
//! tree; in version 1 each controller has a mount of its own.
//!
//! # What we do
//! A container with a cgroup namespace gets the file systems mounted anew, so that it sees itself as
//! `/`. Without one it gets its own group bound there. On a v1 host that is one directory per
//! tree, in a small tmpfs, as systemd lays them out on the host.
//!
//! # What goes wrong without it
//! A container that sees the host's tree learns the names of its neighbours; one that may write to
//! it changes their limits.
//!
//! # By hand
//! ```sh
//! unshare --cgroup cat /proc/self/cgroup | grep -c ':/$'
//! ```
//! See cgroup_namespaces(7).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use linux::mount::{self, Attributes, FileSystem};
use linux::path::Root;
use linux::{Errno, OFlag, path};

use crate::cgroup::{Host, Layout, Record};
use crate::error::Cause;

/// What a container will see of the cgroup tree, decided by its creator.
#[derive(Debug)]
pub(crate) struct View {
    /// Whether the new process was cloned into all its groups, so that the clone's cgroup namespace
    /// is right.
    pub(crate) born_inside: bool,
    layout: Layout,
    namespaced: bool,
    trees: Vec<Tree>,
}

#[derive(Debug)]
struct Tree {
    /// `memory`, `cpu,cpuacct`, `name=systemd`; empty for version 2.
    name: String,
    /// Where the tree is mounted on the host.
    mount: PathBuf,
    /// The container's own group on the host.
    own: PathBuf,
}

impl Tree {
    /// What the directory is called: the last part of where the host has it.
    fn directory(&self) -> &Path {
        Path::new(self.mount.file_name().unwrap_or_default())
    }
}

impl View {
    /// The view of a container whose group is `record` (or that has none).
    pub(crate) fn new(host: &Host, record: Option<&Record>, namespaced: bool) -> Self {
        let own = |mount: &Path| record.map_or_else(|| mount.to_owned(), |r| mount.join(&r.path));
        let tree = |name: &str, mount: &Path| Tree {
            name: name.to_owned(),
            mount: mount.to_owned(),
            own: own(mount),
        };
        let mut trees: Vec<Tree> =
            host.hierarchies().iter().map(|h| tree(&h.name, &h.mount)).collect();
        if host.layout() != Layout::Legacy {
            trees.push(tree("", &host.unified().mount));
        }
        let born_inside = host.hierarchies().is_empty();
        Self { born_inside, layout: host.layout(), namespaced, trees }
    }

    /// The view on a host without cgroups.
    pub(crate) fn none() -> Self {
        Self { born_inside: true, layout: Layout::Unified, namespaced: true, trees: Vec::new() }
    }

    /// Mounts it on the directory `target`, which is inside `root`.
    pub(crate) fn mount(
        &self,
        root: &Root,
        target: OwnedFd,
        attributes: Attributes,
    ) -> Result<(), Cause> {
        if self.layout == Layout::Unified {
            let Some(tree) = self.trees.first() else {
                return Err(Cause::new("this host has no cgroups")
                    .remedy("remove the cgroup mount from mounts"));
            };
            let tree = self.one(root, tree, attributes)?;
            return Ok(attach(root, tree, target)?);
        }
        let context = FileSystem::open("tmpfs")?;
        context.set("source", "cgroup")?;
        context.set("mode", "755")?;
        context.set("size", "64k")?;
        let base = context.mount(Attributes::NO_SUID | Attributes::NO_DEV | Attributes::NO_EXEC)?;
        mount::attach(base.as_fd(), target.as_fd())?;
        root.spend(context.into_descriptor());
        root.spend(target);
        for tree in &self.trees {
            // The tmpfs is new and has been ours alone: nothing is in it but what we make.
            let name = tree.directory();
            match path::make_dir_at(base.as_fd(), name, 0o755) {
                // Two trees of the host whose mount points have one name.
                Err(error) if error.errno == Errno::EEXIST => {}
                made => made?,
            }
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
            let place = path::open_at(base.as_fd(), name, flags)?;
            attach(root, self.one(root, tree, attributes)?, place)?;
            link_parts(base.as_fd(), tree)?;
        }
        if attributes.set & Attributes::READ_ONLY != 0 {
            mount::set_attributes(base.as_fd(), Attributes::set(Attributes::READ_ONLY), false)?;
        }
        root.spend(base);
        Ok(())
    }

    /// One tree, detached.
    fn one(&self, root: &Root, tree: &Tree, attributes: Attributes) -> Result<OwnedFd, Cause> {
        if !self.namespaced {
            let tree = mount::clone_tree(&tree.own, false)?;
            if !attributes.is_empty() {
                mount::set_attributes(tree.as_fd(), attributes, false)?;
            }
            return Ok(tree);
        }
        let kind = if tree.name.is_empty() { "cgroup2" } else { "cgroup" };
        let context = FileSystem::open(kind)?;
        context.set("source", "cgroup")?;
        match tree.name.strip_prefix("name=") {
            Some(name) => {
                context.flag("none")?;
                context.set("name", name)?;
            }
            None => {
                for controller in tree.name.split(',').filter(|name| !name.is_empty()) {
                    context.flag(controller)?;
                }
            }
        }
        // The flags of version 2 belong to the host's mount; a mount in a namespace inherits them.
        let made = context.mount(attributes.set)?;
        root.spend(context.into_descriptor());
        Ok(made)
    }
}

fn attach(root: &Root, tree: OwnedFd, target: OwnedFd) -> linux::Result<()> {
    mount::attach(tree.as_fd(), target.as_fd())?;
    root.spend(tree);
    root.spend(target);
    Ok(())
}

/// `cpu` and `cpuacct` for a tree that is mounted as `cpu,cpuacct`, as on every such host.
fn link_parts(base: BorrowedFd<'_>, tree: &Tree) -> linux::Result<()> {
    if !tree.name.contains(',') {
        return Ok(());
    }
    for part in tree.name.split(',').filter(|part| Path::new(part) != tree.directory()) {
        path::symlink_at(tree.directory(), base, Path::new(part))?;
    }
    Ok(())
}
