//! A directory becomes a layer: a tar stream that is the same whenever the directory is.
//!
//! Names are sorted, times are whole seconds, user names and the like are left out.

use super::attributes::{self, Notices};
use super::id_map::IdMap;
use super::name::Name;
use super::scan::{self, Inode, kind_of, shared_inode};
use super::target::is_whiteout;
use super::whiteout::{Form, deletion_of, opacity_of};
use super::writer::{Exactly, LayerWriter};
use crate::error::{Context, Result};
use linux::path::open_at;
use linux::{OFlag, entry, fd};
use nix::sys::stat::{FileStat, SFlag};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tar::{EntryType, Header};

/// Whose the files of the layer are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owners {
    /// Whoever owns them here.
    Kept,
    /// Files of this user and group are root's; without privilege all files are.
    Mapped(u32, u32),
    /// Whoever owns them in the user namespace with this map.
    Inside(IdMap),
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

    fn of(&self, stat: &FileStat) -> (u32, u32) {
        match self {
            Self::Kept => (stat.st_uid, stat.st_gid),
            Self::Mapped(user, group) => {
                let zero = |id, ours| if id == ours { 0 } else { id };
                (zero(stat.st_uid, *user), zero(stat.st_gid, *group))
            }
            Self::Inside(map) => (map.user_inside(stat.st_uid), map.group_inside(stat.st_gid)),
        }
    }

    /// The attributes as they are in the layer: a file capability that is for the root of a user
    /// namespace is for the root of whoever runs the image.
    fn attributes(&self, mut list: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<(Vec<u8>, Vec<u8>)> {
        if let Self::Inside(map) = self {
            for (_, value) in list.iter_mut().filter(|(name, _)| name == attributes::CAPABILITY) {
                map.capability_inside(value);
            }
        }
        list
    }
}

/// What is packed, and how.
struct Packer<'plan, W: Write> {
    root: OwnedFd,
    output: LayerWriter<W>,
    owners: Owners,
    /// For the upper directory of an overlay: its whiteouts become those of a layer.
    overlay: Option<Form>,
    /// Names that are left out while they are empty: mount points.
    mount_points: &'plan BTreeSet<Name>,
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
    pack(root, output, owners, None, &Upper::default())
}

/// What is to know about an upper directory besides its files.
#[derive(Debug, Clone, Default)]
pub struct Upper {
    /// Files and directories that somebody made to mount something there. They are left out while
    /// they are empty.
    pub mount_points: BTreeSet<Name>,
    /// No file is newer than this, in seconds since the epoch (SOURCE_DATE_EPOCH).
    pub newest: Option<i64>,
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
    upper: &Upper,
) -> Result<Notices> {
    pack(root, output, owners, Some(form), upper)
}

fn pack(
    root: &Path,
    output: impl Write,
    owners: Owners,
    overlay: Option<Form>,
    upper: &Upper,
) -> Result<Notices> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let mut packer = Packer {
        root: linux::path::open(root, flags)?,
        output: LayerWriter::new(output),
        owners,
        overlay,
        mount_points: &upper.mount_points,
        newest: upper.newest,
        known: BTreeMap::new(),
        notices: Notices::default(),
    };
    let mut waiting = vec![Name::new(b".")?];
    while let Some(name) = waiting.pop() {
        let children = packer.add(&name).context(|| format!("entry `{name}`"))?;
        waiting.extend(children.into_iter().rev());
    }
    let Packer { output, notices, .. } = packer;
    output.finish()?;
    Ok(notices)
}

impl<W: Write> Packer<'_, W> {
    /// Adds one file, and returns what is in it when it is a directory.
    fn add(&mut self, name: &Name) -> Result<Vec<Name>> {
        let seen = scan::open(self.root.as_fd(), name, OFlag::O_PATH)?;
        let stat = fd::stat(&seen)?;
        if self.mount_points.contains(name) && is_empty(&seen, &stat)? {
            return Ok(Vec::new());
        }
        if self.overlay.is_some() && is_whiteout(&stat) {
            return self.output.marker(&deletion_of(name)).map(|()| Vec::new());
        }
        if let Some(inode) = shared_inode(&stat) {
            if let Some(first) = self.known.get(&inode).cloned() {
                let mut header = self.header(&stat, EntryType::Link);
                let link = Some(first.as_bytes());
                self.output.write(name, &mut header, link, &[], std::io::empty())?;
                return Ok(Vec::new());
            }
            self.known.insert(inode, name.clone());
        }
        match kind_of(&stat) {
            SFlag::S_IFREG => self.file(name, &stat),
            SFlag::S_IFDIR => self.directory(name, &stat),
            SFlag::S_IFLNK => {
                let to = nix::fcntl::readlinkat(&seen, "")?;
                let mut header = self.header(&stat, EntryType::Symlink);
                self.output
                    .write(name, &mut header, Some(to.as_bytes()), &[], std::io::empty())
                    .map(|()| Vec::new())
            }
            SFlag::S_IFIFO => {
                let mut header = self.header(&stat, EntryType::Fifo);
                self.output
                    .write(name, &mut header, None, &[], std::io::empty())
                    .map(|()| Vec::new())
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
        let xattrs = self.owners.attributes(attributes::get(file.as_fd())?);
        // A file that grows meanwhile is cut, one that shrinks is an error: the header is written.
        let content = Exactly::new(file, size);
        self.output.write(name, &mut header, None, &xattrs, content).map(|()| Vec::new())
    }

    fn directory(&mut self, name: &Name, stat: &FileStat) -> Result<Vec<Name>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let directory = scan::open(self.root.as_fd(), name, flags)?;
        let xattrs = self.owners.attributes(attributes::get(directory.as_fd())?);
        let mut header = self.header(stat, EntryType::Directory);
        self.output.write(name, &mut header, None, &xattrs, std::io::empty())?;
        if let Some(form) = self.overlay
            && attributes::is_opaque(directory.as_fd(), form)?
        {
            self.output.marker(&opacity_of(name))?;
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
        self.output.write(name, &mut header, None, &[], std::io::empty()).map(|()| Vec::new())
    }

    fn header(&self, stat: &FileStat, kind: EntryType) -> Header {
        let seconds = self.newest.map_or(stat.st_mtime, |newest| stat.st_mtime.min(newest));
        LayerWriter::<W>::header(kind, stat.st_mode, self.owners.of(stat), seconds)
    }
}

/// Whether a file has no data, or a directory no entries.
fn is_empty(file: &OwnedFd, stat: &FileStat) -> Result<bool> {
    match kind_of(stat) {
        SFlag::S_IFDIR => Ok(entry::names(file.as_fd())?.is_empty()),
        SFlag::S_IFREG => Ok(stat.st_size == 0),
        _ => Ok(false),
    }
}
