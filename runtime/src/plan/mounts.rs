//! What is mounted into the container, in order.

use std::path::{Component, Path, PathBuf};

use linux::namespace::Kind;
use oci_spec::runtime::Spec;

use super::namespaces::ranges;
use super::{Circumstances, IdMap, IdentityMap, NamespacePlan};
use crate::error::{Error, Result};
use crate::spec::mount_options::{self, MountOptions};

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A new file system of this type.
    FileSystem {
        /// Its type.
        kind: String,
        /// What it calls its source in the mount table.
        name: Option<String>,
    },
    /// A file or directory of the host, `true` with the mounts below it.
    Bind(PathBuf, bool),
    /// The container's view of the cgroup tree.
    Cgroup,
    /// The message queues of the container's IPC namespace.
    Mqueue,
    /// A symbolic link with this target, instead of what it leads to.
    Link(PathBuf),
    /// What is mounted there already: only its attributes change.
    Present,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where, inside the container; absolute.
    pub destination: PathBuf,
    /// What.
    pub source: Source,
    /// How.
    pub options: MountOptions,
    /// Whose the files seem to be, for an idmapped mount.
    pub owners: Option<Owners>,
}

/// How the owners of a mount's files are mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owners {
    /// By these ranges of users and of groups; `None` by the user namespace that the container
    /// enters.
    pub ranges: Option<(Vec<IdMap>, Vec<IdMap>)>,
    /// Also in the mounts below.
    pub recursive: bool,
}

impl Mount {
    /// Whether the destination must be a real directory, without any link on the way: an image that
    /// makes it a link wants the runtime to write elsewhere (CVE-2019-19921).
    pub fn refuses_links(&self) -> bool {
        matches!(&self.source, Source::FileSystem { kind, .. } if kind == "proc" || kind == "sysfs")
            || ["/proc", "/dev", "/sys"].map(Path::new).contains(&self.destination.as_path())
    }
}

impl std::fmt::Display for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = self.destination.display();
        match &self.source {
            Source::FileSystem { kind, .. } => write!(f, "{kind} at {place}"),
            Source::Bind(source, _) => write!(f, "{} at {place}", source.display()),
            Source::Cgroup => write!(f, "cgroup at {place}"),
            Source::Mqueue => write!(f, "mqueue at {place}"),
            Source::Link(target) => write!(f, "link to {} at {place}", target.display()),
            Source::Present => write!(f, "(again) what is mounted at {place}"),
        }
    }
}

/// The container's namespaces, and how it maps its users.
type Users<'a> = (&'a NamespacePlan, Option<&'a IdentityMap>);

pub(super) fn decide(spec: &Spec, users: Users<'_>, at: &Circumstances<'_>) -> Result<Vec<Mount>> {
    let label = spec.linux().as_ref().and_then(|linux| linux.mount_label().as_deref());
    let mounts = spec.mounts().iter().flatten().enumerate();
    mounts.map(|(index, mount)| one(index, mount, (users, label), at)).collect()
}

fn one(
    index: usize,
    mount: &oci_spec::runtime::Mount,
    (users, spec_label): (Users<'_>, Option<&str>),
    at: &Circumstances<'_>,
) -> Result<Mount> {
    let wrong = |what: String| Error::Config(format!("config.json: mounts[{index}]: {what}"));
    if mount.destination().as_os_str().is_empty() {
        return Err(wrong("destination is empty".into()));
    }
    let destination = absolute(mount.destination());
    let mut options = mount_options::parse(mount.options().as_deref().unwrap_or_default());
    let kind = mount.typ().clone().unwrap_or_default();
    let source = match (kind.as_str(), options.bind) {
        _ if options.remount => present(&options).map_err(wrong)?,
        (_, Some(recursive)) => bind(mount, recursive, &options, at).map_err(wrong)?,
        ("bind" | "rbind", None) => bind(mount, kind == "rbind", &options, at).map_err(wrong)?,
        ("" | "none", None) => {
            return Err(wrong(format!(
                "no type for {}: name a file system, or use the option bind",
                destination.display()
            )));
        }
        ("cgroup" | "cgroup2", None) => Source::Cgroup,
        // Without an IPC namespace of its own the container sees the host's queues: engines that
        // share the host's IPC mean that.
        ("mqueue", None) => Source::Mqueue,
        (kind, None) => {
            let name = mount.source().as_ref().map(|source| source.display().to_string());
            Source::FileSystem { kind: kind.to_owned(), name }
        }
    };
    if let Source::Bind(..) = source
        && let Some(option) = options.data.first()
    {
        return Err(wrong(format!(
            "option {option:?} has no meaning for the bind mount at {}",
            destination.display()
        )));
    }
    let is_tmpfs = matches!(&source, Source::FileSystem { kind, .. } if kind == "tmpfs");
    if options.copy_up && !is_tmpfs {
        return Err(wrong("option tmpcopyup is for a tmpfs".into()));
    }
    if options.copy_link && !matches!(source, Source::Bind(..) | Source::Link(_)) {
        return Err(wrong("option copy-symlink is for a bind mount".into()));
    }
    if let Source::FileSystem { kind, .. } = &source {
        options.label = label_for(kind, spec_label);
    }
    let owners = owners(index, mount, &options, users)?;
    if owners.is_some() && !matches!(source, Source::Bind(..)) {
        return Err(wrong("only a bind mount can be idmapped".into()));
    }
    Ok(Mount { destination, source, options, owners })
}

/// The map of an idmapped mount: its own, or that of the container.
fn owners(
    index: usize,
    mount: &oci_spec::runtime::Mount,
    options: &MountOptions,
    (namespaces, container): Users<'_>,
) -> Result<Option<Owners>> {
    let field = |name: &str| format!("mounts[{index}].{name}");
    let users = ranges(&field("uidMappings"), mount.uid_mappings().as_deref())?;
    let groups = ranges(&field("gidMappings"), mount.gid_mappings().as_deref())?;
    let recursive = options.idmap.unwrap_or(false);
    let ranges = match (users.is_empty(), groups.is_empty(), options.idmap) {
        (true, true, None) => return Ok(None),
        (false, false, _) => Some((users, groups)),
        (true, true, Some(_)) => match container {
            Some(map) => Some((map.users.clone(), map.groups.clone())),
            None if namespaces.joins(Kind::User) => None,
            None => {
                return Err(Error::Config(format!(
                    "config.json: {}: idmap needs uidMappings and gidMappings, or a user \
                     namespace in linux.namespaces",
                    field("options")
                )));
            }
        },
        _ => {
            return Err(Error::Config(format!(
                "config.json: {}: an idmapped mount needs both uidMappings and gidMappings",
                field("uidMappings")
            )));
        }
    };
    Ok(Some(Owners { ranges, recursive }))
}

fn bind(
    mount: &oci_spec::runtime::Mount,
    recursive: bool,
    options: &MountOptions,
    at: &Circumstances<'_>,
) -> Result<Source, String> {
    let source = mount.source().as_ref().filter(|source| !source.as_os_str().is_empty());
    let source = source.ok_or("a bind mount needs a source")?;
    // Relative to the bundle, runtime-spec config.md.
    let source = at.bundle.join(source);
    if options.copy_link && source.is_symlink() {
        let target = std::fs::read_link(&source);
        return target.map(Source::Link).map_err(|why| format!("{}: {why}", source.display()));
    }
    if !source.try_exists().unwrap_or(true) {
        return Err(format!("source {} does not exist", source.display()));
    }
    Ok(Source::Bind(source, recursive))
}

/// `remount` changes attributes. A file system's own options belong to the mount that makes it,
/// where one list says all of them.
fn present(options: &MountOptions) -> Result<Source, String> {
    let own = options.superblock.iter().copied().chain(options.data.iter().map(String::as_str));
    match own.into_iter().next() {
        None => Ok(Source::Present),
        Some(option) => Err(format!(
            "remount changes attributes of a mount (ro, nosuid, …): give {option:?} to the mount \
             itself"
        )),
    }
}

/// The label of a file system's files by `linux.mountLabel`. The kernel's own have labels of their
/// own.
fn label_for(kind: &str, label: Option<&str>) -> Option<String> {
    let has_its_own = ["proc", "sysfs", "cgroup", "cgroup2", "mqueue"].contains(&kind);
    label.filter(|label| !has_its_own && !label.is_empty()).map(str::to_owned)
}

/// A destination as the kernel will see it; the specification lets us read a relative one as
/// relative to `/`. `..` at the root stays at the root.
fn absolute(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_cleaned() {
        assert_eq!(absolute(Path::new("proc")), Path::new("/proc"));
        assert_eq!(absolute(Path::new("/a/../../b/./c/")), Path::new("/b/c"));
    }
}
