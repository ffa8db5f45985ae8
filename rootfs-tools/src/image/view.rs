//! A stack of unpacked layers, seen as one tree, without mounting it.
//!
//! The rules are overlayfs's: the topmost layer that has a name wins, a whiteout ends the search,
//! a directory is the union of all directories of that name down to the first opaque one. It
//! serves for what must be known of an image before it runs (the users in its `/etc/passwd`).

use crate::error::{Context, Error, Result};
use crate::layer::attributes::is_opaque;
use crate::layer::name::Name;
use crate::layer::scan;
use crate::layer::target::{is_whiteout, path};
use crate::layer::whiteout::Form;
use linux::path::open_at;
use linux::{Errno, OFlag, entry, metadata};
use nix::sys::stat::{FileStat, SFlag};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

/// As many links as the kernel follows in one path (path_resolution(7)).
const MOST_LINKS: u32 = 40;

/// Layers, the topmost first.
#[derive(Debug)]
pub struct View {
    layers: Vec<Arc<OwnedFd>>,
    form: Form,
}

/// A file of the tree, in the layer that it comes from.
#[derive(Debug)]
pub struct Found {
    directory: Arc<OwnedFd>,
    last: Vec<u8>,
    /// What it is.
    pub stat: FileStat,
}

impl Found {
    /// Its type.
    pub fn kind(&self) -> SFlag {
        scan::kind_of(&self.stat)
    }

    /// Opens it. A link is not followed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open(&self, flags: OFlag) -> Result<OwnedFd> {
        Ok(open_at(self.directory.as_fd(), path(&self.last), flags | OFlag::O_NOFOLLOW)?)
    }
}

impl View {
    /// Opens a stack of layers, the topmost first.
    ///
    /// # Errors
    /// When a layer is not there.
    pub fn open(layers: &[impl AsRef<Path>], form: Form) -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let open = |layer: &Path| linux::path::open(layer, flags).map(Arc::new);
        let layers =
            layers.iter().map(|layer| open(layer.as_ref())).collect::<linux::Result<_>>()?;
        Ok(Self { layers, form })
    }

    /// Looks a name up. Links are not followed.
    ///
    /// # Errors
    /// When the kernel refuses; not when there is no such name.
    pub fn find(&self, name: &Name) -> Result<Option<Found>> {
        let mut directories = self.layers.clone();
        let (parents, last) = name.split();
        for part in parents.split(|&byte| byte == b'/').filter(|part| !part.is_empty()) {
            directories = self.enter(&directories, part)?;
        }
        let last = if last.is_empty() { b"." } else { last };
        for directory in directories {
            let stat = match metadata::stat_at(directory.as_fd(), path(last)) {
                Err(error) if error.errno == Errno::ENOENT => continue,
                result => result?,
            };
            let found = Found { directory, last: last.to_vec(), stat };
            return Ok(Some(found).filter(|found| !is_whiteout(&found.stat)));
        }
        Ok(None)
    }

    /// The directories that the directory `part` consists of. None, when it is not a directory.
    fn enter(&self, directories: &[Arc<OwnedFd>], part: &[u8]) -> Result<Vec<Arc<OwnedFd>>> {
        let mut entered = Vec::new();
        for directory in directories {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
            match open_at(directory.as_fd(), path(part), flags) {
                Ok(next) => {
                    let opaque = is_opaque(next.as_fd(), self.form)?;
                    entered.push(Arc::new(next));
                    if opaque {
                        break;
                    }
                }
                Err(error) if error.errno == Errno::ENOENT => {}
                Err(error) if matches!(error.errno, Errno::ENOTDIR | Errno::ELOOP) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(entered)
    }

    /// The names in a directory, sorted; none, when it is not a directory.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn names(&self, directory: &Name) -> Result<Vec<Vec<u8>>> {
        let mut directories = self.layers.clone();
        for part in directory.as_bytes().split(|&byte| byte == b'/').filter(|part| !part.is_empty())
        {
            directories = self.enter(&directories, part)?;
        }
        let mut names = BTreeMap::new();
        for layer in &directories {
            for name in entry::names(layer.as_fd())? {
                // The topmost layer that has a name decides about it.
                if let Entry::Vacant(free) = names.entry(name.into_vec()) {
                    let stat = metadata::stat_at(layer.as_fd(), path(free.key()))?;
                    free.insert(!is_whiteout(&stat));
                }
            }
        }
        Ok(names.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect())
    }

    /// Reads a small file, following links inside the tree. `None` when there is none.
    ///
    /// # Errors
    /// When it is not a regular file, or is larger than `limit` bytes, or its links go in circles.
    pub fn read(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let step = || format!("read `{file}` of the image");
        let Some(found) = self.resolve(file.as_bytes()).context(step)? else { return Ok(None) };
        if found.kind() != SFlag::S_IFREG {
            return Err(Error::Invalid("it is not a regular file".into())).context(step);
        }
        let opened = File::from(found.open(OFlag::O_RDONLY).context(step)?);
        let mut bytes = Vec::new();
        opened.take(limit + 1).read_to_end(&mut bytes).context(step)?;
        if bytes.len() as u64 > limit {
            return Err(Error::Invalid(format!("it is larger than {limit} bytes"))).context(step);
        }
        Ok(Some(bytes))
    }

    /// Looks a path up as a process in the container would: links are followed, `..` ends at the
    /// root.
    ///
    /// # Errors
    /// When the kernel refuses, or links go in circles.
    pub fn resolve(&self, file: &[u8]) -> Result<Option<Found>> {
        let mut waiting: Vec<Vec<u8>> = parts(file).rev().map(<[u8]>::to_vec).collect();
        let mut walked: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(part) = waiting.pop() {
            if part == b".." {
                walked.pop();
                continue;
            }
            walked.push(part);
            let Some(here) = self.find(&Name::new(&walked.join(&b'/'))?)? else { return Ok(None) };
            if here.kind() == SFlag::S_IFLNK {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::ELOOP.into());
                }
                let to = nix::fcntl::readlinkat(&here.open(OFlag::O_PATH)?, "")?;
                walked.pop();
                if to.as_bytes().starts_with(b"/") {
                    walked.clear();
                }
                waiting.extend(parts(to.as_bytes()).rev().map(<[u8]>::to_vec));
            } else if here.kind() != SFlag::S_IFDIR && !waiting.is_empty() {
                return Ok(None);
            }
        }
        self.find(&Name::new(&walked.join(&b'/'))?)
    }
}

fn parts(file: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    file.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn text(view: &View, file: &str) -> Option<String> {
        view.read(file, 100).unwrap().map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn the_stack_is_seen_as_overlayfs_would_show_it() {
        let temporary = tempfile::tempdir().unwrap();
        let [top, low] = ["top", "low"].map(|name| temporary.path().join(name));
        let below = [("etc/a", "low a"), ("etc/b", "low b"), ("etc/c", "low c"), ("opt/x", "x")];
        for (file, content) in below {
            fs::create_dir_all(low.join(file).parent().unwrap()).unwrap();
            fs::write(low.join(file), content).unwrap();
        }
        fs::create_dir_all(top.join("etc")).unwrap();
        fs::create_dir_all(top.join("opt")).unwrap();
        fs::write(top.join("etc/a"), "top a").unwrap();
        symlink("/../etc/a", top.join("etc/link")).unwrap();
        symlink("loop", top.join("etc/loop")).unwrap();
        nix::sys::stat::mknod(&top.join("etc/b"), SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
        let form = Form::User;
        let opaque = File::open(top.join("opt")).unwrap();
        linux::xattr::set(opaque.as_fd(), form.opaque_attribute(), b"y").unwrap();

        let view = View::open(&[&top, &low], form).unwrap();
        assert_eq!(text(&view, "/etc/a").as_deref(), Some("top a"));
        assert_eq!(text(&view, "/etc/b"), None, "deleted");
        assert_eq!(text(&view, "/etc/c").as_deref(), Some("low c"));
        assert_eq!(text(&view, "/opt/x"), None, "hidden");
        assert_eq!(text(&view, "/etc/link").as_deref(), Some("top a"));
        assert_eq!(text(&view, "/etc/a/b"), None, "below a file");
        assert_eq!(text(&view, "/opt/../etc/c").as_deref(), Some("low c"));
        assert!(view.read("/etc/loop", 100).is_err());
        assert!(view.read("/etc", 100).is_err());
        assert!(view.read("/etc/a", 2).is_err());
    }
}
