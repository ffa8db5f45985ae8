//! What a layer takes over from the layers below it.
//!
//! Two things in an archive make sense only on top of something: a directory that is mentioned
//! (`usr/bin/x` without `usr/bin/`) and keeps the owner and mode that it has below, and a hard
//! link to a file below, which overlayfs would copy up before it links. Both are rare, and both
//! are done here, when the layers below are complete. It is why an unpacked layer is kept by its
//! chain id and not by its diffID alone.

use super::attributes;
use super::listing::Line;
use super::name::Name;
use super::scan::{self, with_all};
use super::target::Target;
use crate::error::{Context, Error, Result};
use crate::image::view::{Found, View};
use linux::{OFlag, metadata};
use nix::sys::stat::SFlag;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

/// The mode of a directory that no layer describes.
const DEFAULT_MODE: u32 = 0o755;

/// Gives the directories that the archive only mentions what they have below, and returns the
/// lines for the record. The root of the tree is one of them when the archive has no entry for it.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn directories(target: &Target, below: &View, as_root: bool) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for name in target.implicit() {
        let directory = target.open(name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        let found = below.find(name)?.filter(|found| found.kind() == SFlag::S_IFDIR);
        let line = Line::new(name, "dir");
        let Some(found) = found else {
            let stat = linux::fd::stat(&directory)?;
            // No time is known, and "now" would make two unpackings of one layer differ.
            lines.push(line.owned(DEFAULT_MODE, stat.st_uid, stat.st_gid, (0, 0)));
            continue;
        };
        let original = found.open(OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        let list = attributes::get(original.as_fd())?;
        if as_root {
            metadata::set_owner(directory.as_fd(), found.stat.st_uid, found.stat.st_gid)?;
        }
        for (key, value) in &list {
            let key = std::ffi::CString::new(key.as_slice()).map_err(io::Error::from)?;
            linux::xattr::set(directory.as_fd(), &key, value)?;
        }
        let (uid, gid) = (found.stat.st_uid, found.stat.st_gid);
        let line = line.owned(found.stat.st_mode & 0o7777, uid, gid, scan::mtime(&found.stat));
        lines.push(with_all(line, &list));
    }
    Ok(lines)
}

/// Makes the hard links to files below, by copying the file up as overlayfs does.
///
/// # Errors
/// When no layer below has the file.
pub(super) fn hard_links(
    target: &mut Target,
    links: &BTreeMap<Name, Name>,
    below: &View,
) -> Result<()> {
    for (name, to) in links {
        hard_link(target, name, to, below)
            .context(|| format!("entry `{name}`, a hard link to `{to}`"))?;
    }
    Ok(())
}

fn hard_link(target: &mut Target, name: &Name, to: &Name, below: &View) -> Result<()> {
    // A later entry of the archive, or the link before, may have brought the file.
    if target.hard_link(name, to)?.is_some() {
        return Ok(());
    }
    let found = below
        .find(to)?
        .ok_or_else(|| Error::Invalid("neither this layer nor one below has that file".into()))?;
    if found.kind() != SFlag::S_IFREG {
        return Err(Error::Unsupported(
            "the file is in a layer below and is not a regular one".into(),
        ));
    }
    copy_up(target, to, &found)?;
    target.hard_link(name, to).map(drop)
}

fn copy_up(target: &mut Target, name: &Name, found: &Found) -> Result<()> {
    let mut from = File::from(found.open(OFlag::O_RDONLY)?);
    let mut copy = File::from(target.file(name, 0o600)?);
    io::copy(&mut from, &mut copy)?;
    if nix::unistd::geteuid().is_root() {
        metadata::set_owner(copy.as_fd(), found.stat.st_uid, found.stat.st_gid)?;
    }
    for (key, value) in attributes::get(from.as_fd())? {
        let key = std::ffi::CString::new(key).map_err(io::Error::from)?;
        linux::xattr::set(copy.as_fd(), &key, &value)?;
    }
    metadata::set_mode(copy.as_fd(), found.stat.st_mode & 0o7777)?;
    Ok(metadata::set_times(copy.as_fd(), scan::mtime(&found.stat))?)
}
