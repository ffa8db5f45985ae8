//! `build`: an image from a Containerfile.

use super::output::Output;
use super::registry::{self, RegistryArgs};
use super::sync::Wait;
use super::{LimitArgs, import};
use clap::Args;
use rootfs_tools::build::{self, Plan};
use rootfs_tools::image::platform::Platform;
use rootfs_tools::import::How;
use rootfs_tools::registry::Options;
use rootfs_tools::{Context, Error, Reference, Result, Store};
use std::fs;
use std::path::PathBuf;

/// Builds an image from a Containerfile; RUN runs in minirun
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The directory that COPY copies from
    #[arg(default_value = ".")]
    context: PathBuf,
    /// The Containerfile [default: Containerfile or Dockerfile in the context]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The name of the image
    #[arg(short, long, value_name = "NAME")]
    tag: Reference,
    /// A value for ARG; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    build_arg: Vec<String>,
    /// The stage to end with
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Does every step, even when its result is known
    #[arg(long)]
    no_cache: bool,
    /// The network of RUN: that of this machine, or none
    #[arg(long, value_name = "NETWORK", default_value = "host", value_parser = ["host", "none"])]
    network: String,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    wait: Wait,
}

impl Build {
    pub(crate) fn run(&self, store: &Store, output: Output) -> Result<()> {
        let file = self.file.clone().unwrap_or_else(|| {
            let containerfile = self.context.join("Containerfile");
            if containerfile.is_file() { containerfile } else { self.context.join("Dockerfile") }
        });
        let step = || format!("build {} from {}", self.tag, file.display());
        let mut arguments = std::collections::BTreeMap::new();
        for argument in &self.build_arg {
            let (name, value) = argument.split_once('=').ok_or_else(|| {
                Error::Invalid(format!("--build-arg {argument}: it has the form NAME=VALUE"))
            })?;
            arguments.insert(name.to_owned(), value.to_owned());
        }
        let plan = Plan {
            text: fs::read_to_string(&file).context(step)?,
            context: self.context.clone(),
            arguments,
            target: self.target.clone(),
            no_cache: self.no_cache,
            network: self.network == "host",
            epoch: epoch()?,
        };
        let mut course = Course { store, options: self.registry.options(&[]), output };
        let imported = build::build(store, &plan, &self.tag, &mut course).context(step)?;
        self.wait.wait(store).context(step)?;
        import::report(&self.tag, &imported, output)
    }
}

/// Shows the steps, and pulls what FROM names.
struct Course<'a> {
    store: &'a Store,
    options: Options,
    output: Output,
}

impl build::Course for Course<'_> {
    fn tell(&mut self, step: &str) {
        self.output.tell(step);
    }

    fn fetch(&mut self, image: &Reference) -> Result<()> {
        let usual = registry::usual();
        if image.host.is_none() && usual.is_none() {
            return self.store.image(image).map(drop); // which says that there is none
        }
        let at = Platform::host();
        let progress = self.output.progress();
        let how = How { limits: LimitArgs::default().limits(), progress: &*progress };
        registry::fetch(self.store, image, image, usual.as_deref(), &at, &self.options, how)
            .map(drop)
    }
}

/// SOURCE_DATE_EPOCH (reproducible-builds.org).
fn epoch() -> Result<Option<i64>> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Err(_) => Ok(None),
        Ok(text) => text.parse().map(Some).map_err(|_| {
            Error::Invalid(format!("SOURCE_DATE_EPOCH is `{text}`, not a number of seconds"))
        }),
    }
}
