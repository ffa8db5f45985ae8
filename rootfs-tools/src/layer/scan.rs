//! What a file on disk is, in the words of the record: the other side of every comparison.

use super::attributes;
use super::listing::{Line, Recorder};
use super::name::Name;
use super::target::{is_whiteout, path, rules};
use super::whiteout::Form;
use crate::digest::Digesting;
use crate::error::{Context, Error, Result};
use linux::path::{open_at, open_how};
use linux::{OFlag, entry, fd, metadata};
use nix::sys::stat::{FileStat, SFlag};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// The numbers by which the kernel knows a file, whatever its names.
pub type Inode = (u64, u64);

/// Opens a file of a tree for reading, by the rules of [`super::target`].
///
/// # Errors
/// When there is none, or the way to it leads over a link.
pub fn open(root: BorrowedFd<'_>, name: &Name, flags: OFlag) -> Result<OwnedFd> {
    let bytes = if name.is_root() { b"." } else { name.as_bytes() };
    Ok(open_how(root, path(bytes), flags | OFlag::O_NOFOLLOW, rules())?)
}

/// The inode of a file that has more than one name.
pub fn shared_inode(stat: &FileStat) -> Option<Inode> {
    (stat.st_nlink > 1 && kind_of(stat) != SFlag::S_IFDIR).then_some((stat.st_dev, stat.st_ino))
}

/// The type of a file.
pub fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// When a file's content last changed.
pub fn mtime(stat: &FileStat) -> (i64, u32) {
    (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or_default())
}

/// Describes one file, reading its content; and says whether it is an opaque directory.
///
/// # Errors
/// When it cannot be read, or is a socket, which no layer has.
pub fn describe(root: BorrowedFd<'_>, name: &Name, form: Form) -> Result<(Line, FileStat, bool)> {
    describe_by(root, name, form, digest_of)
}

/// The sha256 of a file's content, in hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub fn digest_of(file: &File) -> Result<String> {
    let mut content = Digesting::new(file);
    io::copy(&mut content, &mut io::sink())?;
    Ok(content.finish().1.hex())
}

/// The same, where `digest` knows the sha256 of a file's content.
///
/// # Errors
/// As for [`describe`], and those of `digest`.
pub fn describe_by(
    root: BorrowedFd<'_>,
    name: &Name,
    form: Form,
    digest: impl FnOnce(&File) -> Result<String>,
) -> Result<(Line, FileStat, bool)> {
    let seen = open(root, name, OFlag::O_PATH)?;
    let stat = fd::stat(&seen)?;
    let mode = stat.st_mode & 0o7777;
    let owned = |line: Line| line.owned(mode, stat.st_uid, stat.st_gid, mtime(&stat));
    let device = |line: Line| {
        let (major, minor) = (nix::libc::major(stat.st_rdev), nix::libc::minor(stat.st_rdev));
        line.with("device", format_args!("{major},{minor}"))
    };
    let mut opaque = false;
    let line = match kind_of(&stat) {
        SFlag::S_IFREG => {
            let file = File::from(open(root, name, OFlag::O_RDONLY)?);
            let attributes = attributes::get(file.as_fd())?;
            let line = owned(Line::new(name, "file")).with("size", stat.st_size);
            with_all(line.with("sha256digest", digest(&file)?), &attributes)
        }
        SFlag::S_IFDIR => {
            let directory = open(root, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
            opaque = attributes::is_opaque(directory.as_fd(), form)?;
            with_all(owned(Line::new(name, "dir")), &attributes::get(directory.as_fd())?)
        }
        SFlag::S_IFLNK => {
            let target = nix::fcntl::readlinkat(&seen, "")?;
            let line = Line::new(name, "link").owned(0o777, stat.st_uid, stat.st_gid, mtime(&stat));
            line.with_bytes("link", target.as_bytes())
        }
        SFlag::S_IFCHR if is_whiteout(&stat) => Line::new(name, "whiteout"),
        SFlag::S_IFCHR => device(owned(Line::new(name, "char"))),
        SFlag::S_IFBLK => device(owned(Line::new(name, "block"))),
        SFlag::S_IFIFO => owned(Line::new(name, "fifo")),
        _ => return Err(Error::Unsupported("a socket cannot be part of a layer".into())),
    };
    Ok((line, stat, opaque))
}

/// Adds attributes to a line.
pub fn with_all(line: Line, attributes: &[(Vec<u8>, Vec<u8>)]) -> Line {
    attributes.iter().fold(line, |line, (name, value)| line.with_xattr(name, value))
}

/// Records a whole tree as it is on disk, in the order of its paths.
///
/// # Errors
/// When something cannot be read.
pub fn record<W: Write>(
    root: BorrowedFd<'_>,
    form: Form,
    recorder: &mut Recorder<W>,
) -> Result<()> {
    let mut known = BTreeMap::<Inode, Name>::new();
    let mut waiting = vec![Name::new(b".")?];
    while let Some(name) = waiting.pop() {
        let (line, stat, opaque) =
            describe(root, &name, form).context(|| format!("entry `{name}`"))?;
        if let Some(inode) = shared_inode(&stat) {
            if let Some(first) = known.get(&inode) {
                recorder.add(&hard_link(&name, first))?;
                continue;
            }
            known.insert(inode, name.clone());
        }
        recorder.add(&line)?;
        if opaque {
            recorder.add(&Line::new(&name, "opaque"))?;
        }
        if kind_of(&stat) == SFlag::S_IFDIR {
            let directory =
                open_at(root, path(not_empty(&name)), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
            for entry in entry::names(directory.as_fd())?.iter().rev() {
                waiting.push(Name::joined(name.as_bytes(), entry.as_bytes()));
            }
        }
    }
    Ok(())
}

/// The line about one more name of a file.
pub fn hard_link(name: &Name, first: &Name) -> Line {
    Line::new(name, "hardlink").with_bytes("to", first.as_bytes())
}

fn not_empty(name: &Name) -> &[u8] {
    if name.is_root() { b"." } else { name.as_bytes() }
}

/// The time and mode that the record gives a directory, for when its content is complete.
///
/// # Errors
/// When the kernel refuses.
pub fn finish_directory(
    root: BorrowedFd<'_>,
    name: &Name,
    mode: u32,
    time: (i64, u32),
) -> Result<()> {
    let directory = open(root, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    metadata::set_mode(directory.as_fd(), mode)?;
    Ok(metadata::set_times(directory.as_fd(), time)?)
}
