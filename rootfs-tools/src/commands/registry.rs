//! `pull` and `push`: images of registries.

use super::output::Output;
use super::sync::Wait;
use super::{LimitArgs, import, text};
use clap::Args;
use rootfs_tools::image::platform::Platform;
use rootfs_tools::import::{How, Imported};
use rootfs_tools::registry::{Options, pull, push};
use rootfs_tools::{Context, Reference, Result, Store};
use serde_json::json;
use std::path::PathBuf;

/// How a registry is reached.
#[derive(Debug, Args)]
pub(super) struct RegistryArgs {
    /// Speaks HTTP without TLS, to a registry on this machine only
    #[arg(long)]
    insecure: bool,
    /// A file with certificates (PEM) to trust besides those of the system
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// The registry of names that have none, if there is one.
pub(super) fn usual() -> Option<String> {
    std::env::var("MINIRUN_REGISTRY").ok().filter(|host| !host.is_empty())
}

/// Brings an image into the store, under `name`.
pub(super) fn fetch(
    store: &Store,
    image: &Reference,
    name: &Reference,
    usual: Option<&str>,
    platform: &Platform,
    options: &Options,
    how: How<'_>,
) -> Result<Imported> {
    let meant = match (&image.host, usual) {
        (None, Some(host)) => image.at(host),
        _ => image.clone(),
    };
    let source = pull::find(store, &meant, platform, options)?;
    rootfs_tools::import::import(store, &source, name, how)
}

impl RegistryArgs {
    /// As options, with registries to ask first.
    pub(super) fn options(&self, mirrors: &[String]) -> Options {
        Options { insecure: self.insecure, ca: self.ca.clone(), mirrors: mirrors.to_vec() }
    }
}

/// Pulls an image from a registry
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// The image, with its registry: registry.example/team/web:v2
    image: Reference,
    /// The name in the store [default: the same]
    name: Option<Reference>,
    /// The registry of names that have none [default: that in the environment's MINIRUN_REGISTRY]
    #[arg(long = "registry", value_name = "HOST[:PORT]")]
    usual: Option<String>,
    /// What the image shall run on [default: this machine]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// A registry to ask first; may be repeated
    #[arg(long = "mirror", value_name = "HOST[:PORT]")]
    mirrors: Vec<String>,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    wait: Wait,
}

impl Pull {
    pub(crate) fn run(&self, store: &Store, output: Output) -> Result<()> {
        let step = || format!("pull {}", self.image);
        let options = self.registry.options(&self.mirrors);
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        let usual = self.usual.clone().or_else(usual);
        let name = self.name.as_ref().unwrap_or(&self.image);
        let progress = output.progress();
        let how = How { limits: self.limits.limits(), progress: &*progress };
        let imported = fetch(store, &self.image, name, usual.as_deref(), &platform, &options, how)
            .context(step)?;
        self.wait.wait(store).context(step)?;
        import::report(name, &imported, output)
    }
}

/// Pushes an image to a registry
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The image in the store
    image: Reference,
    /// Where to: registry.example/team/web:v2 [default: the same]
    target: Option<Reference>,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Push {
    pub(crate) fn run(&self, store: &Store, output: Output) -> Result<()> {
        let target = self.target.as_ref().unwrap_or(&self.image);
        let options = self.registry.options(&[]);
        let progress = output.progress();
        let pushed = push::push(store, &self.image, target, &options, &*progress)
            .context(|| format!("push {} to {target}", self.image))?;
        let size = text::size(pushed.bytes);
        let (sent, present, mounted) = (pushed.sent, pushed.present, pushed.mounted);
        output.done(
            || {
                let taken = match mounted {
                    0 => String::new(),
                    count => format!(", {count} taken from its other repositories"),
                };
                format!("{target}: {sent} blobs sent ({size}), {present} there already{taken}")
            },
            json!({
                "name": target.to_string(), "sent": sent, "bytes": pushed.bytes,
                "present": present, "mounted": mounted,
            }),
        )
    }
}
