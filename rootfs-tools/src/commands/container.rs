//! `diff`, `commit`, `export`, `mount`: from containers to images, and out of the store.

use super::import;
use clap::Args;
use linux::OFlag;
use linux::mount::Attributes;
use linux::overlay::{Layers, mount_over};
use rootfs_tools::container::Container;
use rootfs_tools::layer::whiteout::Form;
use rootfs_tools::{Context, Error, Reference, Result, Store, bundle, export};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Which container.
#[derive(Debug, Args)]
struct Which {
    /// The bundle that the container was made of
    bundle: PathBuf,
    /// The container, when the bundle has several
    #[arg(long, value_name = "ID")]
    container: Option<String>,
}

/// Shows what a container added (A), changed (C) and deleted (D)
#[derive(Debug, Args)]
pub(crate) struct Diff {
    #[command(flatten)]
    which: Which,
}

impl Diff {
    pub(crate) fn run(&self, store: &Store) -> Result<()> {
        let container =
            Container::find(store, &self.which.bundle, self.which.container.as_deref())?;
        let mut output = std::io::stdout().lock();
        for change in container.changes(store)? {
            writeln!(output, "{change}")?;
        }
        Ok(())
    }
}

/// Makes an image of what a container changed: its image and one more layer
#[derive(Debug, Args)]
pub(crate) struct Commit {
    #[command(flatten)]
    which: Which,
    /// The name of the new image
    name: Reference,
    /// The time that the image says it was made at (RFC 3339) [default: none]
    #[arg(long, value_name = "TIME")]
    created: Option<String>,
}

impl Commit {
    pub(crate) fn run(&self, store: &Store) -> Result<()> {
        let container =
            Container::find(store, &self.which.bundle, self.which.container.as_deref())?;
        let imported = container
            .commit(store, &self.name, self.created.clone(), "rootfs-tools commit")
            .context(|| format!("commit {}", self.which.bundle.display()))?;
        import::report(&self.name, &imported)
    }
}

/// Writes an image to an archive: an OCI layout that `docker load` reads as well
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The image
    image: Reference,
    /// The file to make; `-` is standard output
    file: PathBuf,
}

impl Export {
    pub(crate) fn run(&self, store: &Store) -> Result<()> {
        let image = store.image(&self.image)?;
        let step = || format!("export {} to {}", image.name, self.file.display());
        if self.file == Path::new("-") {
            let output = std::io::stdout().lock();
            if output.is_terminal() {
                return Err(Error::Conflict(
                    "an archive is not for a terminal: name a file".into(),
                ));
            }
            return export::export(store, &image, output).context(step);
        }
        let file = File::create_new(&self.file).context(step)?;
        let result = export::export(store, &image, std::io::BufWriter::new(&file));
        if result.is_err() {
            // Half an archive is worse than none.
            drop(std::fs::remove_file(&self.file));
        }
        result.context(step)
    }
}

/// Mounts an image read-only, to look into it; `umount DIR` ends it
#[derive(Debug, Args)]
pub(crate) struct Mount {
    /// The image
    image: Reference,
    /// An empty directory
    directory: PathBuf,
}

impl Mount {
    pub(crate) fn run(&self, store: &Store) -> Result<()> {
        let step = || format!("mount {} at {}", self.image, self.directory.display());
        let trees = bundle::unpacked_trees(store, &self.image).context(step)?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let target = linux::path::open(&self.directory, flags).context(step)?;
        let lower: Vec<&Path> = trees.iter().map(PathBuf::as_path).collect();
        if let [only] = lower[..] {
            // One directory needs no overlay, and overlayfs refuses a single one without an upper.
            let tree = linux::mount::clone_tree(only, false).context(step)?;
            let read_only = Attributes::set(Attributes::READ_ONLY);
            linux::mount::set_attributes(tree.as_fd(), read_only, false).context(step)?;
            return linux::mount::attach(tree.as_fd(), target.as_fd()).context(step);
        }
        let user_attributes = store.form() == Form::User;
        mount_over(target.as_fd(), Layers { lower: &lower, writable: None, user_attributes })
            .context(step)
    }
}
