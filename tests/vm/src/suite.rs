//! Test programs that were built on the host, run in guests.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{command::quote, config::Config, error::GuestError, guest::Guest, protocol::Status};

/// Test programs, and how to run each.
#[derive(Debug, Clone, Default)]
pub struct Suite {
    /// The programs, by their paths on the host; run in this order.
    pub programs: Vec<PathBuf>,
    /// Arguments for each, such as `--include-ignored`.
    pub arguments: Vec<String>,
    /// Variables for each.
    pub env: Vec<(String, String)>,
    /// How long each may take on real hardware; ten times that when emulated.
    pub timeout: Duration,
}

/// How a test program ended.
#[derive(Debug)]
pub struct Verdict {
    /// The program.
    pub program: PathBuf,
    /// Its status, or why it has none.
    pub result: Result<Status, GuestError>,
}

impl Verdict {
    /// Whether its tests passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        matches!(&self.result, Ok(status) if status.success())
    }
}

impl Suite {
    /// Runs the programs in a guest, printing what they print. After a program that took the
    /// guest down or did not end in time the next one gets a fresh guest.
    ///
    /// The directories of the programs are shared; what else they read is up to `config`.
    ///
    /// # Errors
    /// When a guest does not boot. That a test fails is a [`Verdict`], not an error.
    pub fn run(&self, config: &Config) -> Result<Vec<Verdict>> {
        let config = self.sharing_programs(config.clone())?;
        let mut guest = None;
        let mut verdicts = Vec::new();
        for program in &self.programs {
            let mut up = match guest.take() {
                Some(guest) => guest,
                None => Guest::boot(&config)?,
            };
            let result = self.run_one(&mut up, program);
            if result.is_ok() {
                guest = Some(up);
            }
            verdicts.push(Verdict { program: program.clone(), result });
        }
        Ok(verdicts)
    }

    fn run_one(&self, guest: &mut Guest, program: &Path) -> Result<Status, GuestError> {
        let mut argv = vec![program.display().to_string()];
        argv.extend(self.arguments.iter().cloned());
        eprintln!("vm: on {}: {}", guest.release(), quote(&argv));
        let mut command = guest.command(&argv).timeout(self.timeout).stream();
        for (name, value) in &self.env {
            command = command.env(name, value);
        }
        command.run().map(|output| output.status)
    }

    /// Programs below a directory that is shared already are visible; others need their own.
    fn sharing_programs(&self, mut config: Config) -> Result<Config> {
        for program in &self.programs {
            let directory = program.parent().context("a test program is not a path")?;
            if !config.shares.iter().any(|share| directory.starts_with(&share.host)) {
                config = config.share(directory)?;
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kernel::Kernel, rootfs::Profile};

    #[test]
    fn every_programs_directory_is_shared_once() {
        let suite = Suite {
            programs: ["/usr/bin/a", "/usr/bin/b", "/etc/c"].map(PathBuf::from).into(),
            ..Suite::default()
        };
        let config = Config::new(Kernel::V6_1, Profile::Quick).share("/etc").unwrap();
        let config = suite.sharing_programs(config).unwrap();
        let shared: Vec<_> = config.shares.iter().map(|share| share.guest.as_str()).collect();
        assert_eq!(shared, ["/etc", "/usr/bin"]);
    }
}
