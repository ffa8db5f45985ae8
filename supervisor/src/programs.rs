//! The programs that minisup starts: the OCI runtime, and rootfs-tools for images.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The OCI runtime: as given, or `minirun` beside this program, or found in PATH.
///
/// # Errors
/// There is none.
pub(crate) fn runtime(given: Option<&Path>) -> Result<PathBuf> {
    let found = match given {
        Some(path) if path.components().count() > 1 => Some(path.to_path_buf()),
        Some(name) => in_path(name),
        None => beside("minirun"),
    };
    let found = found.filter(|file| file.is_file());
    let found = found.context("there is no OCI runtime; name one with --runtime")?;
    Ok(found.canonicalize()?)
}

/// A program of this project: beside this program, or in PATH.
pub(crate) fn beside(name: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(name));
    beside.filter(|file| file.is_file()).or_else(|| in_path(Path::new(name)))
}

/// Whether a process runs the same file as this one; `None` if that cannot be seen.
pub(crate) fn is_this(process: u32) -> Option<bool> {
    let file = |path: &str| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    };
    Some(file(&format!("/proc/{process}/exe"))? == file("/proc/self/exe")?)
}

fn in_path(name: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}
