//! # What the kernel offers
//! A mount can show its files as somebody else's (`MOUNT_ATTR_IDMAP`, Linux 5.12): the numbers of
//! users and groups go through the map of a user namespace, in both directions, and nothing on
//! disk changes.
//!
//! # What we do
//! The creator copies the source, detached, makes a user namespace whose only purpose is to hold
//! the map, maps the copy, and gives it to init, which attaches it like any other.
//!
//! # What goes wrong without it
//! A container whose root is user 100000 outside cannot read a volume of user 0, so somebody
//! chowns the whole volume for each container, or runs the container without a user namespace.
//!
//! # By hand
//! With a mount(8) that knows the option (util-linux 2.39):
//! ```sh
//! mount --help | grep -q map-users || exit 0
//! mkdir -p /tmp/lesson-map/a /tmp/lesson-map/b; touch /tmp/lesson-map/a/file
//! unshare --mount sh -c 'mount --bind -o X-mount.idmap=b:0:1000:1 /tmp/lesson-map/a /tmp/lesson-map/b && stat -c %u /tmp/lesson-map/b/file' | grep -x 1000
//! rm -r /tmp/lesson-map
//! ```
//! See mount_setattr(2), user_namespaces(7).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use linux::clone::{Birth, spawn};
use linux::namespace::{self, Kind, Namespaces};
use linux::{Errno, mount, pidfd};

use super::mapped_layers::Map;
use super::namespaces::Opened;
use super::{Step, identity_map, mapped_layers};
use crate::container::handshake::Line;
use crate::error::{Cause, Failure};
use crate::explain::Journal;
use crate::plan::{IdentityMap, Mount, Owners, Plan, Rootfs, Source};

/// What is mapped before init is there.
pub(crate) struct Taken {
    /// The mapped copies, one place for each mount of the plan; empty when none is mapped.
    pub(crate) fds: Vec<Option<OwnedFd>>,
    /// The root file system, when its layers are mapped.
    pub(crate) root: Option<OwnedFd>,
}

impl Taken {
    /// Takes and maps the sources of all idmapped mounts.
    pub(crate) fn of(
        journal: &mut Journal<'_>,
        plan: &Plan,
        joined: &Opened,
    ) -> Result<Self, Failure> {
        let root = root(journal, &plan.rootfs)?;
        if plan.mounts.iter().all(|mount| mount.owners.is_none()) {
            return Ok(Self { fds: Vec::new(), root });
        }
        let take = |mount: &Mount| match (&mount.source, &mount.owners) {
            (Source::Bind(source, recursive), Some(owners)) => {
                let what = || format!("(owners of) {mount}");
                let work = || mapped(source, *recursive, owners, joined);
                journal.step(Step::Mounts, what, work).map(Some)
            }
            _ => Ok(None),
        };
        Ok(Self { fds: plan.mounts.iter().map(take).collect::<Result<_, _>>()?, root })
    }
}

fn root(journal: &mut Journal<'_>, rootfs: &Rootfs) -> Result<Option<OwnedFd>, Failure> {
    let Some(overlay) = rootfs.overlay.as_ref().filter(|overlay| overlay.owners.is_some()) else {
        return Ok(None);
    };
    let what = || format!("(owners of {} layers)", overlay.lower.len());
    journal.step(Step::Rootfs, what, || mapped_root(rootfs))
}

/// The root file system, when its layers are mapped.
pub(crate) fn mapped_root(rootfs: &Rootfs) -> Result<Option<OwnedFd>, Cause> {
    let Some(overlay) = &rootfs.overlay else { return Ok(None) };
    let ranges = overlay.owners.as_ref().and_then(|owners| owners.ranges.as_ref());
    let Some((users, groups)) = ranges else { return Ok(None) };
    mapped_layers::overlay(rootfs, overlay, &Map(users, groups)).map(Some)
}

fn mapped(
    source: &Path,
    recursive: bool,
    owners: &Owners,
    joined: &Opened,
) -> Result<OwnedFd, Cause> {
    let tree = mount::clone_tree(source, recursive)?;
    let existing = joined.iter().find(|(kind, _)| *kind == Kind::User);
    let map = |namespace: &OwnedFd| {
        mount::map_owners(tree.as_fd(), namespace.as_fd(), owners.recursive).map_err(explained)
    };
    match (&owners.ranges, existing) {
        (Some((users, groups)), _) => {
            let (users, groups) = (users.clone(), groups.clone());
            let map_of = IdentityMap { users, groups, by_helper: false, deny_setgroups: false };
            map(&namespace_with(&map_of)?)?;
        }
        (None, Some((_, namespace))) => map(namespace)?,
        (None, None) => return Err(Cause::new("there is no user namespace to map with")),
    }
    Ok(tree)
}

fn explained(error: linux::Error) -> Cause {
    let remedy = match error.errno {
        Errno::EINVAL => "its file system cannot be idmapped by this kernel, or is already",
        Errno::EPERM => "idmapping needs CAP_SYS_ADMIN where the file system was mounted: root",
        _ => return error.into(),
    };
    Cause::from(error).remedy(remedy)
}

/// A user namespace that holds a map. Its only process waits to be ended.
pub(super) fn namespace_with(map: &IdentityMap) -> Result<OwnedFd, Cause> {
    let (line, inner) = Line::pair()?;
    let birth = Birth { namespaces: Namespaces::from_iter([Kind::User]), ..Birth::default() };
    let child = spawn(birth, move || {
        drop(line);
        // Nothing is ever said: it ends by the signal below, or with its creator.
        i32::from(inner.hear().is_err())
    })?;
    let opened = identity_map::write(map, child.pid).and_then(|()| {
        let file = format!("/proc/{}/ns/user", child.pid);
        Ok(namespace::open(Path::new(&file), Kind::User)?)
    });
    drop(pidfd::signal(&child.pidfd, 9));
    drop(pidfd::wait(&child.pidfd));
    opened
}
