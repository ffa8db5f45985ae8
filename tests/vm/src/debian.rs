//! Debian's archive: which packages there are, fetching them, unpacking a system from them.
//!
//! apt keeps its lists and settings below the cache (`APT_CONFIG`): the host's sources are
//! neither read nor changed, so that a guest does not depend on what a host has enabled.

use std::{env, fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    cache::Cache,
    host::{self, KEYRING},
};

/// The release that guests run.
pub(crate) const SUITE: &str = "bookworm";

/// The mirror; `MINIRUN_DEBIAN_MIRROR` names another one.
fn mirror() -> String {
    env::var("MINIRUN_DEBIAN_MIRROR").unwrap_or_else(|_| "http://deb.debian.org/debian".into())
}

/// The lines of a sources.list for the guest itself.
pub(crate) fn sources() -> [String; 3] {
    let mirror = mirror();
    let line =
        |mirror: &str, suite: &str| format!("deb [signed-by={KEYRING}] {mirror} {suite} main");
    [
        line(&mirror, SUITE),
        line(&mirror, &format!("{SUITE}-updates")),
        line(&format!("{mirror}-security"), &format!("{SUITE}-security")),
    ]
}

/// A package at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// Installs packages of the backports on this host, whose own sources are not changed.
pub(crate) fn install_from_backports(cache: &Cache, packages: &[&str]) -> Result<()> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !release.lines().any(|line| line == format!("VERSION_CODENAME={SUITE}")) {
        bail!("there are no backports for this host: it is not Debian {SUITE}");
    }
    let (apt, suite) = (Apt::update(cache)?, format!("{SUITE}-backports"));
    eprintln!("vm: apt-get install -t {suite} {}", packages.join(" "));
    host::run(
        apt.command("apt-get")
            .args(["-q", "-y", "--no-install-recommends", "-t", &suite, "install"])
            .args(["-o", "Dir::State::status=/var/lib/dpkg/status"])
            .args(["-o", "APT::Sandbox::User=root"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

/// An apt of our own.
#[derive(Debug)]
pub(crate) struct Apt {
    config: std::path::PathBuf,
    /// Held as long as this is used: apt itself gives up when another one has its lists.
    _lock: fs::File,
}

impl Apt {
    /// Sets up apt below the cache and fetches the lists, backports included.
    pub(crate) fn update(cache: &Cache) -> Result<Self> {
        let lock = cache.lock_for("apt")?;
        let directory = cache.path("apt");
        for part in ["lists/partial", "archives/partial", "state"] {
            fs::create_dir_all(directory.join(part))?;
        }
        fs::write(directory.join("state/status"), "")?;
        let mut lines = sources().join("\n");
        lines += &format!("\ndeb [signed-by={KEYRING}] {} {SUITE}-backports main\n", mirror());
        fs::write(directory.join("sources.list"), lines)?;
        let config = directory.join("apt.conf");
        fs::write(&config, settings(&directory))?;
        let apt = Self { config, _lock: lock };
        host::run(apt.command("apt-get").args(["-q", "update"]))
            .context("cannot fetch Debian's package lists: is there a network?")?;
        Ok(apt)
    }

    /// The package that a metapackage stands for, such as the kernel behind linux-image-amd64.
    /// Versions move; names are never guessed. Backports are only taken where asked for.
    pub(crate) fn behind(&self, metapackage: &str, backports: bool) -> Result<Package> {
        let suite = format!("{SUITE}-backports");
        let ask = |words: &[&str]| {
            let mut command = self.command("apt-cache");
            // "-t bookworm" would put the release before its own security updates.
            if backports {
                command.args(["-t", &suite]);
            }
            let text = host::output(command.args(words))?;
            anyhow::Ok(String::from_utf8_lossy(&text).into_owned())
        };
        let text = ask(&["depends", "--important", metapackage])?;
        let Some(name) = first_dependency(&text) else {
            bail!("{metapackage} depends on nothing: {text}");
        };
        let text = ask(&["policy", name])?;
        let Some(version) = candidate(&text) else { bail!("there is no {name}: {text}") };
        Ok(Package { name: name.into(), version: version.into() })
    }

    /// Fetches a package, verified, and unpacks its files below `directory`.
    pub(crate) fn unpack(&self, package: &Package, directory: &Path) -> Result<()> {
        let fetched = directory.with_extension("deb");
        fs::create_dir_all(&fetched)?;
        let wanted = format!("{}={}", package.name, package.version);
        host::run(
            self.command("apt-get")
                // As root apt would change to a user who may not write here, and warn.
                .args(["-q", "-o", "APT::Sandbox::User=root", "download", &wanted])
                .current_dir(&fetched),
        )?;
        let file = fs::read_dir(&fetched)?.next().context("apt-get download left no file")??;
        host::run(Command::new("dpkg-deb").arg("-x").arg(file.path()).arg(directory))?;
        fs::remove_dir_all(&fetched)?;
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.config).env("LC_ALL", "C");
        command
    }
}

fn settings(directory: &Path) -> String {
    let at = directory.display();
    format!(
        "Dir::State \"{at}/state\";\nDir::State::lists \"{at}/lists\";\n\
         Dir::State::status \"{at}/state/status\";\nDir::Cache \"{at}\";\n\
         Dir::Etc::sourcelist \"{at}/sources.list\";\nDir::Etc::sourceparts \"/dev/null\";\n\
         Acquire::Languages \"none\";\nAcquire::Retries \"3\";\n"
    )
}

fn first_dependency(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.trim().strip_prefix("Depends: "))
}

fn candidate(text: &str) -> Option<&str> {
    let version = text.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apt_cache_is_understood() {
        let text = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n";
        assert_eq!(first_dependency(text), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(first_dependency("linux-image-amd64\n"), None);
        let text = "x:\n  Installed: (none)\n  Candidate: 6.1.192-2\n  Version table:\n";
        assert_eq!(candidate(text), Some("6.1.192-2"));
        assert_eq!(candidate("x:\n  Candidate: (none)\n"), None);
    }

    #[test]
    fn the_host_is_left_alone() {
        let settings = settings(Path::new("/c/apt"));
        assert!(settings.contains("Dir::Etc::sourceparts \"/dev/null\""));
        assert!(settings.lines().filter(|line| line.starts_with("Dir::")).count() == 6);
    }
}
