//! Where everything is.
//!
//! ```text
//! /run/minisup/PROJECT/             gone after a reboot, like the containers
//!     lock                          held by whoever starts the keeper
//!     api.sock                      the brain's HTTP API
//!     plane.sock, plane.lock        the data plane's control socket; held by the data plane
//!     brain.lock, keeper.lock       held by brain and keeper
//!     keeper.log                    what keeper, brain and data plane complain about
//!     runtime/                      the OCI runtime's state (--root)
//!     runtime.exec-N                the process of a command in a container, while it runs
//!     bundles/INSTANCE/config.json  what a container was made from
//! /var/lib/minisup/PROJECT/         survives a reboot; gone after `down`
//!     history.db                    SQLite: events with their reasons, specifications
//!     stack.json                    what was asked for last; enough to start without history
//!     logs/INSTANCE.log             JSON lines: {"log","stream","time"}
//!     logs/INSTANCE.autopsy.json    what a dead instance used in its last minutes
//!     images/NAME-DIGEST/           bundles of images; they refer to layers of the image store
//!     key                           what the hashes in the names of secrets are keyed with
//!     volumes/SLOT/                 nameless volumes
//!     writable/INSTANCE/            what a container wrote over its image; gone with it
//! ```
//! /var/lib/minisup/volumes.d/NAME/  a named volume; stays after `down`
//! /var/lib/minisup/secrets.d/NAME   an external secret, put there by the host's administrator
//! /var/lib/minisup/configs.d/NAME   the same for configs
//! /run/minisup/PROJECT/secrets/     or /dev/shm/minisup-PROJECT, whichever is in memory
//!
//! `MINISUP_RUN_DIR` and `MINISUP_STATE_DIR` move the two roots (tests use it).

use std::fs::{File, Metadata, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

/// The longest path of a socket, in bytes, without the zero at its end.
const SOCKET: usize = 107;

/// The directories of one project.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// The project's name.
    pub(crate) project: String,
    run: PathBuf,
    state: PathBuf,
}

fn root(variable: &str, default: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| PathBuf::from(default), PathBuf::from)
}

/// A directory or socket, apart from another one of the same name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    inode: u64,
    made: Option<SystemTime>,
}

impl Place {
    fn of(path: &Path) -> Option<Place> {
        let found = std::fs::metadata(path).ok()?;
        Some(Place { inode: found.ino(), made: found.created().ok() })
    }
}

/// Whether the file still has that name. Who waited for the lock of a file may have been let in by
/// the end of its project.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let identity = |found: Metadata| (found.dev(), found.ino());
    let ours = file.metadata().map(identity).ok();
    ours.is_some() && ours == std::fs::metadata(path).map(identity).ok()
}

impl Layout {
    /// The places of a project.
    ///
    /// # Errors
    /// The name is not usable as a directory and cgroup name.
    pub(crate) fn of(project: &str) -> Result<Layout> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if project.is_empty() || !project.chars().all(plain) || project.starts_with('-') {
            bail!(
                "project name {project:?}: use lower-case letters, digits, - and _ \
                 (set it with --project)"
            );
        }
        let layout = Layout {
            project: project.to_string(),
            run: root("MINISUP_RUN_DIR", "/run/minisup").join(project),
            state: root("MINISUP_STATE_DIR", "/var/lib/minisup").join(project),
        };
        let (socket, length) = (layout.api(), layout.api().as_os_str().len());
        if length > SOCKET {
            bail!(
                "{} is {length} bytes long, and a socket's path at most {SOCKET} (unix(7)); use a \
                 shorter project name or MINISUP_RUN_DIR",
                socket.display()
            );
        }
        Ok(layout)
    }

    /// The names of the projects that have a run directory.
    pub(crate) fn projects() -> Vec<String> {
        let entries = std::fs::read_dir(root("MINISUP_RUN_DIR", "/run/minisup"));
        let mut names: Vec<String> = entries
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Makes the directories, readable only by us: specifications may hold secrets.
    pub(crate) fn make(&self) -> Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        for dir in [&self.run, &self.bundles(), &self.runtime(), &self.logs()] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .with_context(|| format!("cannot make the directory {}", dir.display()))?;
        }
        Ok(())
    }

    /// Whether there is anything of the project, whether it runs or not.
    pub(crate) fn exists(&self) -> bool {
        self.run.exists() || self.state.exists()
    }

    /// The directory of the project that runs; `None` when there is none.
    pub(crate) fn place(&self) -> Option<Place> {
        Place::of(&self.run)
    }

    /// The data plane's control socket, apart from that of another data plane.
    pub(crate) fn plane_place(&self) -> Option<Place> {
        Place::of(&self.plane())
    }

    /// Removes everything of a project that does not run any more.
    pub(crate) fn remove(&self) {
        // What cannot be removed is found again and reported by the next `up`.
        let _ = std::fs::remove_dir_all(self.secrets());
        let _ = std::fs::remove_dir_all(&self.state);
        let _ = std::fs::remove_dir_all(&self.run);
        for dir in [&self.state, &self.run] {
            // Only when it was the last project.
            let _ = dir.parent().map(std::fs::remove_dir);
        }
    }

    pub(crate) fn run(&self) -> &Path {
        &self.run
    }

    pub(crate) fn brain(&self) -> PathBuf {
        self.run.join("brain.lock")
    }

    pub(crate) fn keeper(&self) -> PathBuf {
        self.run.join("keeper.lock")
    }

    /// Whether a keeper or a brain of the project lives, whether it answers or not.
    pub(crate) fn is_supervised(&self) -> bool {
        let is_held = |file: &PathBuf| {
            let file = File::open(file);
            file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
        };
        [self.keeper(), self.brain()].iter().any(is_held)
    }

    pub(crate) fn api(&self) -> PathBuf {
        self.run.join("api.sock")
    }

    pub(crate) fn plane(&self) -> PathBuf {
        self.run.join("plane.sock")
    }

    pub(crate) fn plane_lock(&self) -> PathBuf {
        self.run.join("plane.lock")
    }

    pub(crate) fn complaints(&self) -> PathBuf {
        self.run.join("keeper.log")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.run.join("lock")
    }

    pub(crate) fn runtime(&self) -> PathBuf {
        self.run.join("runtime")
    }

    pub(crate) fn bundles(&self) -> PathBuf {
        self.run.join("bundles")
    }

    pub(crate) fn bundle(&self, instance: &str) -> PathBuf {
        self.bundles().join(instance)
    }

    pub(crate) fn history(&self) -> PathBuf {
        self.state.join("history.db")
    }

    pub(crate) fn stack(&self) -> PathBuf {
        self.state.join("stack.json")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    pub(crate) fn log(&self, instance: &str) -> PathBuf {
        self.logs().join(format!("{instance}.log"))
    }

    /// Secrets and configs, in memory.
    pub(crate) fn secrets(&self) -> PathBuf {
        crate::secrets::directory(&self.run, &self.project)
    }

    /// The memory that an instance shares with those that join its IPC namespace.
    pub(crate) fn shared_memory(&self, instance: &str) -> PathBuf {
        self.secrets().join("shm").join(instance)
    }

    /// What hashes of secrets are keyed with.
    pub(crate) fn key(&self) -> PathBuf {
        self.state.join("key")
    }

    /// A named volume. They belong to no project: `down` leaves them, `down --volumes` does not.
    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        // No project can be called so.
        root("MINISUP_STATE_DIR", "/var/lib/minisup").join("volumes.d").join(name)
    }

    /// An external secret (`secrets`) or config (`configs`); they belong to no project either.
    pub(crate) fn external(&self, kind: &str, name: &str) -> PathBuf {
        root("MINISUP_STATE_DIR", "/var/lib/minisup").join(format!("{kind}.d")).join(name)
    }

    /// The nameless volumes of a slot; they go with the project.
    pub(crate) fn slot_volumes(&self, slot: &str) -> PathBuf {
        self.state.join("volumes").join(slot)
    }

    /// What is known of an instance that has died.
    pub(crate) fn autopsy(&self, instance: &str) -> PathBuf {
        self.logs().join(format!("{instance}.autopsy.json"))
    }

    /// The bundles of images.
    pub(crate) fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    /// The writable layer of an instance.
    pub(crate) fn writable(&self, instance: &str) -> PathBuf {
        self.state.join("writable").join(instance)
    }

    /// The container's name for the runtime.
    pub(crate) fn container(&self, instance: &str) -> String {
        format!("{}.{instance}", self.project)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_such_as_fit_paths_and_sockets() {
        assert!(Layout::of("shop-1_x").is_ok());
        for bad in ["", "Shop", "a/b", "-x", &"x".repeat(200)] {
            assert!(Layout::of(bad).is_err(), "{bad}");
        }
    }
}
