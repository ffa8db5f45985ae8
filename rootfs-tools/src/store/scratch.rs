//! Places for what is half made: a directory each, or a file, removed with its maker.

use crate::error::{Context, Error, Result};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A directory under `tmp/` that is removed when it is dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(tmp: &Path) -> Result<Self> {
        let (path, ()) = unique(tmp, |path| fs::create_dir(path))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    /// What cannot be removed now is removed by the next process that finds itself alone.
    fn drop(&mut self) {
        drop(remove(&self.0));
    }
}

/// A file under `tmp/` that is removed when it is dropped, unless it got its place. One file costs
/// a third of a directory with a file in it, and a container's start waits for one.
#[derive(Debug)]
pub(super) struct ScratchFile {
    path: PathBuf,
    /// Open for writing.
    pub(super) file: File,
    placed: bool,
}

impl ScratchFile {
    /// Makes an empty one.
    pub(super) fn new(tmp: &Path) -> Result<Self> {
        let (path, file) = unique(tmp, |path| File::create_new(path))?;
        Ok(Self { path, file, placed: false })
    }

    /// Renames it to its place, in the same file system.
    pub(super) fn place(mut self, target: &Path) -> Result<()> {
        fs::rename(&self.path, target)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for ScratchFile {
    /// As with directories: what stays is removed by the next process that finds itself alone.
    fn drop(&mut self) {
        if !self.placed {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Makes something with a name in `tmp` that nobody else has.
fn unique<T>(tmp: &Path, make: impl Fn(&Path) -> std::io::Result<T>) -> Result<(PathBuf, T)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = tmp.join(format!("{}-{count}", std::process::id()));
        match make(&path) {
            Ok(made) => return Ok((path, made)),
            // Processes in different pid namespaces can have the same number.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).context(|| format!("make {}", path.display())),
        }
    }
}

/// Removes everything in `tmp`. The caller holds the store's lock alone.
///
/// # Errors
/// When something cannot be removed.
pub(super) fn clear(tmp: &Path) -> Result<()> {
    for entry in fs::read_dir(tmp)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes a tree. A layer may have directories that its owner cannot enter, when the owner is not
/// root; then these are opened first.
///
/// # Errors
/// When something cannot be removed.
pub(crate) fn remove(tree: &Path) -> Result<()> {
    match fs::remove_dir_all(tree) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            open_directories(tree)?;
            fs::remove_dir_all(tree).context(|| format!("remove {}", tree.display()))
        }
        result => result.context(|| format!("remove {}", tree.display())),
    }
}

fn open_directories(tree: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut waiting = vec![tree.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).map_err(Error::from)?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(())
}
