//! What can go wrong, as far as callers or people have to tell it apart.

use std::path::{Path, PathBuf};

/// The result of this crate's operations.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation failed. Each text names the object and, where there is one, the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error("while {step}")]
    Kernel {
        /// What was being done.
        step: String,
        /// The request and the kernel's answer.
        source: linux::Error,
    },
    /// A file of the store could not be read or written.
    #[error("{action} {}", path.display())]
    File {
        /// `reading`, `writing` …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file of the store holds something else than this program wrote.
    #[error("{} is damaged; `minirun network rm` and `create` make it anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where reading stopped.
        source: serde_json::Error,
    },
    /// There is no such object.
    #[error("no such {what}: {name}")]
    NotFound {
        /// `network` …
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The name is taken.
    #[error("network {0} already exists; choose another name, or `minirun network rm {0}`")]
    AlreadyExists(String),
    /// Containers are attached.
    #[error("network {name} is used by {}; remove them first", containers.join(", "))]
    InUse {
        /// The network.
        name: String,
        /// The containers, sorted.
        containers: Vec<String>,
    },
    /// A subnet overlaps with something that the host has already.
    #[error("subnet {subnet} overlaps with {with}; choose another with --subnet")]
    Conflict {
        /// The subnet that was asked for.
        subnet: String,
        /// What is there.
        with: String,
    },
    /// No address (or subnet) is left.
    #[error("{0}")]
    Exhausted(String),
    /// The address is given to somebody else.
    #[error("address {address} of network {network} is already given to {container}")]
    AddressTaken {
        /// The address.
        address: std::net::IpAddr,
        /// The network.
        network: String,
        /// Who has it.
        container: String,
    },
    /// A value that makes no sense.
    #[error("{what} {value:?}: {why}")]
    Invalid {
        /// What the value is for.
        what: &'static str,
        /// The value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// The port is taken.
    #[error("port {at} is taken{}", holder.as_ref().map_or_else(String::new, |h| format!(" by {h}")))]
    PortTaken {
        /// Address, port and protocol.
        at: String,
        /// The process that listens there, where it can be known.
        holder: Option<String>,
    },
    /// This host cannot do that.
    #[error("{what} needs {needs}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// What is missing, and how to get it.
        needs: String,
    },
    /// The program `nft` refused.
    #[error("nft refused the rules of {table}: {answer}")]
    Rules {
        /// The table.
        table: String,
        /// What it said.
        answer: String,
    },
}

impl Error {
    /// Whether this host lacks something, so that no other wish of the same kind would be granted.
    pub fn is_for_lack_of_support(&self) -> bool {
        use linux::Errno::{EACCES, EAFNOSUPPORT, EOPNOTSUPP, EPERM, EPROTONOSUPPORT, EROFS};
        const LACKS: [linux::Errno; 6] =
            [EACCES, EAFNOSUPPORT, EOPNOTSUPP, EPERM, EPROTONOSUPPORT, EROFS];
        match self {
            Self::Unsupported { .. } | Self::Rules { .. } => true,
            Self::Kernel { source, .. } => LACKS.contains(&source.errno),
            _ => false,
        }
    }

    /// An invalid value.
    pub(crate) fn invalid(
        what: &'static str,
        value: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Self::Invalid { what, value: value.into(), why: why.into() }
    }

    /// A failed access to a file.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}

/// Gives an error of the kernel the step that it broke.
pub(crate) trait During<T> {
    /// `step` continues the sentence "while …".
    fn during(self, step: impl FnOnce() -> String) -> Result<T>;
}

impl<T> During<T> for linux::Result<T> {
    fn during(self, step: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Kernel { step: step(), source })
    }
}

/// An error and all its causes in one line, for people.
pub fn in_one_line(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
