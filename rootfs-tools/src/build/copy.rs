//! COPY: files of one tree become a layer on another.

use super::ignore::Ignore;
use super::pattern::component;
use crate::error::{Context, Error, Result};
use crate::image::view::{Found, View};
use crate::layer::attributes;
use crate::layer::name::{Name, show};
use crate::layer::writer::{Exactly, LayerWriter};
use linux::OFlag;
use nix::sys::stat::SFlag;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use tar::EntryType;

/// Where the files come from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'tree> {
    /// The tree.
    pub view: &'tree View,
    /// What of it does not exist.
    pub ignore: &'tree Ignore,
}

/// How the copies differ from their originals.
#[derive(Debug, Clone, Copy)]
pub struct Changes {
    /// Whose they are, when not those of the original's owner.
    pub owner: Option<(u32, u32)>,
    /// Their permission bits, when not those of the original.
    pub mode: Option<u32>,
    /// No copy is newer than this.
    pub newest: Option<i64>,
}

/// One file or tree that is copied.
#[derive(Debug)]
pub struct Item<'tree> {
    /// Where it is.
    pub source: Source<'tree>,
    /// What it is called there.
    pub name: Name,
    /// How the copy differs.
    pub changes: Changes,
}

/// Where the copies go.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The path in the image.
    pub path: &'a str,
    /// Whether the image has a directory there.
    pub is_directory: bool,
    /// How many sources the instruction names.
    pub sources: usize,
}

/// Writes a layer with the copies of all items. The target is a directory when it ends with a
/// slash, is one in the image, or gets more than one source.
///
/// # Errors
/// When something cannot be copied.
pub fn copy(items: &[Item<'_>], target: Target<'_>, output: &mut dyn Write) -> Result<()> {
    let mut writer = LayerWriter::new(output);
    let to_directory = target.is_directory || target.path.ends_with('/');
    if target.sources > 1 && !to_directory {
        return Err(Error::Invalid(
            "with several sources the target is a directory: it ends with a `/`".into(),
        ));
    }
    let many = items.len() > 1 || to_directory;
    let base = Name::new(target.path.trim_start_matches('/').as_bytes())?;
    for Item { source, name, changes } in items {
        let Some(file) = source.view.find(name)? else { continue };
        let is_tree = file.kind() == SFlag::S_IFDIR;
        // A directory gives what is in it, anything else itself.
        let to = match is_tree || !many {
            true => base.clone(),
            false => Name::joined(base.as_bytes(), name.split().1),
        };
        source.add(&mut writer, name.clone(), to, *changes)?;
    }
    writer.finish()
}

/// A name as a path below a directory.
pub(super) fn as_path(name: &Name) -> &std::path::Path {
    crate::layer::target::path(name.as_bytes())
}

impl Source<'_> {
    /// The names that match a pattern, sorted.
    ///
    /// # Errors
    /// When nothing matches.
    pub fn find(&self, pattern: &str) -> Result<Vec<Name>> {
        let matches = self.glob(pattern)?;
        if matches.is_empty() {
            return Err(Error::Invalid(format!(
                "there is no `{pattern}` to copy (.dockerignore may hide it)"
            )));
        }
        Ok(matches)
    }

    fn glob(&self, pattern: &str) -> Result<Vec<Name>> {
        let plain = Name::new(pattern.trim_start_matches('/').as_bytes())?;
        let mut names = vec![Name::new(b".")?];
        for part in plain.as_bytes().split(|&byte| byte == b'/').filter(|part| !part.is_empty()) {
            let mut next = Vec::new();
            for directory in &names {
                for name in self.view.names(directory)? {
                    if component(part, &name) {
                        next.push(Name::joined(directory.as_bytes(), &name));
                    }
                }
            }
            names = next;
        }
        // What is hidden may hold something that is not, so a directory is looked into.
        names.retain(|name| name.is_root() || !self.ignore.hides(name.as_bytes()));
        Ok(names)
    }

    fn add<W: Write>(
        &self,
        writer: &mut LayerWriter<W>,
        name: Name,
        to: Name,
        changes: Changes,
    ) -> Result<()> {
        let mut waiting = vec![(name, to)];
        while let Some((name, to)) = waiting.pop() {
            let Some(found) = self.view.find(&name)? else { continue };
            let hidden = !name.is_root() && self.ignore.hides(name.as_bytes());
            if !hidden {
                write(writer, &to, &found, changes)
                    .context(|| format!("copy `{}`", show(name.as_bytes())))?;
            }
            if found.kind() == SFlag::S_IFDIR {
                for last in self.view.names(&name)?.into_iter().rev() {
                    let deeper = Name::joined(name.as_bytes(), &last);
                    waiting.push((deeper, Name::joined(to.as_bytes(), &last)));
                }
            }
        }
        Ok(())
    }
}

fn write<W: Write>(
    writer: &mut LayerWriter<W>,
    to: &Name,
    found: &Found,
    changes: Changes,
) -> Result<()> {
    let stat = &found.stat;
    let kind = match found.kind() {
        SFlag::S_IFREG => EntryType::Regular,
        SFlag::S_IFDIR => EntryType::Directory,
        SFlag::S_IFLNK => EntryType::Symlink,
        _ => return Err(Error::Unsupported("COPY copies files, directories and links".into())),
    };
    if to.is_root() && kind != EntryType::Directory {
        return Err(Error::Invalid("a file cannot take the place of the root directory".into()));
    }
    let seconds = changes.newest.map_or(stat.st_mtime, |newest| stat.st_mtime.min(newest));
    let mode = changes.mode.filter(|_| kind != EntryType::Symlink).unwrap_or(stat.st_mode);
    let owner = changes.owner.unwrap_or((stat.st_uid, stat.st_gid));
    let mut header = LayerWriter::<W>::header(kind, mode, owner, seconds);
    match kind {
        EntryType::Symlink => {
            let target = nix::fcntl::readlinkat(&found.open(OFlag::O_PATH)?, "")?;
            writer.write(to, &mut header, Some(target.as_bytes()), &[], std::io::empty())
        }
        EntryType::Regular => {
            let file = File::from(found.open(OFlag::O_RDONLY)?);
            let size = u64::try_from(stat.st_size).unwrap_or_default();
            header.set_size(size);
            let xattrs = attributes::get(file.as_fd())?;
            writer.write(to, &mut header, None, &xattrs, Exactly::new(file, size))
        }
        // The root of the image stays as it is when a directory is copied over it.
        _ if to.is_root() => Ok(()),
        _ => writer.write(to, &mut header, None, &[], std::io::empty()),
    }
}
