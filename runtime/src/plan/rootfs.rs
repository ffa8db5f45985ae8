//! What the container will see as `/`.

use std::path::{Path, PathBuf};

use linux::mount::Propagation;
use linux::namespace::Kind;
use oci_spec::runtime::{Linux, Spec};

use super::namespaces::maps_of_process;
use super::{Circumstances, IdentityMap, NamespacePlan, Owners};
use crate::error::{Error, Result};

/// The annotation that names the layers of an overlay root: a JSON array of directories, the
/// topmost first. rootfs-tools writes it.
pub const LOWERDIRS_ANNOTATION: &str = "org.minirun.overlay.lowerdirs";
/// The annotation that chooses where the writable layer lives: a directory, which must be on a
/// file system that overlayfs can write to. Without it: a hidden directory in the bundle.
pub const UPPER_ANNOTATION: &str = "org.minirun.overlay.upper";
/// Present, and `true`, when the marks of the layers are in `user.` attributes: the layers of
/// somebody without privileges, who owns all the files in them.
const USERXATTR_ANNOTATION: &str = "org.minirun.overlay.userxattr";

/// The root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// The directory, absolute: the root itself, or the mount point of the overlay.
    pub path: PathBuf,
    /// The layers, when the root is copy-on-write.
    pub overlay: Option<Overlay>,
    /// Whether the container may write to it.
    pub read_only: bool,
    /// Whether mounts of the host appear in the container, and the other way round.
    pub propagation: Propagation,
}

/// A copy-on-write root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// The read-only layers, the topmost first.
    pub lower: Vec<PathBuf>,
    /// The directory that holds `upper` and `work`; it is removed with the container. `None` for a
    /// read-only root.
    pub writable: Option<PathBuf>,
    /// How the owners of the layers' files are mapped: for layers of the host's root in a container
    /// whose root is somebody else.
    pub owners: Option<Owners>,
}

impl Rootfs {
    pub(super) fn decide(
        spec: &Spec,
        linux: &Linux,
        users: (&NamespacePlan, Option<&IdentityMap>),
        at: &Circumstances<'_>,
    ) -> Result<Self> {
        let root = spec
            .root()
            .as_ref()
            .ok_or_else(|| Error::Config("config.json: root is missing".into()))?;
        if root.path().as_os_str().is_empty() {
            return Err(Error::Config("config.json: root.path is empty".into()));
        }
        let path = at.bundle.join(root.path());
        // The bundle's path is real; so is that of a directory in it, which is not a link.
        let is_in_bundle = root.path().components().count() == 1 && root.path().is_relative();
        let is_real = is_in_bundle && path.symlink_metadata().is_ok_and(|found| found.is_dir());
        let path = if is_real { Ok(path) } else { real_directory(&path) }?;
        if path == Path::new("/") {
            return Err(Error::Config(
                "config.json: root.path is the host's own root directory".into(),
            ));
        }
        let read_only = root.readonly().unwrap_or(false);
        let mut overlay = overlay(spec, at, read_only)?;
        if let Some(overlay) = overlay.as_mut().filter(|_| at.privileged && !has_user_marks(spec)) {
            overlay.owners = owners(users)?;
        }
        let propagation = propagation(linux.rootfs_propagation().as_deref())?;
        Ok(Self { path, overlay, read_only, propagation })
    }
}

fn real_directory(path: &Path) -> Result<PathBuf> {
    linux::path::real_directory(path).map_err(|error| {
        let why = error.errno.desc().to_lowercase();
        Error::Config(format!("root file system {}: {why}", path.display()))
    })
}

fn overlay(spec: &Spec, at: &Circumstances<'_>, read_only: bool) -> Result<Option<Overlay>> {
    let annotation = |name: &str| spec.annotations().as_ref().and_then(|all| all.get(name));
    let Some(text) = annotation(LOWERDIRS_ANNOTATION) else { return Ok(None) };
    let wrong =
        |what: String| Error::Config(format!("config.json: {LOWERDIRS_ANNOTATION}: {what}"));
    let lower: Vec<PathBuf> = crate::json::read(text.as_bytes())
        .map_err(|error| wrong(format!("not a JSON array of paths: {error}")))?;
    if lower.is_empty() {
        return Err(wrong("no layer".into()));
    }
    for layer in &lower {
        if !layer.is_absolute() {
            return Err(wrong(format!("{} is not an absolute path", layer.display())));
        }
        if !layer.is_dir() {
            return Err(wrong(format!(
                "layer {} is not there: import the image again with rootfs-tools",
                layer.display()
            )));
        }
    }
    let writable = match annotation(UPPER_ANNOTATION) {
        _ if read_only => None,
        Some(dir) => Some(PathBuf::from(dir)),
        None => Some(at.bundle.join(format!(".minirun-{}", at.id))),
    };
    Ok(Some(Overlay { lower, writable, owners: None }))
}

fn has_user_marks(spec: &Spec) -> bool {
    let annotations = spec.annotations().as_ref();
    annotations.and_then(|all| all.get(USERXATTR_ANNOTATION)).is_some_and(|text| text == "true")
}

/// The map of the container's users, where it has one.
fn owners(users: (&NamespacePlan, Option<&IdentityMap>)) -> Result<Option<Owners>> {
    let (namespaces, map) = users;
    let existing = namespaces.join.iter().find(|(kind, _)| *kind == Kind::User);
    let ranges = match (map, existing) {
        (Some(map), _) => (map.users.clone(), map.groups.clone()),
        (None, Some((_, path))) => maps_of_process(path)?,
        (None, None) => return Ok(None),
    };
    Ok(Some(Owners { ranges: Some(ranges), recursive: false }))
}

fn propagation(name: Option<&str>) -> Result<Propagation> {
    match name.unwrap_or_default() {
        // What no configuration asks for: the container sees what the host mounts later, never the
        // other way round.
        "" | "slave" | "rslave" => Ok(Propagation::Slave),
        "private" | "rprivate" => Ok(Propagation::Private),
        "shared" | "rshared" => Ok(Propagation::Shared),
        "unbindable" | "runbindable" => Ok(Propagation::Unbindable),
        other => Err(Error::Config(format!(
            "config.json: linux.rootfsPropagation: {other:?} is none of shared, slave, private, \
             unbindable"
        ))),
    }
}
