//! Errors that say where they happened.
//!
//! An error is a chain from the outside in: `import web.tar: layer 3 of 5, sha256:…: entry
//! `usr/bin/x`: open: Permission denied`. Every link is a [`Error::Step`] but the last, which is
//! what callers branch on. No link repeats the next one.

use crate::digest::Digest;
use std::error::Error as _;
use std::io;
use std::path::PathBuf;

/// What every fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something about an image could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name is not in the store's index.
    #[error(
        "there is no image `{name}` in {}; `rootfs-tools ls` shows what there is, \
         `rootfs-tools pull` and `rootfs-tools import` bring more",
        store.display()
    )]
    NoSuchImage {
        /// The name that was looked for, in full.
        name: String,
        /// Where it was looked for.
        store: PathBuf,
    },
    /// Bytes are not those that their digest promises.
    #[error("the content is {found}, not {expected}: it was damaged or changed on its way")]
    DigestMismatch {
        /// What the image promises.
        expected: Digest,
        /// What was read.
        found: Digest,
    },
    /// The input breaks the rules of its format, or would reach out of its directory.
    #[error("{0}")]
    Invalid(String),
    /// The input is right, and this program does not do it. The text names the remedy.
    #[error("{0}")]
    Unsupported(String),
    /// The input is larger than it may be.
    #[error("{what}: the limit is {limit}; {option} raises it")]
    Limit {
        /// What is too large, or too many.
        what: String,
        /// The limit that it crossed.
        limit: u64,
        /// The option that raises the limit.
        option: &'static str,
    },
    /// The network, or who is at its other end, fails. What has arrived is kept.
    #[error("{0}")]
    Network(String),
    /// A registry says no.
    #[error("the registry answers {reason}")]
    Refused {
        /// The status code of HTTP.
        status: u16,
        /// The status and the reasons in words.
        reason: String,
    },
    /// Something stands in the way that is not ours to remove.
    #[error("{0}")]
    Conflict(String),
    /// A step on the way, and what went wrong in it.
    #[error("{step}")]
    Step {
        /// The step: a fragment that names its object.
        step: String,
        /// What went wrong in it.
        #[source]
        source: Box<Error>,
    },
    /// The kernel refused a call.
    #[error("{0}")]
    Kernel(#[from] linux::Error),
    /// The kernel, or a stream, refused.
    #[error("{}", errno_text(.0))]
    Io(io::Error),
    /// A document is not the JSON that it should be; the message has the line and the column.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// The error with the chain of its sources on one line, as a person reads it.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut link = self.source();
        while let Some(source) = link {
            text.push_str(": ");
            text.push_str(&source.to_string());
            link = source.source();
        }
        text
    }

    /// The innermost error: what the steps were about.
    pub fn innermost(&self) -> &Error {
        match self {
            Error::Step { source, .. } => source.innermost(),
            other => other,
        }
    }
}

impl From<io::Error> for Error {
    /// An error of ours that travelled through a stream comes out as it went in.
    fn from(error: io::Error) -> Self {
        match error.downcast::<Error>() {
            Ok(ours) => ours,
            Err(error) => Error::Io(error),
        }
    }
}

impl From<nix::errno::Errno> for Error {
    fn from(errno: nix::errno::Errno) -> Self {
        Error::Io(errno.into())
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => error,
            other => io::Error::other(other),
        }
    }
}

/// `Permission denied (os error 13)` says the number only to those who know it already.
fn errno_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// Names the step in which an error happened.
pub trait Context<T> {
    /// Wraps the error in a step. The closure runs only when there is an error.
    ///
    /// # Errors
    /// The one that was there, one link longer.
    fn context(self, step: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, step: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::Step { step: step(), source: Box::new(error.into()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_reads_from_the_outside_in() {
        let inner: Result<()> = Err(Error::from(nix::errno::Errno::EACCES));
        let outer = inner.context(|| "entry `x`".into()).context(|| "layer 3".into());
        let error = outer.unwrap_err();
        assert_eq!(error.chain(), "layer 3: entry `x`: Permission denied");
        assert!(matches!(error.innermost(), Error::Io(_)));
    }

    #[test]
    fn an_error_survives_its_way_through_a_stream() {
        let through: io::Error = Error::Invalid("no".into()).into();
        assert!(matches!(Error::from(through), Error::Invalid(text) if text == "no"));
    }
}
