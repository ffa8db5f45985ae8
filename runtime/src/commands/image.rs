//! `minirun run IMAGE`: rootfs-tools makes the bundle, in the container's own state directory.
//!
//! The directory of the container is made and locked before the bundle is, so whatever dies, the
//! container has a name already, and `delete --force` removes it with all that is in it.
//! rootfs-tools holds the lock as well, as its standard input: nobody removes a directory that it
//! still writes to. It is a program of its own, because images need code that containers do not.
//! The second container of an image starts without it ([`ready`]).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::container::state::{Home, StateRoot};
use crate::error::{Error, Result};
use crate::ready;

/// An image that is to be run.
#[derive(Debug)]
pub(super) struct Image<'a> {
    /// Its name in the store, or an archive or a layout.
    pub(super) name: &'a str,
    /// Where rootfs-tools keeps images, when not in the usual place.
    pub(super) store: Option<&'a Path>,
    /// Arguments for the image's program.
    pub(super) command: &'a [String],
}

/// Whether a target of `run` that has no configuration is an image and not a directory that lacks
/// one: `web:v1`, `registry.example/web`, an archive, an OCI layout; but not `/absent`, `./absent`.
pub(super) fn is_image(target: &str) -> bool {
    let path = Path::new(target);
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            path.join("oci-layout").is_file() && !path.join("config.json").exists()
        }
        Ok(metadata) => metadata.is_file(),
        Err(_) => !target.starts_with(['/', '.']),
    }
}

/// The name for a container of an image: `registry.example/team/web:v1`, `web.tar.gz` give `web`.
pub(super) fn name_of(image: &str) -> &str {
    let last = image.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let end = |c| c == ':' || c == '@';
    let last = last.split(end).next().unwrap_or_default();
    [".gz", ".zst", ".tgz", ".tar", ".oci"]
        .iter()
        .fold(last, |name, suffix| name.strip_suffix(suffix).unwrap_or(name))
}

impl Image<'_> {
    /// Makes the state directory of the container `id`, and in it the bundle.
    pub(super) fn make_bundle(&self, root: &StateRoot, id: &str) -> Result<(Home, PathBuf)> {
        let home = root.make(id)?;
        let lock = home.lock_anew()?;
        let bundle = home.path().join("bundle");
        if ready::make_bundle(self.store, self.name, self.command, &bundle).is_some() {
            return Ok((home, bundle));
        }
        let program = program().inspect_err(|_| drop(home.remove()))?;
        let mut command = Command::new(&program);
        command.arg("bundle").arg("--ephemeral");
        if let Some(store) = self.store {
            command.arg("--store").arg(store);
        }
        command.arg(self.name).arg(&bundle).arg("--").args(self.command);
        // Its output is the container's; what it has to say to people goes to standard error.
        let status = lock
            .0
            .try_clone()
            .and_then(|lock| command.stdin(Stdio::from(lock)).stdout(Stdio::null()).status());
        let status = status.map_err(Error::file(format!("start {}", program.display())));
        match status {
            Ok(status) if status.success() => Ok((home, bundle)),
            failed => {
                drop(home.remove());
                let status = failed?;
                let name = self.name;
                Err(Error::Config(format!(
                    "run {name}: {} made no bundle of it ({status})",
                    program.display()
                )))
            }
        }
    }
}

/// The program rootfs-tools: what ROOTFS_TOOLS names, else the one beside this program, else the
/// one in PATH.
fn program() -> Result<PathBuf> {
    const NAME: &str = "rootfs-tools";
    if let Some(named) = std::env::var_os("ROOTFS_TOOLS").filter(|named| !named.is_empty()) {
        return Ok(named.into());
    }
    let search = std::env::var_os("PATH").unwrap_or_default();
    let in_path = |name: &Path| {
        let found = std::env::split_paths(&search).map(|directory| directory.join(name));
        found.into_iter().find(|file| file.is_file())
    };
    // This program runs from a copy of itself that has no path: the shell found it by this name.
    let me = PathBuf::from(std::env::args_os().next().unwrap_or_default());
    let me = if me.components().count() > 1 { Some(me) } else { in_path(&me) };
    let beside = me.map(|me| me.with_file_name(NAME)).filter(|file| file.is_file());
    beside.or_else(|| in_path(Path::new(NAME))).ok_or_else(|| {
        Error::Unsupported(
            "to run an image, the program rootfs-tools must be beside minirun or in PATH, or \
             ROOTFS_TOOLS must name it"
                .into(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_called_like_its_image() {
        for (image, name) in [
            ("web", "web"),
            ("registry.example:5000/team/web:v1", "web"),
            ("web@sha256:00", "web"),
            ("./images/web.tar.gz", "web"),
            ("layout/", "layout"),
        ] {
            assert_eq!(name_of(image), name, "{image}");
        }
    }

    #[test]
    fn a_path_that_is_not_there_is_no_image() {
        assert!(is_image("no-such-thing:v1") && is_image("registry.example/no-such-thing"));
        assert!(!is_image("/no/such/thing") && !is_image("./no-such-thing") && !is_image("/"));
    }
}
