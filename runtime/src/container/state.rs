//! What is known about containers: a directory each, no daemon.
//!
//! ```text
//! /run/minirun/              the state root, --root; owner only, on a tmpfs
//! └── web/                   one container; made first, removed last
//!     ├── lock               flock(2): held by the command that changes the container
//!     ├── state.json         what is known, replaced atomically; see State
//!     ├── config.json        the configuration as it was read: later changes have no effect
//!     └── start.socket       init listens here until it is started; that it exists means "created"
//! ```
//!
//! The file is written *before* the thing that it tells about is made, so that after a crash at any
//! moment `delete --force` knows what to remove. A status is never stored: it is derived from what
//! the kernel says now.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use linux::{Errno, Pid, fd, pidfd};
use serde::{Deserialize, Serialize};

use super::state_place;
use crate::cgroup;
use crate::error::{Error, Result};
use crate::plan::check_id;

/// The version of the format of state.json.
const FORMAT: u32 = 1;

/// Everything that is written down about a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    format: u32,
    /// The container's name.
    pub id: String,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// The root file system's directory.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339 with nanoseconds.
    pub created: String,
    /// The user who created it, by number.
    pub owner: u32,
    /// The first process, once it exists.
    pub init: Option<Init>,
    /// Its cgroup, before it is made.
    pub cgroup: Option<cgroup::Record>,
    /// The directory of the writable layer, which is removed with the container.
    pub writable: Option<PathBuf>,
    /// Whether the configuration has poststart or poststop hooks: only then is it read again.
    pub late_hooks: bool,
    /// Whether the first process dies with its parent, as that of `run` does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) dies_with_parent: bool,
    /// Its group in the resctrl file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resctrl: Option<crate::steps::resctrl::Group>,
    /// Who decides about some of its system calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<super::agent::Agent>,
    /// How it is connected, where minirun did that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<crate::steps::network::Connected>,
    /// The configuration's annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A process, and what tells it from a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    /// Its number.
    pub pid: i32,
    /// The inode of its pidfd, unique for this boot; 0 before Linux 6.9.
    pub identity: u64,
    /// When it started, in clock ticks after boot, proc_pid_stat(5) field 22; used without
    /// `identity`.
    pub start_time: u64,
}

impl Init {
    /// Takes down a living process.
    pub fn of(pid: Pid, descriptor: &OwnedFd) -> Result<Self> {
        let identity = pidfd::identity(descriptor)
            .map_err(Error::kernel(format!("identify process {pid}")))?;
        let start_time = if identity == 0 { start_time(pid).unwrap_or(0) } else { 0 };
        Ok(Self { pid: pid.as_raw(), identity, start_time })
    }

    /// A descriptor for the process, `None` when it has ended (or its number is another's now).
    pub fn open(&self) -> Option<OwnedFd> {
        let descriptor = pidfd::open(Pid::from_raw(self.pid)).ok()?;
        let same = if self.identity == 0 {
            start_time(Pid::from_raw(self.pid)) == Some(self.start_time)
        } else {
            pidfd::is(&descriptor, self.identity)
        };
        (same && !pidfd::has_ended(&descriptor).unwrap_or(true)).then_some(descriptor)
    }
}

fn start_time(pid: Pid) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses, and may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// A container's status, runtime-spec runtime.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Somebody is making it.
    Creating,
    /// It waits to be started.
    Created,
    /// The program runs.
    Running,
    /// The program is frozen.
    Paused,
    /// The program has ended, or never came to be.
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// Where the containers' directories are.
#[derive(Debug, Clone)]
pub struct StateRoot {
    path: PathBuf,
    chosen: bool,
}

impl StateRoot {
    /// The directory that was asked for, or the usual one, see [`state_place`].
    pub fn new(asked: Option<&Path>) -> Result<Self> {
        if let Some(path) = asked {
            let path = std::path::absolute(path).map_err(Error::file("--root"))?;
            return Ok(Self { path, chosen: true });
        }
        let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let user = linux::credentials::starting_user();
        let path = state_place::usual(user, runtime_dir.as_deref())?;
        Ok(Self { path, chosen: false })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all containers, sorted.
    pub fn list(&self) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound && !self.chosen => {
                return Ok(Vec::new());
            }
            Err(error) => {
                return Err(Error::file(format!("read {}", self.path.display()))(error));
            }
        };
        let names = entries.flatten().filter(|entry| entry.path().join("lock").exists());
        let mut names: Vec<String> =
            names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }

    /// Makes the directory of a new container and locks it.
    pub fn make(&self, id: &str) -> Result<Home> {
        check_id(id)?;
        self.ensure()?;
        let path = self.path.join(id);
        match std::fs::DirBuilder::new().mode(0o711).create(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(Error::AlreadyExists(id.to_owned()));
            }
            Err(error) => return Err(Error::file(format!("make {}", path.display()))(error)),
        }
        let home = Home { id: id.to_owned(), path };
        Ok(home)
    }

    /// The directory of an existing container.
    pub fn home(&self, id: &str) -> Result<Home> {
        check_id(id)?;
        let path = self.path.join(id);
        match std::fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => Ok(Home { id: id.to_owned(), path }),
            Ok(_) => Err(Error::NotFound(id.to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Error::NotFound(id.to_owned()))
            }
            Err(error) => Err(Error::file(format!("look at {}", path.display()))(error)),
        }
    }

    /// Makes the root when it is missing, and refuses one that others could write to: they could
    /// make us kill, freeze or remove what they name.
    fn ensure(&self) -> Result<()> {
        let refused =
            |what: &str| Error::Config(format!("state root {}: {what}", self.path.display()));
        match std::fs::metadata(&self.path) {
            Ok(metadata) if !metadata.is_dir() => Err(refused("not a directory")),
            Ok(metadata) if metadata.uid() != linux::credentials::starting_user() => {
                Err(refused("belongs to another user"))
            }
            Ok(metadata) if metadata.mode() & 0o022 != 0 => {
                Err(refused("others may write to it: chmod go-w it, or choose another --root"))
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let mut builder = std::fs::DirBuilder::new();
                let made = builder.recursive(true).mode(0o711).create(&self.path);
                made.map_err(Error::file(format!("make {}", self.path.display())))
            }
            Err(error) => Err(Error::file(format!("look at {}", self.path.display()))(error)),
        }
    }
}

/// The directory of one container.
#[derive(Debug, Clone)]
pub struct Home {
    id: String,
    path: PathBuf,
}

/// A held lock; dropping it lets others go on.
#[derive(Debug)]
#[must_use = "the lock is held as long as this lives"]
pub struct Lock(pub(crate) File);

impl Home {
    /// The container's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Locks the container for a change, waiting for whoever changes it now.
    pub fn lock(&self) -> Result<Lock> {
        self.lock_file_of(File::options().write(true))
    }

    /// The same where there may be no lock yet: for whoever makes the container, and whoever
    /// removes what a maker has left that was killed.
    pub fn lock_anew(&self) -> Result<Lock> {
        self.lock_file_of(File::options().create(true).truncate(false).write(true).mode(0o600))
    }

    /// Makes the lock and locks it: there can be no state before that. `None` where there is one.
    pub(crate) fn lock_first(&self) -> Result<Option<Lock>> {
        let mut options = File::options();
        options.create_new(true).write(true).mode(0o600);
        match self.open_lock(&options) {
            Ok(file) => self.locked(file),
            Err(Error::File { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn lock_file_of(&self, options: &std::fs::OpenOptions) -> Result<Lock> {
        loop {
            if let Some(lock) = self.locked(self.open_lock(options)?)? {
                return Ok(lock);
            }
        }
    }

    /// Waits for the lock. While we wait, the container may be deleted, and its lock with it:
    /// `None` then.
    fn locked(&self, file: File) -> Result<Option<Lock>> {
        file.lock().map_err(Error::file(format!("lock container {}", self.id)))?;
        let exists = file.metadata().is_ok_and(|metadata| metadata.nlink() > 0);
        Ok(exists.then_some(Lock(file)))
    }

    /// Whether somebody changes the container at this moment.
    pub fn is_locked(&self) -> bool {
        match self.open_lock(File::options().read(true)) {
            Ok(file) => matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)),
            Err(_) => false,
        }
    }

    fn open_lock(&self, options: &std::fs::OpenOptions) -> Result<File> {
        let path = self.path.join("lock");
        options.open(&path).map_err(|error| match error.kind() {
            // Somebody has deleted the container meanwhile.
            ErrorKind::NotFound => Error::NotFound(self.id.clone()),
            _ => Error::file(format!("open {}", path.display()))(error),
        })
    }

    /// Writes a file that comes before the state, so that nobody looks for it yet.
    pub(crate) fn write_first(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        let failed = |error| Error::file(format!("write {}", path.display()))(error);
        let made = File::options().create_new(true).write(true).mode(0o600).open(&path);
        made.map_err(failed)?.write_all(bytes).map_err(failed)
    }

    /// Writes a file of the directory, complete or not at all.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let temporary = self.path.join(format!(".{name}.new"));
        let failed =
            |error| Error::file(format!("write {}", self.path.join(name).display()))(error);
        let mut options = File::options();
        let mut file = options
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(failed)?;
        file.write_all(bytes).map_err(failed)?;
        std::fs::rename(&temporary, self.path.join(name)).map_err(failed)
    }

    /// Writes a file of the directory that everybody may read who gets to see it.
    pub fn write_for_all(&self, name: &str, bytes: &[u8]) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        self.write(name, bytes)?;
        let path = self.path.join(name);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))
            .map_err(Error::file(format!("open {} to all", path.display())))
    }

    /// Writes the state.
    pub fn save(&self, state: &State) -> Result<()> {
        let bytes = serde_json::to_vec(state)
            .map_err(|error| Error::Config(format!("state of {}: {error}", self.id)))?;
        self.write("state.json", &bytes)
    }

    /// Reads the state; `None` when the creator died before it wrote any.
    pub fn load(&self) -> Result<Option<State>> {
        let path = self.path.join("state.json");
        let bytes = match fd::read_host_file(&path) {
            Err(error) if error.errno == Errno::ENOENT => return Ok(None),
            bytes => bytes.map_err(Error::kernel("read the state"))?,
        };
        let state: State = crate::json::read(&bytes)
            .map_err(|error| Error::Config(format!("{}: {error}", path.display())))?;
        if state.format != FORMAT {
            return Err(Error::Unsupported(format!(
                "{}: format {} was written by another version of minirun",
                path.display(),
                state.format
            )));
        }
        Ok(Some(state))
    }

    /// Where init listens until it is started.
    pub fn start_socket(&self) -> PathBuf {
        self.path.join("start.socket")
    }

    /// Removes the directory and all in it: the lock last, so that nobody who gets it finds half a
    /// container. Whoever makes a new lock in the moment after has the directory, and it stays.
    pub fn remove(&self) -> Result<()> {
        let failed = |error| Error::file(format!("remove {}", self.path.display()))(error);
        let entries = match std::fs::read_dir(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(failed)?,
        };
        for entry in entries.flatten().filter(|entry| entry.file_name() != "lock") {
            let removed = match entry.file_type() {
                Ok(kind) if kind.is_dir() => std::fs::remove_dir_all(entry.path()),
                _ => std::fs::remove_file(entry.path()),
            };
            gone_is_fine(removed).map_err(failed)?;
        }
        gone_is_fine(std::fs::remove_file(self.path.join("lock"))).map_err(failed)?;
        match std::fs::remove_dir(&self.path) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
            removed => gone_is_fine(removed).map_err(failed),
        }
    }
}

fn gone_is_fine(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

impl State {
    /// The state of a container that is about to be made.
    pub fn new(id: &str, bundle: &Path, rootfs: &Path) -> Self {
        Self {
            format: FORMAT,
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            rootfs: rootfs.to_owned(),
            created: humantime::format_rfc3339_nanos(std::time::SystemTime::now()).to_string(),
            owner: linux::credentials::starting_user(),
            init: None,
            cgroup: None,
            writable: None,
            late_hooks: false,
            dies_with_parent: false,
            resctrl: None,
            agent: None,
            network: None,
            annotations: BTreeMap::new(),
        }
    }

    /// The status now.
    pub fn status(&self, home: &Home) -> Status {
        let Some(init) = &self.init else {
            return if home.is_locked() { Status::Creating } else { Status::Stopped };
        };
        if init.open().is_none() {
            return Status::Stopped;
        }
        if self.is_frozen() {
            return Status::Paused;
        }
        if home.start_socket().exists() { Status::Created } else { Status::Running }
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.cgroup.as_ref().is_some_and(cgroup::Record::is_frozen)
    }

    /// How often the kernel has killed in the container because its memory was used up.
    pub fn oom_kills(&self) -> u64 {
        self.cgroup.as_ref().map_or(0, cgroup::Record::oom_kills)
    }
}
