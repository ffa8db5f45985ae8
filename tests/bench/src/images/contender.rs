//! Who is measured, and what each does: an image becomes files on the disk.

use crate::daemon::Containerd;
use crate::layout::{Image, NAME};
use crate::measure::{self, Sample};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A way to unpack an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    RootfsTools,
    Umoci,
    Podman,
    Ctr,
    Pipe,
    Gzip,
}

impl Contender {
    pub(crate) const ALL: [Self; 6] =
        [Self::RootfsTools, Self::Umoci, Self::Podman, Self::Ctr, Self::Pipe, Self::Gzip];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RootfsTools => "rootfs-tools import",
            Self::Umoci => "umoci unpack",
            Self::Podman => "podman load",
            Self::Ctr => "ctr image import",
            Self::Pipe => "gzip -dc | tar -x, by layer",
            Self::Gzip => "gzip -dc alone",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::RootfsTools => "rootfs-tools",
            Self::Umoci => "umoci",
            Self::Podman => "podman",
            Self::Ctr => "ctr",
            Self::Pipe => "tar",
            Self::Gzip => "gzip",
        }
    }
}

/// A directory for the images and for what becomes of them.
///
/// Nothing is removed before the end: ext4 does not use a file's number again for a minute after
/// its end, and whoever comes next would search for free ones (`recently_deleted` in its source).
#[derive(Debug)]
pub(crate) struct Workshop {
    directory: PathBuf,
    rootfs_tools: PathBuf,
    outputs: AtomicUsize,
}

impl Workshop {
    /// Opens a directory that only this program uses.
    pub(crate) fn open(directory: PathBuf, rootfs_tools: PathBuf) -> Result<Self> {
        fs::create_dir_all(directory.join("images"))?;
        remove(&directory.join("outputs"))?;
        Ok(Self { directory, rootfs_tools, outputs: AtomicUsize::new(0) })
    }

    /// Where the images are.
    pub(crate) fn images(&self) -> PathBuf {
        self.directory.join("images")
    }

    /// Whether a contender can be measured here.
    pub(crate) fn is_here(&self, contender: Contender) -> Result<()> {
        if contender == Contender::RootfsTools {
            return fs::metadata(&self.rootfs_tools)
                .map(drop)
                .with_context(|| format!("{} is not built", self.rootfs_tools.display()));
        }
        let found = Command::new(contender.program()).arg("--version").output();
        found.map(drop).context("not installed")
    }

    /// Measures it once, from nothing.
    pub(crate) fn once(&self, contender: Contender, image: &Image) -> Result<Sample> {
        let number = self.outputs.fetch_add(1, Ordering::Relaxed);
        let output = self.directory.join(format!("outputs/{number}"));
        fs::create_dir_all(&output)?;
        let containerd = match contender {
            Contender::Ctr => Some(Containerd::start(&output)?),
            _ => None,
        };
        let before = containerd.as_ref().map_or(Ok(0), Containerd::processor_ms)?;
        // What somebody else wrote is not for this one to wait for.
        nix::unistd::sync();
        let mut sample = measure::cost(
            &self.command(contender, image, &output),
            contender == Contender::RootfsTools,
        )?;
        if let Some(containerd) = containerd {
            sample.processor_ms += containerd.processor_ms()? - before;
            sample.peak_kib = sample.peak_kib.max(containerd.peak_kib()?);
        }
        Ok(sample)
    }

    fn command(&self, contender: Contender, image: &Image, output: &Path) -> Command {
        match contender {
            Contender::RootfsTools => {
                let mut command = Command::new(&self.rootfs_tools);
                command.arg("--quiet").arg("--store").arg(output.join("store"));
                command.arg("import").arg(&image.layout).arg(NAME);
                command
            }
            Contender::Umoci => {
                let mut command = Command::new("umoci");
                let mut reference = image.layout.clone().into_os_string();
                reference.push(format!(":{NAME}"));
                command.args(["unpack", "--image"]).arg(reference).arg(output.join("bundle"));
                command
            }
            Contender::Podman => {
                let mut command = podman(output);
                command.args(["load", "--quiet", "--input"]).arg(&image.archive);
                command
            }
            Contender::Ctr => {
                let mut command = Command::new("ctr");
                command.arg("--address").arg(Containerd::socket(output));
                command.args(["image", "import"]).arg(&image.archive);
                command
            }
            Contender::Pipe => {
                let mut command = Command::new("sh");
                command.args([
                    "-ec",
                    "to=$1; shift; for layer; do gzip -dc \"$layer\" | tar -x -C \"$to\"; done",
                    "sh",
                ]);
                command.arg(output).args(&image.layers);
                command
            }
            Contender::Gzip => {
                let mut command = Command::new("gzip");
                command.arg("-dc").args(&image.layers);
                command
            }
        }
    }
}

impl Drop for Workshop {
    /// Removes all but the images.
    fn drop(&mut self) {
        if let Err(error) = remove(&self.directory.join("outputs")) {
            eprintln!("{error:#}");
        }
    }
}

/// podman with everything that it keeps below one directory.
fn podman(output: &Path) -> Command {
    let mut command = Command::new("podman");
    command.arg("--root").arg(output.join("root")).arg("--runroot").arg(output.join("run"));
    command.args(["--storage-driver", "overlay"]);
    command
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}
