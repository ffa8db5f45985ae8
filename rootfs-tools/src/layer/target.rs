//! The directory that a layer is written to, and the only code that writes there.
//!
//! # What the kernel offers
//! openat2(2) with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`: a path is resolved below a directory
//! descriptor, and a `..`, an absolute path or any link on the way is an error.
//!
//! # What we do
//! The directory that an entry goes into is opened under those rules (and remembered: most
//! entries follow a sibling). The entry itself is made with an `…at` call on one component, which
//! never follows a link, and never over something that exists.
//!
//! # What goes wrong without it
//! An archive with a link `x → /etc` and then a file `x/passwd` writes to the host's `/etc`. The
//! unpackers of docker (CVE-2014-9357), umoci (CVE-2021-29136), tar-rs (CVE-2026-33055) and a
//! dozen others have had it.

use super::limits::Limits;
use super::name::Name;
use super::whiteout::Form;
use crate::error::{Context, Error, Result};
use linux::path::{create_at, make_dir_at, open_at, open_how};
use linux::{Errno, OFlag, entry, metadata, xattr};
use nix::fcntl::ResolveFlag;
use nix::sys::stat::SFlag;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

/// Directories are passable for us while their layer is written; their own modes come last.
const PASSABLE: u32 = 0o700;

/// A directory tree in the making.
#[derive(Debug)]
pub struct Target {
    root: Arc<OwnedFd>,
    form: Form,
    limits: Limits,
    /// The directory of the last entry, which most often is that of the next one.
    parent: Option<(Vec<u8>, Arc<OwnedFd>)>,
    /// Directories that were made only because something is in them.
    implicit: BTreeSet<Name>,
    /// How many directories were ever made that way. They cost inodes like any entry.
    made: u64,
    /// Whether something that had been written was written again, or removed.
    rewritten: bool,
}

/// What stood where an entry is about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Former {
    Nothing,
    Whiteout,
    Other,
}

impl Target {
    /// A target that is an open, empty directory.
    pub fn new(root: OwnedFd, form: Form, limits: Limits) -> Self {
        Self {
            root: Arc::new(root),
            form,
            limits,
            parent: None,
            implicit: BTreeSet::new(),
            made: 0,
            rewritten: false,
        }
    }

    /// The root of the tree.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The family of overlayfs attributes that the tree is written in.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Directories that the archive does not describe, sorted.
    pub fn implicit(&self) -> &BTreeSet<Name> {
        &self.implicit
    }

    /// Whether a listing of the entries in their order is not what is on disk.
    pub fn is_rewritten(&self) -> bool {
        self.rewritten
    }

    /// Makes a regular file and opens it for writing. It has the permission bits `mode`, as far as
    /// the umask lets it have them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn file(&mut self, name: &Name, mode: u32) -> Result<OwnedFd> {
        let (parent, last) = self.place(name)?;
        match create_at(parent.as_fd(), path(last), mode) {
            Err(error) if error.errno == Errno::EEXIST => {
                self.clear(&parent, name)?;
                Ok(create_at(parent.as_fd(), path(last), mode)?)
            }
            result => Ok(result?),
        }
    }

    /// Makes a directory, unless it is there already, and opens it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn directory(&mut self, name: &Name) -> Result<OwnedFd> {
        if name.is_root() {
            return self.open(name, OFlag::O_RDONLY | OFlag::O_DIRECTORY);
        }
        let (parent, last) = self.place(name)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let mut former = Former::Nothing;
        match make_dir_at(parent.as_fd(), path(last), PASSABLE) {
            Err(error) if error.errno == Errno::EEXIST => {
                if let Ok(existing) = open_at(parent.as_fd(), path(last), flags) {
                    self.rewritten |= !self.implicit.remove(name);
                    return Ok(existing);
                }
                former = self.clear(&parent, name)?;
                make_dir_at(parent.as_fd(), path(last), PASSABLE)?;
            }
            result => result?,
        }
        let directory = open_at(parent.as_fd(), path(last), flags)?;
        if former == Former::Whiteout {
            self.make_opaque(directory.as_fd())?;
        }
        Ok(directory)
    }

    /// Makes a symbolic link; its target is text, and nobody looks at it here.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn symlink(&mut self, name: &Name, to: &[u8]) -> Result<Place> {
        self.make(name, |parent, last| linux::path::symlink_at(path(to), parent, last))
    }

    /// Gives a file of this tree one more name. `None` when the tree has no such file: it may be
    /// in a layer below.
    ///
    /// # Errors
    /// When the kernel refuses: also for a directory, which has one name only.
    pub fn hard_link(&mut self, name: &Name, to: &Name) -> Result<Option<Place>> {
        let (directory, file) = to.split();
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let directory = match self.open(&Name::joined(directory, b""), flags) {
            Ok(directory) => directory,
            Err(Error::Kernel(error)) if error.errno == Errno::ENOENT => return Ok(None),
            Err(error) => return Err(error),
        };
        match metadata::stat_at(directory.as_fd(), path(file)) {
            Err(error) if error.errno == Errno::ENOENT => return Ok(None),
            Ok(stat) if is_whiteout(&stat) => {
                return Err(Error::Invalid(
                    "it is a hard link to a file that this layer deletes".into(),
                ));
            }
            result => result?,
        };
        let link = |parent: BorrowedFd<'_>, last: &Path| {
            entry::link_at(directory.as_fd(), path(file), parent, last)
        };
        if name == to {
            return Err(Error::Invalid("it is a hard link to itself".into()));
        }
        self.make(name, link).map(Some)
    }

    /// Makes a named pipe.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn fifo(&mut self, name: &Name) -> Result<Place> {
        self.make(name, |parent, last| linux::path::make_fifo_at(parent, last, 0o600))
    }

    /// Makes a device node.
    ///
    /// # Errors
    /// When the kernel refuses, and for the character device 0:0, which is a whiteout on disk and
    /// comes as `.wh.` in an archive.
    pub fn device(&mut self, name: &Name, kind: SFlag, number: (u32, u32)) -> Result<Place> {
        if kind == SFlag::S_IFCHR && number == (0, 0) {
            return Err(Error::Invalid(
                "it is the character device 0:0, which stands for a deleted file".into(),
            ));
        }
        self.make(name, |parent, last| entry::make_device_at(parent, last, kind, number))
    }

    /// Deletes what the layers below have under this name. What this layer itself has stays, for
    /// a whiteout is about the layers below only; a directory hides theirs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete(&mut self, name: &Name) -> Result<()> {
        let (parent, last) = self.place(name)?;
        match entry::make_device_at(parent.as_fd(), path(last), SFlag::S_IFCHR, (0, 0)) {
            Err(error) if error.errno == Errno::EEXIST => {
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
                if let Ok(directory) = open_at(parent.as_fd(), path(last), flags) {
                    self.rewritten = true;
                    self.make_opaque(directory.as_fd())?;
                }
                Ok(())
            }
            result => Ok(result?),
        }
    }

    /// Hides what the layers below have in this directory.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn hide_below(&mut self, name: &Name) -> Result<()> {
        let absent = self.open(name, OFlag::O_PATH | OFlag::O_DIRECTORY).is_err();
        if absent {
            self.place(&Name::joined(name.as_bytes(), b"x"))?;
        } else {
            self.rewritten |= !self.implicit.contains(name);
        }
        let directory = self.open(name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        self.make_opaque(directory.as_fd())
    }

    /// Opens a file of the tree by the rules of the module.
    ///
    /// # Errors
    /// When there is none, or the way to it leads over a link.
    pub fn open(&self, name: &Name, flags: OFlag) -> Result<OwnedFd> {
        let bytes = if name.is_root() { b"." } else { name.as_bytes() };
        Ok(open_how(self.root.as_fd(), path(bytes), flags | OFlag::O_NOFOLLOW, rules())?)
    }

    fn make(
        &mut self,
        name: &Name,
        call: impl Fn(BorrowedFd<'_>, &Path) -> linux::Result<()>,
    ) -> Result<Place> {
        let (parent, last) = self.place(name)?;
        match call(parent.as_fd(), path(last)) {
            Err(error) if error.errno == Errno::EEXIST => {
                self.clear(&parent, name)?;
                call(parent.as_fd(), path(last))?;
            }
            result => result?,
        }
        Ok(Place { parent, name: last.to_vec() })
    }

    /// The open directory that `name` goes into, made where it is missing, and the last component.
    fn place<'name>(&mut self, name: &'name Name) -> Result<(Arc<OwnedFd>, &'name [u8])> {
        let (directory, last) = name.split();
        if last.is_empty() {
            return Err(Error::Invalid("the root of a layer is a directory".into()));
        }
        if let Some((open, fd)) = &self.parent
            && open == directory
        {
            return Ok((fd.clone(), last));
        }
        let wanted = Name::joined(directory, b"");
        let fd = match self.open(&wanted, OFlag::O_PATH | OFlag::O_DIRECTORY) {
            Ok(fd) => fd,
            Err(error) if is_absent(&error) => self.make_parents(&wanted)?,
            Err(error) => return Err(error),
        };
        let fd = Arc::new(fd);
        self.parent = Some((directory.to_vec(), fd.clone()));
        Ok((fd, last))
    }

    /// Makes the directories that an archive does not describe.
    fn make_parents(&mut self, directory: &Name) -> Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let mut at = open_at(self.root.as_fd(), Path::new("."), flags)?;
        let mut so_far = Name::joined(b"", b"");
        for part in directory.as_bytes().split(|&byte| byte == b'/') {
            so_far = Name::joined(so_far.as_bytes(), part);
            let next = open_at(at.as_fd(), path(part), flags);
            at = match next {
                Ok(next) => next,
                Err(error)
                    if matches!(error.errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) =>
                {
                    self.made += 1;
                    self.limits.check_entries(self.made)?;
                    self.make_parent(at.as_fd(), &so_far, part)
                        .context(|| format!("directory `{so_far}` on the way to it"))?
                }
                Err(error) => return Err(error.into()),
            };
        }
        Ok(at)
    }

    fn make_parent(&mut self, at: BorrowedFd<'_>, name: &Name, last: &[u8]) -> Result<OwnedFd> {
        let mut opaque = false;
        if let Ok(stat) = metadata::stat_at(at, path(last)) {
            if !is_whiteout(&stat) {
                return Err(Error::Invalid(
                    "it is a link or a file, and nothing is written through it".into(),
                ));
            }
            linux::path::unlink_at(at, path(last))?;
            self.rewritten = true;
            opaque = true;
        }
        make_dir_at(at, path(last), PASSABLE)?;
        self.implicit.insert(name.clone());
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let made = open_at(at, path(last), flags)?;
        if opaque {
            self.make_opaque(made.as_fd())?;
        }
        Ok(made)
    }

    /// Removes what an earlier entry of the same archive made here: the last one counts.
    fn clear(&mut self, parent: &OwnedFd, name: &Name) -> Result<Former> {
        let (_, last) = name.split();
        let stat = match metadata::stat_at(parent.as_fd(), path(last)) {
            Err(error) if error.errno == Errno::ENOENT => return Ok(Former::Nothing),
            result => result?,
        };
        self.rewritten = true;
        if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) != SFlag::S_IFDIR {
            linux::path::unlink_at(parent.as_fd(), path(last))?;
            return Ok(if is_whiteout(&stat) { Former::Whiteout } else { Former::Other });
        }
        // The standard library removes trees by descriptors and follows no link; the directory
        // itself is named through ours.
        let tree = Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(path(last));
        std::fs::remove_dir_all(tree).context(|| "replace a directory".into())?;
        let below = [name.as_bytes(), b"/"].concat();
        self.implicit.retain(|other| other != name && !other.as_bytes().starts_with(&below));
        self.parent = None;
        Ok(Former::Other)
    }

    fn make_opaque(&self, directory: BorrowedFd<'_>) -> Result<()> {
        Ok(xattr::set(directory, self.form.opaque_attribute(), b"y")?)
    }
}

/// Where something was made: a directory and a name in it, for what cannot be opened.
#[derive(Debug)]
pub struct Place {
    parent: Arc<OwnedFd>,
    name: Vec<u8>,
}

impl Place {
    /// The directory.
    pub fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    /// Sets its permission bits. Not for a link, which has none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_mode(&self, mode: u32) -> Result<()> {
        // fchmodat(2) follows links on kernels before 6.6, and fchmod(2) refuses an O_PATH
        // descriptor; what /proc has for that descriptor is the node itself.
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
        let node = open_at(self.parent.as_fd(), self.name(), flags)?;
        let permissions = std::fs::Permissions::from_mode(mode);
        let itself = Path::new("/proc/self/fd").join(node.as_raw_fd().to_string());
        std::fs::set_permissions(itself, permissions).context(|| "chmod".into())
    }

    /// The name in it.
    pub fn name(&self) -> &Path {
        path(&self.name)
    }
}

/// How every path of a tree is resolved.
pub(super) fn rules() -> ResolveFlag {
    ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS
        | ResolveFlag::RESOLVE_NO_XDEV
}

/// Bytes as a path.
pub(crate) fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Whether the file is overlayfs's mark for a deletion.
pub(crate) fn is_whiteout(stat: &nix::sys::stat::FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits() && stat.st_rdev == 0
}

/// Whether the error means that a path, or a part of it, is not there (or is no directory).
fn is_absent(error: &Error) -> bool {
    matches!(error, Error::Kernel(error)
        if matches!(error.errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP))
}
