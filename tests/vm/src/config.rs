//! Which guest to boot.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{kernel::Kernel, rootfs::Profile};

/// A host directory that the guest sees, read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The directory on the host.
    pub host: PathBuf,
    /// The absolute path where the guest has it.
    pub guest: String,
}

impl Share {
    /// The same path inside as outside, so that paths compiled into tests are right in both.
    ///
    /// # Errors
    /// When it is not a directory, or its name is not UTF-8.
    pub fn same_path(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        let host =
            directory.canonicalize().ok().filter(|path| path.is_dir()).with_context(|| {
                format!("cannot share {}: not a directory", directory.display())
            })?;
        let guest = host.to_str().context("the name of a shared directory is not UTF-8")?.into();
        Ok(Self { host, guest })
    }
}

/// The guest to boot.
#[derive(Debug, Clone)]
pub struct Config {
    /// The kernel series.
    pub kernel: Kernel,
    /// What is in it.
    pub profile: Profile,
    /// Processors. Emulated, more than one is a little less reliable.
    pub smp: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Host directories to show.
    pub shares: Vec<Share>,
    /// How long the boot may take on real hardware; ten times that when emulated.
    pub boot_timeout: Duration,
    /// How long a command may take by default, likewise.
    pub command_timeout: Duration,
    /// Whether to print the guest's console on standard error.
    pub console: bool,
}

impl Config {
    /// The usual guest of this kernel and profile.
    #[must_use]
    pub fn new(kernel: Kernel, profile: Profile) -> Self {
        Self {
            kernel,
            profile,
            smp: 1,
            memory_mib: if profile == Profile::Quick { 1024 } else { 2048 },
            shares: Vec::new(),
            boot_timeout: Duration::from_secs(if profile.has_systemd() { 20 } else { 10 }),
            command_timeout: Duration::from_secs(60),
            console: false,
        }
    }

    /// With one more directory, at the same path inside.
    ///
    /// # Errors
    /// As [`Share::same_path`].
    pub fn share(mut self, directory: impl AsRef<Path>) -> Result<Self> {
        self.shares.push(Share::same_path(directory)?);
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_are_shared() {
        let share = Share::same_path("/usr/../tmp").unwrap();
        assert_eq!((share.host, share.guest), ("/tmp".into(), "/tmp".into()));
        assert!(Share::same_path("/etc/passwd").is_err());
        assert!(Share::same_path("/no/such/directory").is_err());
    }
}
