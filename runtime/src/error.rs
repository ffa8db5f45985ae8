//! What can go wrong, as callers tell it apart.

use crate::steps::Step;

/// A result of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the runtime.
///
/// The texts are part of the contract: containerd, Docker, Podman and CRI-O match on parts of them
/// (`does not exist`, `container not running`, `permission denied`, …), and every one of them is
/// compared in the tests.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No container of that name in this state root.
    #[error("container `{0}` does not exist")]
    NotFound(String),
    /// The name is taken.
    #[error("container with given ID already exists: {0}")]
    AlreadyExists(String),
    /// The name is no name.
    #[error("invalid container ID format: {0:?}: use letters, digits and `_+-.`, not `.` or `..`")]
    InvalidId(String),
    /// The container exists, and is not in a state in which that can be done.
    #[error("{0}")]
    WrongState(String),
    /// A signal for a container that runs no more.
    #[error("container not running: no such process")]
    NotRunning,
    /// The configuration is wrong.
    #[error("{0}")]
    Config(String),
    /// The configuration is right, and this program or this host cannot do it.
    #[error("{0}")]
    Unsupported(String),
    /// A cgroup could not be made, limited, read or removed.
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::Error),
    /// A step of the container's construction failed.
    #[error(transparent)]
    Step(#[from] Failure),
    /// A kernel call outside of any step.
    #[error("{doing}: {source}")]
    Kernel {
        /// What was being done, and to what.
        doing: String,
        /// The kernel's answer.
        source: linux::Error,
    },
    /// A file could not be read or written.
    #[error("{doing}: {source}")]
    File {
        /// What was being done, and to what.
        doing: String,
        /// Why not.
        source: std::io::Error,
    },
}

impl Error {
    /// A kernel error with what was being done.
    pub fn kernel(doing: impl Into<String>) -> impl FnOnce(linux::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Kernel { doing, source }
    }

    /// A file error with what was being done.
    pub fn file(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::File { doing, source }
    }

    /// A second sentence that says what to do about it, for people (never for the log).
    pub fn remedy(&self) -> Option<&str> {
        match self {
            Self::Step(failure) => failure.remedy.as_deref(),
            _ => None,
        }
    }
}

/// A failed step: which one, on what, why, and what to do about it. It crosses the handshake
/// between the container's init and its creator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error("{} {object}: {cause}", step.verb())]
pub struct Failure {
    /// The step.
    pub step: Step,
    /// What it was done to.
    pub object: String,
    /// What happened, in the kernel's words where it was the kernel.
    pub cause: String,
    /// The errno, 0 when it was not the kernel.
    pub errno: i32,
    /// What a person can do about it.
    pub remedy: Option<String>,
}

/// Why a step failed, before it is known which step it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// What happened.
    pub text: String,
    /// The errno, 0 when it was not the kernel.
    pub errno: i32,
    /// What a person can do about it.
    pub remedy: Option<String>,
}

impl Cause {
    /// A cause that is not the kernel's.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), errno: 0, remedy: None }
    }

    /// Adds what a person can do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl From<linux::Error> for Cause {
    fn from(error: linux::Error) -> Self {
        Self { text: error.to_string(), errno: error.errno as i32, remedy: None }
    }
}

impl From<Error> for Cause {
    fn from(error: Error) -> Self {
        match error {
            Error::Cgroup(error) => error.into(),
            other => {
                let remedy = other.remedy().map(str::to_owned);
                Self { text: other.to_string(), errno: 0, remedy }
            }
        }
    }
}

impl From<crate::cgroup::Error> for Cause {
    fn from(error: crate::cgroup::Error) -> Self {
        let errno = match &error {
            crate::cgroup::Error::Kernel { cause, remedy, .. } if remedy.is_empty() => cause.errno,
            _ => return Self::new(error.to_string()),
        };
        Self { errno: errno as i32, ..Self::new(error.to_string()) }
    }
}
