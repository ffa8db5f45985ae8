//! The programs that minisup starts: the OCI runtime, and rootfs-tools for images.

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

fn in_path(name: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}
