//! `bundle`: a directory that minirun can run.

use super::import;
use super::output::Output;
use clap::Args;
use minirun::ready::Stamp;
use rootfs_tools::bundle::{self, Wish};
use rootfs_tools::{Reference, Result, Store};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Makes a bundle of an image: `minirun run DIR` runs it
#[derive(Debug, Args)]
pub(crate) struct Bundle {
    /// The name of an image in the store; or an archive or a layout, which is imported first
    image: String,
    /// The directory to make
    directory: PathBuf,
    /// Replaces the config.json of a bundle that is there
    #[arg(long)]
    force: bool,
    /// The bundle is for one container and ends with it; what the container writes goes to the
    /// store, and nothing is flushed to the disk. Otherwise the image's layers are on the disk when
    /// the bundle is there
    #[arg(long)]
    ephemeral: bool,
    /// Arguments for the image's entry point, or the program when it has none
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Bundle {
    pub(crate) fn run(&self, store: &Store, output: Output) -> Result<()> {
        // Before the name is looked up: it may change meanwhile.
        let index = Stamp::of(store.root());
        let (name, is_stored) = self.name(store, output)?;
        let (force, ephemeral, command) = (self.force, self.ephemeral, self.command.clone());
        let ready = index.filter(|_| ephemeral && is_stored).map(|at| (self.image.clone(), at));
        let wish = Wish { force, ephemeral, command, ready };
        let directory = bundle::create(store, &name, &self.directory, &wish)?;
        output.done(
            || format!("{}: {name}", directory.display()),
            json!({"bundle": directory, "image": name.to_string()}),
        )
    }

    /// The image, and whether the store knew it. A name of the store wins over a file of that name
    /// in the current directory: the store does not change with it.
    fn name(&self, store: &Store, output: Output) -> Result<(Reference, bool)> {
        let path = Path::new(&self.image);
        let known = self.image.parse::<Reference>().ok().filter(|name| store.image(name).is_ok());
        match known {
            Some(name) => Ok((name, true)),
            None if path.exists() => Ok((import::archive(store, path, output)?, false)),
            None => Ok((self.image.parse()?, false)),
        }
    }
}
