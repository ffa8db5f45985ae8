//! `bundle`: a directory that minirun can run.

use super::import;
use clap::Args;
use rootfs_tools::{Reference, Result, Store, bundle};
use std::io::Write;
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
}

impl Bundle {
    pub(crate) fn run(&self, store: &Store) -> Result<()> {
        let name = self.name(store)?;
        let directory = bundle::create(store, &name, &self.directory, self.force)?;
        Ok(writeln!(std::io::stdout(), "{}: {name}", directory.display())?)
    }

    /// A name of the store wins over a file of that name in the current directory: the store does
    /// not change with it.
    fn name(&self, store: &Store) -> Result<Reference> {
        let path = Path::new(&self.image);
        let known = self.image.parse::<Reference>().ok().filter(|name| store.image(name).is_ok());
        match known {
            Some(name) => Ok(name),
            None if path.exists() => import::archive(store, path),
            None => self.image.parse(),
        }
    }
}
