//! A directory becomes a layer: a tar stream that is the same whenever the directory is.
//!
//! Names are sorted, times are whole seconds, user names and the like are left out, and the format
//! is the one that every reader knows: ustar, with PAX records for what does not fit into it.

use super::attributes::{self, Notices};
use super::name::Name;
use super::scan::{self, Inode, kind_of, shared_inode};
use super::target::{is_whiteout, path};
use super::whiteout::{Form, deletion_of, opacity_of};
use crate::error::{Context, Error, Result};
use linux::path::open_at;
use linux::{OFlag, entry, fd};
use nix::sys::stat::{FileStat, SFlag};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tar::{EntryType, Header};

/// Whose the files of the layer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Whoever owns them here.
    Kept,
    /// Files of this user and group are root's; without privilege all files are.
    Mapped(u32, u32),
}

impl Owners {
    /// Root keeps owners. Everybody else builds images of files that are theirs, and means root.
    pub fn of_this_process() -> Self {
        let user = nix::unistd::geteuid();
        if user.is_root() {
            Self::Kept
        } else {
            Self::Mapped(user.as_raw(), nix::unistd::getegid().as_raw())
        }
    }

    fn of(self, stat: &FileStat) -> (u32, u32) {
        match self {
            Self::Kept => (stat.st_uid, stat.st_gid),
            Self::Mapped(user, group) => {
                let zero = |id, ours| if id == ours { 0 } else { id };
                (zero(stat.st_uid, user), zero(stat.st_gid, group))
            }
        }
    }
}

/// What is packed, and how.
struct Packer<W: Write> {
    root: OwnedFd,
    output: tar::Builder<W>,
    owners: Owners,
    /// For the upper directory of an overlay: its whiteouts become those of a layer.
    overlay: Option<Form>,
    /// No file is newer than this, in seconds since the epoch (SOURCE_DATE_EPOCH).
    newest: Option<i64>,
    known: BTreeMap<Inode, Name>,
    notices: Notices,
}

/// Packs a tree.
///
/// # Errors
/// When something in it cannot be read, or the stream cannot be written.
pub fn tree(root: &Path, output: impl Write, owners: Owners) -> Result<Notices> {
    pack(root, output, owners, None, None)
}

/// Packs the upper directory of an overlay: what changed, with whiteouts for what was deleted.
///
/// # Errors
/// As for [`tree`].
pub fn changes(
    root: &Path,
    output: impl Write,
    owners: Owners,
    form: Form,
    newest: Option<i64>,
) -> Result<Notices> {
    pack(root, output, owners, Some(form), newest)
}

fn pack(
    root: &Path,
    output: impl Write,
    owners: Owners,
    overlay: Option<Form>,
    newest: Option<i64>,
) -> Result<Notices> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let mut packer = Packer {
        root: linux::path::open(root, flags)?,
        output: tar::Builder::new(output),
        owners,
        overlay,
        newest,
        known: BTreeMap::new(),
        notices: Notices::default(),
    };
    let mut waiting = vec![Name::new(b".")?];
    while let Some(name) = waiting.pop() {
        let children = packer.add(&name).context(|| format!("entry `{name}`"))?;
        waiting.extend(children.into_iter().rev());
    }
    packer.output.finish()?;
    Ok(packer.notices)
}

impl<W: Write> Packer<W> {
    /// Adds one file, and returns what is in it when it is a directory.
    fn add(&mut self, name: &Name) -> Result<Vec<Name>> {
        let seen = scan::open(self.root.as_fd(), name, OFlag::O_PATH)?;
        let stat = fd::stat(&seen)?;
        if self.overlay.is_some() && is_whiteout(&stat) {
            return self.marker(&deletion_of(name)).map(|()| Vec::new());
        }
        if let Some(inode) = shared_inode(&stat) {
            if let Some(first) = self.known.get(&inode).cloned() {
                let mut header = self.header(&stat, EntryType::Link);
                return self.write(
                    name,
                    &mut header,
                    Some(first.as_bytes()),
                    &[],
                    std::io::empty(),
                );
            }
            self.known.insert(inode, name.clone());
        }
        match kind_of(&stat) {
            SFlag::S_IFREG => self.file(name, &stat),
            SFlag::S_IFDIR => self.directory(name, &stat),
            SFlag::S_IFLNK => {
                let to = nix::fcntl::readlinkat(&seen, "")?;
                let mut header = self.header(&stat, EntryType::Symlink);
                self.write(name, &mut header, Some(to.as_bytes()), &[], std::io::empty())
            }
            SFlag::S_IFIFO => {
                let mut header = self.header(&stat, EntryType::Fifo);
                self.write(name, &mut header, None, &[], std::io::empty())
            }
            SFlag::S_IFCHR => self.device(name, &stat, EntryType::Char),
            SFlag::S_IFBLK => self.device(name, &stat, EntryType::Block),
            _ => {
                self.notices.add("a socket, which lives only as long as its program");
                Ok(Vec::new())
            }
        }
    }

    fn file(&mut self, name: &Name, stat: &FileStat) -> Result<Vec<Name>> {
        let file = File::from(scan::open(self.root.as_fd(), name, OFlag::O_RDONLY)?);
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        let mut header = self.header(stat, EntryType::Regular);
        header.set_size(size);
        let xattrs = attributes::get(file.as_fd())?;
        // A file that grows meanwhile is cut, one that shrinks is an error: the header is written.
        let content = Exactly { inner: file, left: size };
        self.write(name, &mut header, None, &xattrs, content)
    }

    fn directory(&mut self, name: &Name, stat: &FileStat) -> Result<Vec<Name>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let directory = scan::open(self.root.as_fd(), name, flags)?;
        let xattrs = attributes::get(directory.as_fd())?;
        let mut header = self.header(stat, EntryType::Directory);
        self.write(name, &mut header, None, &xattrs, std::io::empty())?;
        if let Some(form) = self.overlay
            && attributes::is_opaque(directory.as_fd(), form)?
        {
            self.marker(&opacity_of(name))?;
        }
        let again = open_at(directory.as_fd(), Path::new("."), OFlag::O_PATH)?;
        let names = entry::names(again.as_fd())?;
        Ok(names.iter().map(|last| Name::joined(name.as_bytes(), last.as_bytes())).collect())
    }

    fn device(&mut self, name: &Name, stat: &FileStat, kind: EntryType) -> Result<Vec<Name>> {
        let mut header = self.header(stat, kind);
        let number = |part: u64| u32::try_from(part).unwrap_or(u32::MAX);
        let major = number(nix::sys::stat::major(stat.st_rdev));
        let minor = number(nix::sys::stat::minor(stat.st_rdev));
        header.set_device_major(major)?;
        header.set_device_minor(minor)?;
        self.write(name, &mut header, None, &[], std::io::empty())
    }

    /// A whiteout: an empty file whose name says it all.
    fn marker(&mut self, name: &Name) -> Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_mtime(0);
        self.write(name, &mut header, None, &[], std::io::empty()).map(drop)
    }

    fn header(&self, stat: &FileStat, kind: EntryType) -> Header {
        let (uid, gid) = self.owners.of(stat);
        let seconds = self.newest.map_or(stat.st_mtime, |newest| stat.st_mtime.min(newest));
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        header.set_size(0);
        header.set_mtime(u64::try_from(seconds).unwrap_or(0));
        header
    }

    /// Writes PAX records for what a ustar header has no room for, then the header, then the data.
    fn write(
        &mut self,
        name: &Name,
        header: &mut Header,
        link: Option<&[u8]>,
        xattrs: &[(Vec<u8>, Vec<u8>)],
        content: impl Read,
    ) -> Result<Vec<Name>> {
        let mut full = name.as_bytes().to_vec();
        if name.is_root() {
            full.push(b'.');
        }
        if header.entry_type().is_dir() {
            full.push(b'/');
        }
        let mut records: Vec<(String, Vec<u8>)> = Vec::new();
        if !full.is_ascii() || header.set_path(path(&full)).is_err() {
            records.push(("path".into(), full.clone()));
            header.set_path("long-name")?;
        }
        if let Some(link) = link
            && (!link.is_ascii() || header.set_link_name_literal(link).is_err())
        {
            records.push(("linkpath".into(), link.to_vec()));
            header.set_link_name_literal("long-link")?;
        }
        let (uid, gid, size) = (header.uid()?, header.gid()?, header.size()?);
        for (key, value, most) in
            [("uid", uid, 0o777_7777), ("gid", gid, 0o777_7777), ("size", size, 0o777_7777_7777)]
        {
            if value > most {
                records.push((key.into(), value.to_string().into_bytes()));
            }
        }
        for (key, value) in xattrs {
            let key = String::from_utf8(key.clone())
                .map_err(|_| Error::Unsupported("the name of an attribute is not UTF-8".into()))?;
            records.push((format!("SCHILY.xattr.{key}"), value.clone()));
        }
        if !records.is_empty() {
            let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
            self.output.append_pax_extensions(records)?;
        }
        header.set_cksum();
        self.output.append(header, content)?;
        Ok(Vec::new())
    }
}

/// So many bytes of a file, or an error.
struct Exactly {
    inner: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.inner.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(
                Error::Conflict("the file became shorter while it was packed".into()).into()
            );
        }
        self.left -= count as u64;
        Ok(count)
    }
}
