//! What `image:` and `up IMAGE` may name, and how a bundle comes of it.
//!
//! ```text
//!   a directory with config.json        is a bundle already
//!   a name in the image store           rootfs-tools bundle NAME …
//!   an archive or an OCI layout         rootfs-tools import FILE, then the same
//!   any other name                      rootfs-tools pull NAME, then the same
//!   a service with `build:`             rootfs-tools build, unless the store has it
//! ```
//!
//! One bundle serves all replicas: it only refers to the layers, which all containers share, and
//! each replica has a writable layer of its own. Its directory is named after the digest, so that
//! another image under the same name is another revision, and an unchanged one is none.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use linux::inet::Transport;
use minisup_compose::model::{Build, BuildNetwork};
use serde::Deserialize;

use crate::model::{Health, Probe};
use crate::programs;

/// Where images come from, and where bundles go.
#[derive(Clone, Debug)]
pub(crate) struct Images {
    /// The image store; `None` is that of rootfs-tools.
    pub(crate) store: Option<PathBuf>,
    /// The directory of the bundles.
    pub(crate) bundles: PathBuf,
    /// What can be built is built, whether or not the store has it.
    pub(crate) build: bool,
}

/// Whether a registry is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pull {
    /// When the store does not have the image.
    Missing,
    /// First, each time.
    Always,
    /// Never.
    Never,
    /// It is built each time, where it is known how.
    Build,
}

/// A bundle, and what its image says about running it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Made {
    /// Absolute.
    pub(crate) bundle: PathBuf,
    /// What a command is given to as arguments.
    pub(crate) entrypoint: Vec<String>,
    pub(crate) stop_signal: Option<String>,
    pub(crate) health: Option<Health>,
    /// The ports where it says that it listens.
    pub(crate) exposed: Vec<(u16, Transport)>,
}

/// The annotation of a bundle in which its image's `EXPOSE` is (image-spec, conversion.md).
const EXPOSED: &str = "org.opencontainers.image.exposedPorts";

/// What `rootfs-tools inspect` says, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Inspected {
    name: String,
    digest: String,
    #[serde(default)]
    config: Run,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Run {
    entrypoint: Vec<String>,
    stop_signal: Option<String>,
    healthcheck: Option<Healthcheck>,
}

/// A health check as images have it; times are in nanoseconds, 0 is the default.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Healthcheck {
    test: Vec<String>,
    interval: u64,
    timeout: u64,
    start_period: u64,
    start_interval: u64,
    retries: u32,
}

impl Images {
    /// The bundle of `named`; paths start in `base`.
    ///
    /// # Errors
    /// There is no such thing, or it cannot be made a bundle.
    pub(crate) fn bundle(&self, named: &str, base: &Path, pull: Pull) -> Result<Made> {
        let path = base.join(named);
        if path.join("config.json").is_file() {
            let exposed = exposed(&path);
            return Ok(Made { bundle: path.canonicalize()?, exposed, ..Made::default() });
        }
        self.made(self.find(named, &path, pull)?)
    }

    /// The bundle of an image that is built when the store does not have it.
    ///
    /// # Errors
    /// It cannot be built.
    pub(crate) fn built(&self, named: &str, build: &Build, pull: Pull) -> Result<Made> {
        if pull == Pull::Always {
            self.tools(&["pull", named])?;
        }
        if !self.build
            && pull != Pull::Build
            && let Ok(image) = self.inspect(named)
        {
            return self.made(image);
        }
        self.build(named, build)?;
        self.made(self.inspect(named)?)
    }

    /// The bundle of an image of the store.
    fn made(&self, image: Inspected) -> Result<Made> {
        let bundle = self.bundles.join(directory(&image.name, &image.digest));
        if !bundle.join("config.json").is_file() {
            let to = bundle.to_str().context("the state directory's name is not UTF-8")?;
            self.tools(&["bundle", &image.name, to])?;
        }
        Ok(Made {
            exposed: exposed(&bundle),
            bundle: bundle.canonicalize()?,
            entrypoint: image.config.entrypoint,
            stop_signal: image.config.stop_signal.filter(|signal| !signal.is_empty()),
            health: image.config.healthcheck.and_then(Healthcheck::understood),
        })
    }

    /// The image in the store, brought there if need be.
    fn find(&self, named: &str, path: &Path, pull: Pull) -> Result<Inspected> {
        if pull == Pull::Always {
            self.tools(&["pull", named])?;
        }
        let missing = match self.inspect(named) {
            Ok(image) => return Ok(image),
            Err(error) => error,
        };
        if path.exists() {
            let file = path.to_str().context("the path is not UTF-8")?;
            let said = self.tools(&["import", file])?;
            let name = said.split_once(": ").map_or(said.trim(), |(name, _)| name);
            return self.inspect(name);
        }
        if pull == Pull::Never {
            let remedy = "is not in the store and shall not be pulled";
            return Err(missing.context(format!("the image {named} {remedy}")));
        }
        self.tools(&["pull", named]).with_context(|| {
            format!(
                "{named} is no bundle directory, no archive, no image in the store, and cannot \
                 be pulled"
            )
        })?;
        self.inspect(named)
    }

    /// Builds an image, and shows what is done meanwhile: it may take long.
    fn build(&self, named: &str, build: &Build) -> Result<()> {
        let mut command = self.program()?;
        command.args(["build", "--tag", named]);
        if let Some(file) = &build.dockerfile {
            command.arg("--file").arg(build.context.join(file));
        }
        for (name, value) in &build.args {
            command.arg("--build-arg").arg(format!("{name}={value}"));
        }
        if let Some(target) = &build.target {
            command.args(["--target", target]);
        }
        if build.network == Some(BuildNetwork::None) {
            command.args(["--network", "none"]);
        }
        if build.no_cache {
            command.arg("--no-cache");
        }
        // What we print is ours.
        let shown = std::io::stderr().as_fd().try_clone_to_owned()?;
        command.arg(&build.context).stdin(Stdio::null()).stdout(shown);
        if !command.status().context("cannot run rootfs-tools")?.success() {
            bail!("{named} cannot be built from {}", build.context.display());
        }
        Ok(())
    }

    fn inspect(&self, name: &str) -> Result<Inspected> {
        let said = self.tools(&["inspect", name])?;
        serde_json::from_str(&said).context("rootfs-tools inspect cannot be understood")
    }

    /// The program rootfs-tools, told of the store.
    fn program(&self) -> Result<Command> {
        let program = programs::beside("rootfs-tools").context(
            "images need the program rootfs-tools, which is neither beside minisup nor in PATH; \
             install it, or name a bundle directory",
        )?;
        let mut command = Command::new(program);
        if let Some(store) = &self.store {
            command.arg("--store").arg(store);
        }
        Ok(command)
    }

    /// Runs rootfs-tools; what it prints.
    fn tools(&self, arguments: &[&str]) -> Result<String> {
        let output = self.program()?.args(arguments).output().context("cannot run rootfs-tools")?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The ports that a bundle's annotation names; what is none does no harm.
fn exposed(bundle: &Path) -> Vec<(u16, Transport)> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Config {
        annotations: BTreeMap<String, String>,
    }
    let text = std::fs::read(bundle.join("config.json")).unwrap_or_default();
    let config: Config = serde_json::from_slice(&text).unwrap_or_default();
    let named = config.annotations.get(EXPOSED).map_or("", String::as_str);
    named.split(',').filter_map(one_exposed).collect()
}

/// `80`, `80/tcp` or `53/udp`.
fn one_exposed(text: &str) -> Option<(u16, Transport)> {
    let (port, transport) = match text.trim().split_once('/') {
        None => (text.trim(), Transport::Tcp),
        Some((port, "tcp")) => (port, Transport::Tcp),
        Some((port, "udp")) => (port, Transport::Udp),
        Some(_) => return None,
    };
    Some((port.parse().ok().filter(|port| *port > 0)?, transport))
}

/// The directory of an image's bundle.
fn directory(name: &str, digest: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let name: String = name.chars().map(plain).collect();
    let digest = digest.rsplit(':').next().unwrap_or_default();
    format!("{}-{}", name.trim_matches(['-', '.']), digest.get(..12).unwrap_or(digest))
}

impl Healthcheck {
    /// As we keep it; `None` when the image says that there is no check.
    fn understood(self) -> Option<Health> {
        let probe = match self.test.split_first() {
            Some((kind, words)) if kind == "CMD" => Probe::Exec(words.to_vec()),
            Some((kind, [line])) if kind == "CMD-SHELL" => {
                Probe::Exec(vec!["/bin/sh".into(), "-c".into(), line.clone()])
            }
            _ => return None,
        };
        let ms = |ns: u64, usual: u64| if ns == 0 { usual } else { (ns / 1_000_000).max(1) };
        Some(Health {
            probe,
            interval_ms: ms(self.interval, 30_000),
            timeout_ms: ms(self.timeout, 30_000),
            retries: if self.retries == 0 { 3 } else { self.retries },
            start_period_ms: ms(self.start_period, 0),
            start_interval_ms: ms(self.start_interval, 250),
            rise: 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_are_named_after_content() {
        let digest = "sha256:0123456789abcdef";
        assert_eq!(directory("ghcr.io/shop/web:v1", digest), "ghcr.io-shop-web-v1-0123456789ab");
        assert_eq!(directory("../x", "short"), "x-short");
    }

    #[test]
    fn the_check_of_an_image_is_understood() {
        let text = r#"{"Test": ["CMD-SHELL", "curl x"], "Interval": 10000000000, "Retries": 2}"#;
        let check: Healthcheck = serde_json::from_str(text).unwrap();
        let health = check.understood().unwrap();
        assert_eq!(health.probe, Probe::Exec(vec!["/bin/sh".into(), "-c".into(), "curl x".into()]));
        assert_eq!((health.interval_ms, health.timeout_ms, health.retries), (10_000, 30_000, 2));
        let none: Healthcheck = serde_json::from_str(r#"{"Test": ["NONE"]}"#).unwrap();
        assert_eq!(none.understood(), None);
    }

    #[test]
    fn a_directory_with_a_configuration_is_a_bundle() {
        let dir = std::env::temp_dir().join(format!("minisup-image-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("web")).unwrap();
        let config = r#"{"annotations": {"org.opencontainers.image.exposedPorts":
                         "3306/tcp,53/udp,0/tcp,80/sctp,x,8080"}}"#;
        std::fs::write(dir.join("web/config.json"), config).unwrap();
        let images = Images { store: None, bundles: dir.join("bundles"), build: false };
        let made = images.bundle("web", &dir, Pull::Never).unwrap();
        assert_eq!(made.bundle, dir.join("web").canonicalize().unwrap());
        let (tcp, udp) = (Transport::Tcp, Transport::Udp);
        assert_eq!(made.exposed, [(3306, tcp), (53, udp), (8080, tcp)]);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
