//! A layer becomes a directory: entry by entry, each complete before the next.

use super::attributes::{self, Notices};
use super::limits::Limits;
use super::listing::{Line, Recorder};
use super::name::{Name, show};
use super::scan::{self, hard_link, with_all};
use super::settle;
use super::sparse::Map;
use super::target::{Place, Target};
use super::walk::{Entry, Kind, Walk};
use super::whiteout::{Form, Meaning, meaning};
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::image::view::View;
use linux::{Errno, metadata};
use nix::sys::stat::SFlag;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// A layer that is being unpacked.
#[derive(Debug)]
pub struct Unpacking {
    target: Target,
    recorder: Recorder<File>,
    notices: Notices,
    /// Hard links whose files are not in this layer.
    links_below: BTreeMap<Name, Name>,
    /// Who we are: without privilege every file is ours.
    user: (u32, u32),
    /// The permission bits that a new file does not get.
    umask: u32,
    entries: u64,
}

/// What an unpacked layer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// The digest of the record of the tree.
    pub tree: Digest,
    /// The entries of the archive, whiteouts included.
    pub entries: u64,
    /// What was left out.
    pub notices: Notices,
}

impl Unpacking {
    /// Begins: `root` is an empty directory, `record` an empty file that can be read as well.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn new(root: OwnedFd, record: File, form: Form, limits: Limits) -> Result<Self> {
        Ok(Self {
            umask: umask(root.as_fd()),
            target: Target::new(root, form, limits),
            recorder: Recorder::new(record)?,
            notices: Notices::default(),
            links_below: BTreeMap::new(),
            user: (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()),
            entries: 0,
        })
    }

    /// Writes all entries of an archive.
    ///
    /// # Errors
    /// The first one, with the entry that it is about.
    pub fn write<R: BufRead>(&mut self, walk: &mut Walk<R>) -> Result<()> {
        while let Some(entry) = walk.next_entry()? {
            self.entries += 1;
            self.entry(&entry, walk)
                .context(|| format!("entry `{}`", show(entry.name.as_bytes())))?;
        }
        walk.drain()
    }

    fn entry<R: BufRead>(&mut self, entry: &Entry, walk: &mut Walk<R>) -> Result<()> {
        match meaning(&entry.name)? {
            Meaning::Foreign => return Ok(()),
            Meaning::Deleted(name) => {
                self.target.delete(&name)?;
                return self.recorder.add(&Line::new(&name, "whiteout"));
            }
            Meaning::Opaque(name) => {
                self.target.hide_below(&name)?;
                return self.recorder.add(&Line::new(&name, "opaque"));
            }
            Meaning::Entry => {}
        }
        match &entry.kind {
            Kind::File { size, map } => self.file(entry, *size, map.as_ref(), walk),
            Kind::Directory => self.directory(entry),
            Kind::Symlink(to) => {
                let place = self.target.symlink(&entry.name, to)?;
                self.own(&place, entry)?;
                let line = Line::new(&entry.name, "link");
                let line = line.owned(0o777, self.uid(entry), self.gid(entry), entry.mtime);
                self.recorder.add(&line.with_bytes("link", to))
            }
            Kind::HardLink(to) => match self.target.hard_link(&entry.name, to)? {
                Some(_) => self.recorder.add(&hard_link(&entry.name, to)),
                None => {
                    self.links_below.insert(entry.name.clone(), to.clone());
                    Ok(())
                }
            },
            Kind::Fifo => {
                let place = self.target.fifo(&entry.name)?;
                self.special(entry, &place, "fifo", None)
            }
            Kind::Character(major, minor) => self.device(entry, SFlag::S_IFCHR, (*major, *minor)),
            Kind::Block(major, minor) => self.device(entry, SFlag::S_IFBLK, (*major, *minor)),
        }
    }

    fn file<R: BufRead>(
        &mut self,
        entry: &Entry,
        size: u64,
        map: Option<&Map>,
        walk: &mut Walk<R>,
    ) -> Result<()> {
        // A mode that the umask leaves as it is needs no call of its own, which is a fifth of the
        // calls that a small file takes.
        let early = entry.mode & (self.umask | !0o777) == 0;
        let file =
            File::from(self.target.file(&entry.name, if early { entry.mode } else { 0o600 })?);
        let content = match map {
            None => write_data(&file, walk)?,
            Some(map) => write_sparse(&file, map, walk)?,
        };
        let attributes = self.finish(&file, entry)?;
        if !early {
            metadata::set_mode(file.as_fd(), entry.mode)?;
        }
        metadata::set_times(file.as_fd(), entry.mtime)?;
        let line = self.owned(Line::new(&entry.name, "file"), entry).with("size", size);
        self.recorder.add(&with_all(line.with("sha256digest", content.hex()), &attributes))
    }

    /// The mode and the time of a directory come when all that is in it has been written.
    fn directory(&mut self, entry: &Entry) -> Result<()> {
        let directory = File::from(self.target.directory(&entry.name)?);
        let attributes = self.finish(&directory, entry)?;
        let line = self.owned(Line::new(&entry.name, "dir"), entry);
        self.recorder.add(&with_all(line, &attributes))
    }

    /// Owner and attributes of something open. Attributes come after the owner: a change of owner
    /// takes file capabilities away.
    fn finish(&mut self, file: &File, entry: &Entry) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        if self.is_root() && (entry.uid, entry.gid) != self.user {
            metadata::set_owner(file.as_fd(), entry.uid, entry.gid).map_err(unmapped)?;
        }
        if entry.xattrs.is_empty() {
            return Ok(Vec::new());
        }
        let set = attributes::set(file.as_fd(), &entry.xattrs, &mut self.notices)?;
        Ok(set.into_iter().cloned().collect())
    }

    fn device(&mut self, entry: &Entry, kind: SFlag, number: (u32, u32)) -> Result<()> {
        let place = match self.target.device(&entry.name, kind, number) {
            Err(Error::Kernel(error)) if error.errno == Errno::EPERM => {
                self.notices.add("a device node, which only root can make (minirun gives /dev)");
                return Ok(());
            }
            result => result?,
        };
        let kind = if kind == SFlag::S_IFCHR { "char" } else { "block" };
        self.special(entry, &place, kind, Some(number))
    }

    fn special(
        &mut self,
        entry: &Entry,
        place: &Place,
        kind: &str,
        device: Option<(u32, u32)>,
    ) -> Result<()> {
        self.own(place, entry)?;
        place.set_mode(entry.mode)?;
        let mut line = self.owned(Line::new(&entry.name, kind), entry);
        if let Some((major, minor)) = device {
            line = line.with("device", format_args!("{major},{minor}"));
        }
        metadata::set_times_at(place.parent(), place.name(), entry.mtime)?;
        self.recorder.add(&line)
    }

    /// Owner and time of something that cannot be opened.
    fn own(&mut self, place: &Place, entry: &Entry) -> Result<()> {
        if !entry.xattrs.is_empty() {
            self.notices.add("an attribute of a link or device");
        }
        if self.is_root() && (entry.uid, entry.gid) != self.user {
            metadata::set_owner_at(place.parent(), place.name(), entry.uid, entry.gid)
                .map_err(unmapped)?;
        }
        Ok(metadata::set_times_at(place.parent(), place.name(), entry.mtime)?)
    }

    /// Settles what depends on the layers below, and completes the directories.
    ///
    /// # Errors
    /// When a hard link leads nowhere, or the kernel refuses.
    pub fn complete(mut self, below: &View) -> Result<Unpacked> {
        let rewritten = self.target.is_rewritten() || !self.links_below.is_empty();
        settle::hard_links(&mut self.target, &self.links_below, below)?;
        for line in settle::directories(&self.target, below, self.is_root())? {
            self.recorder.add(&line)?;
        }
        let (mut record, mut tree) = self.recorder.finish()?;
        finish_directories(&self.target, &mut record)?;
        if rewritten {
            record.set_len(0)?;
            record.rewind()?;
            let mut recorder = Recorder::new(record)?;
            scan::record(self.target.root(), self.target.form(), &mut recorder)?;
            (_, tree) = recorder.finish()?;
        }
        Ok(Unpacked { tree, entries: self.entries, notices: self.notices })
    }

    fn is_root(&self) -> bool {
        self.user.0 == 0
    }

    fn uid(&self, entry: &Entry) -> u32 {
        if self.is_root() { entry.uid } else { self.user.0 }
    }

    fn gid(&self, entry: &Entry) -> u32 {
        if self.is_root() { entry.gid } else { self.user.1 }
    }

    fn owned(&self, line: Line, entry: &Entry) -> Line {
        line.owned(entry.mode, self.uid(entry), self.gid(entry), entry.mtime)
    }
}

/// The permission bits that a new file in this directory does not get: all, when a default list of
/// access rights (acl(5)) decides there, or the kernel does not say.
fn umask(directory: BorrowedFd<'_>) -> u32 {
    let has_list = !matches!(linux::xattr::get(directory, c"system.posix_acl_default"), Ok(None));
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let umask = line.and_then(|text| u32::from_str_radix(text.trim(), 8).ok());
    umask.filter(|_| !has_list).unwrap_or(0o777)
}

/// In a user namespace the kernel knows only the mapped owners.
fn unmapped(error: linux::Error) -> Error {
    if error.errno != Errno::EINVAL {
        return error.into();
    }
    Error::Unsupported(format!(
        "{error}: this user namespace has no such user or group; map more of them (subuid(5)), or unpack without privilege"
    ))
}

fn write_data<R: BufRead>(file: &File, walk: &mut Walk<R>) -> Result<Digest> {
    let mut hash = Sha256::new();
    let mut file = file;
    loop {
        let chunk = walk.chunk()?;
        if chunk.is_empty() {
            return Ok(Digest::from_hash(hash));
        }
        file.write_all(chunk)?;
        hash.update(chunk);
        let length = chunk.len();
        walk.consume(length);
    }
}

/// Writes the parts that have data. The record has the digest of the whole file, so the holes are
/// digested as the zeros that a reader will see.
fn write_sparse<R: BufRead>(file: &File, map: &Map, walk: &mut Walk<R>) -> Result<Digest> {
    let mut hash = Sha256::new();
    let mut at = 0;
    for extent in &map.extents {
        digest_zeros(&mut hash, extent.offset - at);
        at = extent.offset;
        let end = extent.offset + extent.length;
        while at < end {
            let chunk = walk.chunk()?;
            let length = chunk.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            if length == 0 {
                return Err(Error::Invalid("the map of a sparse file contradicts itself".into()));
            }
            file.write_all_at(&chunk[..length], at)?;
            hash.update(&chunk[..length]);
            walk.consume(length);
            at += length as u64;
        }
    }
    digest_zeros(&mut hash, map.size - at);
    file.set_len(map.size)?;
    Ok(Digest::from_hash(hash))
}

fn digest_zeros(hash: &mut Sha256, mut count: u64) {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    while count > 0 {
        let step = count.min(ZEROS.len() as u64);
        hash.update(&ZEROS[..usize::try_from(step).unwrap_or_default()]);
        count -= step;
    }
}

/// Gives every directory its mode and time, as the record has them. Directories that we could not
/// enter afterwards come last, the innermost first.
fn finish_directories(target: &Target, record: &mut File) -> Result<()> {
    record.rewind()?;
    let mut closed = BTreeMap::new();
    let mut reader = BufReader::new(&*record);
    let mut text = String::new();
    while reader.read_line(&mut text)? > 0 {
        // Of many thousand lines few are about directories.
        let line = match text.contains(" type=dir ") {
            true => Line::parse(text.trim_end_matches('\n'))?,
            false => None,
        };
        text.clear();
        let Some(line) = line else { continue };
        let Some((mode, time)) = line.mode_and_time() else { continue };
        let name = Name::joined(&line.name, b"");
        closed.remove(&name);
        if mode & 0o700 == 0o700 {
            finish_directory(target, &name, mode, time)?;
        } else {
            closed.insert(name, (mode, time));
        }
    }
    for (name, (mode, time)) in closed.into_iter().rev() {
        finish_directory(target, &name, mode, time)?;
    }
    Ok(())
}

/// A later entry of the same archive may have replaced the directory by something else.
fn finish_directory(target: &Target, name: &Name, mode: u32, time: (i64, u32)) -> Result<()> {
    match scan::finish_directory(target.root(), name, mode, time) {
        Err(Error::Kernel(error))
            if target.is_rewritten()
                && matches!(error.errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) =>
        {
            Ok(())
        }
        result => result.context(|| format!("directory `{name}`")),
    }
}
