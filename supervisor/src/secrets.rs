//! Secrets and configs as files in memory, for containers to be shown.
//!
//! Their values are never part of what is kept of a project: the specification only names a file,
//! and the name carries a keyed hash of the value, so that another value is another revision and
//! the hash tells nobody without the key what the value is. The files live on a tmpfs: below the
//! project's run directory, which is one on nearly every system, else below `/dev/shm`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::layout::Layout;

/// The largest value, in bytes (Swarm's limit).
const LARGEST: usize = 500 << 10;

/// Who the file belongs to in the container, and who may do what with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
}

/// Writes a value into memory; the file to show to containers.
///
/// # Errors
/// It is too large, or there is no tmpfs.
pub(crate) fn keep(layout: &Layout, name: &str, value: &[u8], owner: Owner) -> Result<PathBuf> {
    if value.len() > LARGEST {
        bail!("{name} has {} bytes, a secret or config at most {LARGEST}", value.len());
    }
    let dir = layout.secrets();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
    if !is_in_memory(&dir, &fs::read_to_string("/proc/self/mountinfo")?) {
        bail!("{} is not in memory (tmpfs), where secrets must be", dir.display());
    }
    let hash = Sha256::digest([&key(layout)?[..], &describe(name, owner), value].concat());
    let hash: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let file = dir.join(format!("{name}-{hash}"));
    if file.exists() {
        return Ok(file);
    }
    let new = dir.join(format!(".{name}-{hash}.{}", std::process::id()));
    let mut open = fs::OpenOptions::new();
    let mut written = open.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    written.write_all(value)?;
    let Owner { uid, gid, mode } = owner;
    std::os::unix::fs::fchown(&written, Some(uid), Some(gid))
        .context("cannot give it its owner")?;
    written.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    fs::rename(&new, &file)?;
    Ok(file)
}

/// What makes two files of one value different files.
fn describe(name: &str, owner: Owner) -> Vec<u8> {
    format!("{name}\0{}:{}:{:o}\0", owner.uid, owner.gid, owner.mode).into_bytes()
}

/// The project's key; made with the project, gone with it.
fn key(layout: &Layout) -> Result<Vec<u8>> {
    let file = layout.key();
    if let Ok(key) = fs::read(&file) {
        return Ok(key);
    }
    let mut key = vec![0; 32];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut key)?;
    layout.make()?;
    let mut open = fs::OpenOptions::new();
    let mut written = open.write(true).create_new(true).mode(0o600).open(&file)?;
    written.write_all(&key)?;
    Ok(key)
}

/// The directory below which a project's secrets may be: the run directory if that is in memory.
pub(crate) fn directory(run: &Path, project: &str) -> PathBuf {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    match is_in_memory(run, &table) {
        true => run.join("secrets"),
        false => Path::new("/dev/shm").join(format!("minisup-{project}")),
    }
}

/// Whether a path is on a tmpfs, by the deepest mount above it.
fn is_in_memory(path: &Path, table: &str) -> bool {
    let mounts = table.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        Some((left.split(' ').nth(4)?, right.split(' ').next()?))
    });
    let above = mounts.filter(|(place, _)| path.starts_with(place));
    // Of two at one place the later covers the earlier, and max_by_key takes the last of equals.
    let deepest = above.max_by_key(|(place, _)| Path::new(place).components().count());
    deepest.is_some_and(|(_, kind)| ["tmpfs", "ramfs"].contains(&kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_decides() {
        let table = "1 0 8:1 / / rw - ext4 /dev/vda rw\n\
                     2 1 0:5 / /run rw,nosuid shared:5 - tmpfs tmpfs rw\n\
                     3 2 8:2 / /run/disk rw - ext4 /dev/vdb rw\n";
        let is = |path: &str| is_in_memory(Path::new(path), table);
        assert!(is("/run/minisup/shop"));
        assert!(!is("/run/disk/shop") && !is("/var/run") && !is("/runner"));
    }

    #[test]
    fn the_owner_and_the_name_are_part_of_the_identity() {
        let owner = Owner { uid: 0, gid: 0, mode: 0o444 };
        assert_ne!(describe("a", owner), describe("b", owner));
        assert_ne!(describe("a", owner), describe("a", Owner { mode: 0o440, ..owner }));
    }
}
