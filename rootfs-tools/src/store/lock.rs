//! Locks between processes: flock(2), which the kernel releases when its holder dies.

use crate::error::{Error, Result};
use linux::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::path::Path;

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock(Flock<File>);

impl Lock {
    /// A lock that many may hold; waits for an exclusive one to end.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn shared(path: &Path) -> Result<Self> {
        lock(path, FlockArg::LockShared)
    }

    /// The same with a file that must be there: nothing is made in a directory that somebody
    /// removes.
    ///
    /// # Errors
    /// When the file is not there.
    pub fn shared_existing(path: &Path) -> Result<Self> {
        take(File::open(path)?, FlockArg::LockShared)
    }

    /// A lock that only one holds; waits for all others to end.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn exclusive(path: &Path) -> Result<Self> {
        lock(path, FlockArg::LockExclusive)
    }

    /// A lock that only one holds, or `None` when somebody holds one already.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn try_exclusive(path: &Path) -> Result<Option<Self>> {
        match lock(path, FlockArg::LockExclusiveNonblock) {
            Err(Error::Io(error)) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => Ok(None),
            result => result.map(Some),
        }
    }

    /// Makes a shared lock an exclusive one, when all others have ended. In between it may be
    /// nobody's, so two that do this do not wait for each other for ever.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn make_exclusive(&self) -> Result<()> {
        Ok(self.0.relock(FlockArg::LockExclusive)?)
    }

    /// Makes an exclusive lock a shared one. In between it may be nobody's.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn share(self) -> Result<Self> {
        self.0.relock(FlockArg::LockShared)?;
        Ok(self)
    }
}

fn lock(path: &Path, how: FlockArg) -> Result<Lock> {
    take(OpenOptions::new().read(true).append(true).create(true).open(path)?, how)
}

fn take(file: File, how: FlockArg) -> Result<Lock> {
    Flock::lock(file, how).map(Lock).map_err(|(_, errno)| errno.into())
}
