//! What can go wrong with a cgroup, and what to do about it.

use std::path::PathBuf;

use super::host::Controller;

/// A failure around cgroups. The text names the step, the object, the kernel's answer, the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A limit is asked for by a caller who has been given no part of the tree.
    #[error(
        "cannot set {asked}: this user has no cgroup of their own, and limits need one; start it \
         with `systemd-run --user --scope -p Delegate=yes minirun …`, run it as root, or leave the \
         limits out (where no cgroups are mounted: `mount -t cgroup2 none /sys/fs/cgroup`)"
    )]
    NoGroup {
        /// The property of config.json.
        asked: String,
    },

    /// A file of the kernel that tells about cgroups could not be read or understood.
    #[error("read {file}: {why}")]
    Unreadable {
        /// The file.
        file: String,
        /// What is wrong with it.
        why: String,
    },

    /// The configuration asks for something that has no meaning.
    #[error("{asked}: {why}")]
    Invalid {
        /// The property of config.json.
        asked: String,
        /// What is wrong, and what would be right.
        why: String,
    },

    /// A syscall failed while groups were made, opened, watched or removed.
    #[error("{step}: {cause}{remedy}")]
    Kernel {
        /// What was being done, to which group.
        step: String,
        /// The kernel's answer.
        cause: Box<linux::Error>,
        /// What to do about it; empty, or starting with `; `.
        remedy: String,
    },

    /// The group of a new container is in use.
    #[error(
        "cgroup {path} is in use: it has {by}; give this container another `cgroupsPath` or id, \
         or end what runs there"
    )]
    InUse {
        /// The group's directory.
        path: PathBuf,
        /// Processes or groups.
        by: String,
    },

    /// A limit needs a controller that the group does not have.
    #[error("cannot set {asked}: {0}", .missing)]
    Missing {
        /// The property of config.json.
        asked: String,
        /// The controller, and where it is or would have to be.
        missing: Box<Missing>,
    },

    /// The kernel refused a value.
    #[error("cannot set {asked}: {cause}{remedy}")]
    Refused {
        /// The property of config.json.
        asked: String,
        /// The write that failed: file, value, errno.
        cause: Box<linux::Error>,
        /// What to do about it; empty, or starting with `; `.
        remedy: String,
    },

    /// systemd did not do what it was asked for.
    #[error("{step}: systemd says: {why}{remedy}")]
    Systemd {
        /// What it was asked for.
        step: String,
        /// Its answer.
        why: String,
        /// What to do about it; empty, or starting with `; `.
        remedy: String,
    },

    /// Processes that should have ended are still there.
    #[error("cgroup {path}: {count} processes did not end within {seconds} s: {pids}")]
    StillPopulated {
        /// The group's directory.
        path: PathBuf,
        /// How many.
        count: usize,
        /// How long was waited.
        seconds: u64,
        /// Their numbers.
        pids: String,
    },

    /// The group did not freeze or thaw in time.
    #[error(
        "cgroup {path} did not become {wanted} within {seconds} s (a process in uninterruptible \
         sleep delays it: see `cat /proc/PID/stack`)"
    )]
    NotFrozen {
        /// The group's directory.
        path: PathBuf,
        /// `frozen` or `thawed`.
        wanted: &'static str,
        /// How long was waited.
        seconds: u64,
    },

    /// Several things failed while cleaning up; all the rest was cleaned up.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<Error>),
}

/// A controller that a limit needs and the host, or the group, does not offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The controller.
    pub controller: Controller,
    /// The property of config.json that needs it.
    pub wanted_by: String,
    /// Where it was looked for, and what was found there.
    pub found: String,
    /// What to do about it.
    pub remedy: String,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { controller, found, remedy, .. } = self;
        write!(f, "cgroup controller `{controller}` is missing: {found}; {remedy}")
    }
}

impl Error {
    /// Whether the group is not there (any more).
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Kernel { cause, .. } if cause.errno == linux::Errno::ENOENT)
    }

    /// A failed syscall without a remedy that we know.
    pub(super) fn kernel(step: impl Into<String>, cause: linux::Error) -> Self {
        Self::Kernel { step: step.into(), cause: Box::new(cause), remedy: String::new() }
    }

    /// A meaningless value.
    pub(super) fn invalid(asked: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid { asked: asked.into(), why: why.into() }
    }

    /// One error out of the many of a clean-up; nothing when there are none.
    pub(super) fn of_many(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }
}
