//! Which mounts of a container CRIU can make again by itself, and which come from outside.
//!
//! A new tmpfs, proc or overlay is in the images. A volume, a device or the `/dev/null` that hides
//! a file is the host's: CRIU must be told, once that it is so, and once what to bind there.
//!
//! The kernel's own table of the container's mounts (proc_pid_mountinfo(5)) is the only one that is
//! right: a rootfs has links, and a recursive bind mount brings more than the configuration says.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use linux::path::Root;
use linux::{OFlag, fd};
use serde::{Deserialize, Serialize};

use crate::error::{Cause, Error, Result};
use crate::plan::{DEFAULT_DEVICES, Plan, Source};

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    id: u64,
    parent: u64,
    /// What of its file system is mounted.
    root: PathBuf,
    /// Where, in the container.
    place: PathBuf,
    kind: String,
}

/// A mount that comes from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct External {
    /// Where it really is in the container: its name in the images.
    pub(crate) place: PathBuf,
    /// What it is.
    pub(crate) origin: Origin,
}

/// What a mount from outside is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Origin {
    /// The bind mount of the configuration with this destination, or one below it.
    Bind {
        /// As the configuration has it.
        destination: PathBuf,
        /// The rest of the path, for a mount that a recursive bind brought.
        below: PathBuf,
    },
    /// A file or device of the host with this path.
    Host(PathBuf),
}

/// Parses the table; lines that are none are left out.
pub(crate) fn parse(text: &str) -> Vec<Entry> {
    text.lines().filter_map(entry).collect()
}

fn entry(line: &str) -> Option<Entry> {
    let (fields, rest) = line.split_once(" - ")?;
    let mut fields = fields.split(' ');
    let id = fields.next()?.parse().ok()?;
    let parent = fields.next()?.parse().ok()?;
    let root = unescaped(fields.nth(1)?);
    let place = unescaped(fields.next()?);
    Some(Entry { id, parent, root, place, kind: rest.split(' ').next()?.to_owned() })
}

/// Whether the root in this table is in a peer group, so that what is bound from there is a slave
/// of the host's mounts, mount_namespaces(7).
pub(crate) fn propagates(text: &str) -> bool {
    let root = text.lines().find(|line| line.split(' ').nth(4) == Some("/"));
    let fields = root.and_then(|line| line.split_once(" - ")).map_or("", |(fields, _)| fields);
    fields.split(' ').any(|field| field.starts_with("shared:") || field.starts_with("master:"))
}

/// Spaces and their like are written as three octal digits.
fn unescaped(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let digits = others.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (first, byte) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = others.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// The numbers of all mounts.
pub(crate) fn ids(table: &[Entry]) -> Vec<u64> {
    table.iter().map(|entry| entry.id).collect()
}

/// Where mounts are, but for the root.
pub(crate) fn places(table: &[Entry]) -> impl Iterator<Item = &Path> {
    table.iter().map(|entry| entry.place.as_path()).filter(|place| *place != Path::new("/"))
}

/// The mounts from outside: `known` says what the mounts with these numbers are. What is mounted
/// below a bind mount has come with it.
pub(crate) fn externals(table: &[Entry], known: &BTreeMap<u64, Origin>) -> Result<Vec<External>> {
    let mut found = Vec::new();
    for entry in table.iter().filter(|entry| entry.place != Path::new("/")) {
        let Some(origin) = origin_of(entry, table, known) else { continue };
        check_name(&entry.place)?;
        found.push(External { place: entry.place.clone(), origin });
    }
    Ok(found)
}

fn origin_of(entry: &Entry, table: &[Entry], known: &BTreeMap<u64, Origin>) -> Option<Origin> {
    if let Some(origin) = known.get(&entry.id) {
        return Some(origin.clone());
    }
    // Up to the bind mount that brought it; a new file system on the way was mounted by itself.
    let parent = table.iter().find(|other| other.id == entry.parent)?;
    if parent.id == entry.id || is_made_anew(entry) {
        return None;
    }
    match origin_of(parent, table, known)? {
        Origin::Bind { destination, below } => {
            let rest = entry.place.strip_prefix(&parent.place).ok()?;
            Some(Origin::Bind { destination, below: below.join(rest) })
        }
        Origin::Host(_) => None,
    }
}

/// Whether CRIU makes this one from its images: the kernel's own file systems, whole.
fn is_made_anew(entry: &Entry) -> bool {
    let own = ["proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2"];
    own.contains(&entry.kind.as_str()) && entry.root == Path::new("/")
}

/// CRIU takes a mount's name and its source as one text, in which these have a meaning
/// (a mount point like `x]:/etc` would choose what is mounted).
fn check_name(place: &Path) -> Result<()> {
    let text = place.to_str().filter(|text| !text.contains(['[', ']', ':']));
    text.map(drop).ok_or_else(|| {
        Error::Unsupported(format!(
            "checkpoint a container with a mount at {}: CRIU cannot take `[`, `]` or `:` in its \
             path",
            place.display()
        ))
    })
}

/// What the mounts of the container's plan are, by their numbers, looked up in its root.
pub(crate) fn known(plan: &Plan, root: &Root) -> Result<BTreeMap<u64, Origin>> {
    let mut known = BTreeMap::new();
    let own_root = mount_id(&root.in_root(Path::new("/"), OFlag::O_PATH).map_err(looking())?)?;
    let mut add = |path: &Path, origin: Origin| -> Result<()> {
        // What is not there, or hidden by another mount, is none.
        if let Ok(place) = root.in_root(path, OFlag::O_PATH) {
            let id = mount_id(&place)?;
            if id != own_root {
                known.entry(id).or_insert(origin);
            }
        }
        Ok(())
    };
    for mount in plan.mounts.iter().rev() {
        if let Source::Bind(..) = &mount.source {
            let destination = mount.destination.clone();
            add(&mount.destination, Origin::Bind { destination, below: PathBuf::new() })?;
        }
    }
    for masked in &plan.masked {
        let is_file = root.in_root(masked, OFlag::O_PATH | OFlag::O_DIRECTORY).is_err();
        if is_file {
            add(masked, Origin::Host("/dev/null".into()))?;
        }
    }
    if plan.namespaces.has(linux::namespace::Kind::User) {
        let named = DEFAULT_DEVICES.iter().map(|(name, ..)| Path::new("/dev").join(name));
        for device in named.chain(plan.devices.iter().map(|device| device.path.clone())) {
            add(&device, Origin::Host(device.clone()))?;
        }
    }
    Ok(known)
}

fn looking() -> impl FnOnce(linux::Error) -> Error {
    Error::kernel("look at the container's mounts")
}

/// The number of the mount that a descriptor is on, proc_pid_fdinfo(5).
pub(crate) fn mount_id(place: &OwnedFd) -> Result<u64> {
    mount_id_of(&format!("/proc/self/fdinfo/{}", place.as_raw_fd()))
}

/// The same, of any process's descriptor.
pub(crate) fn mount_id_of(file: &str) -> Result<u64> {
    let text = fd::read_kernel_file(Path::new(file)).map_err(looking())?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| Error::Config(format!("{file} has no mnt_id")))
}

impl External {
    /// What to bind there now, by the plan of the container that is made of the images.
    pub(crate) fn source(&self, plan: &Plan) -> Result<PathBuf, Cause> {
        let (wanted, below) = match &self.origin {
            Origin::Host(path) => return Ok(path.clone()),
            Origin::Bind { destination, below } => (destination, below),
        };
        let mounts = plan.mounts.iter().rev();
        let found = mounts.filter(|mount| mount.destination == *wanted).find_map(|mount| {
            match &mount.source {
                Source::Bind(source, _) => Some(source.clone()),
                _ => None,
            }
        });
        let source = found.ok_or_else(|| {
            Cause::new(format!(
                "the images have a mount from outside at {}, and config.json binds nothing to {}",
                self.place.display(),
                wanted.display()
            ))
        })?;
        Ok(if below.as_os_str().is_empty() { source } else { source.join(below) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
100 50 0:40 / / ro,relatime - overlay overlay rw
101 100 0:41 / /proc rw - proc proc rw
102 100 0:42 / /dev rw - tmpfs tmpfs rw
103 101 0:5 /null /proc/kcore rw - devtmpfs dev rw
104 100 8:1 /srv/data /data\\040dir rw - ext4 /dev/sda rw
105 104 8:2 / /data\\040dir/sub rw - ext4 /dev/sdb rw
106 102 0:43 / /dev/pts rw - devpts devpts rw
nonsense";

    fn bind(destination: &str) -> Origin {
        Origin::Bind { destination: destination.into(), below: PathBuf::new() }
    }

    #[test]
    fn what_a_bind_mount_brings_is_from_outside_too() {
        let table = parse(TABLE);
        assert_eq!(table.len(), 7);
        let null = Origin::Host("/dev/null".into());
        let known = BTreeMap::from([(103, null.clone()), (104, bind("/data dir"))]);
        let found = externals(&table, &known).unwrap();
        let below = Origin::Bind { destination: "/data dir".into(), below: "sub".into() };
        let wanted =
            [("/proc/kcore", null), ("/data dir", bind("/data dir")), ("/data dir/sub", below)];
        let wanted = wanted.map(|(place, origin)| External { place: place.into(), origin });
        assert_eq!(found, wanted);
    }

    #[test]
    fn names_that_criu_would_take_apart_are_refused() {
        let table = parse("7 1 0:1 / /x]:/etc rw - ext4 d rw");
        let error = externals(&table, &BTreeMap::from([(7, bind("/x]:/etc"))])).unwrap_err();
        assert!(error.to_string().contains("CRIU cannot take"), "{error}");
    }

    #[test]
    fn peer_groups_are_optional_fields() {
        assert!(propagates("1 0 8:1 / / rw shared:1 - ext4 d rw\n2 1 0:5 / /proc rw - proc p rw"));
        assert!(!propagates(
            "1 0 8:1 / / rw - ext4 shared:1 rw\n2 1 0:5 / /p rw shared:2 - p p rw"
        ));
    }

    #[test]
    fn escapes_are_octal() {
        assert_eq!(unescaped("a\\040b\\134c\\"), PathBuf::from("a b\\c\\"));
    }
}
