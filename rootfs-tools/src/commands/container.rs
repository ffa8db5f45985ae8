//! `diff`, `commit`, `export`, `mount`: from containers to images, and out of the store.

use super::import;
use super::output::Output;
use super::sync::Wait;
use super::text;
use clap::Args;
use linux::OFlag;
use linux::mount::Attributes;
use linux::overlay::{Layers, mount_over};
use rootfs_tools::container::{Change, Container};
use rootfs_tools::layer::whiteout::Form;
use rootfs_tools::{Context, Error, Reference, Result, Store, bundle, export};
use serde_json::json;
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
    pub(crate) fn run(&self, store: &Store, output: Output) -> Result<()> {
        let container =
            Container::find(store, &self.which.bundle, self.which.container.as_deref())?;
        let changes = container.changes(store)?;
        let mut lines = std::io::stdout().lock();
        if output.json {
            let list: Vec<_> = changes.iter().map(Change::to_json).collect();
            return Ok(writeln!(lines, "{}", serde_json::Value::from(list))?);
        }
        for change in changes {
            writeln!(lines, "{change}")?;
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
    #[command(flatten)]
    wait: Wait,
}

impl Commit {
    pub(crate) fn run(&self, store: &Store, output: Output) -> Result<()> {
        let container =
            Container::find(store, &self.which.bundle, self.which.container.as_deref())?;
        let step = || format!("commit {}", self.which.bundle.display());
        let imported = container
            .commit(store, &self.name, self.created.clone(), "rootfs-tools commit")
            .context(step)?;
        self.wait.wait(store).context(step)?;
        import::report(&self.name, &imported, output)
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
    pub(crate) fn run(&self, store: &Store, output: Output) -> Result<()> {
        let image = store.image(&self.image)?;
        let step = || format!("export {} to {}", image.name, self.file.display());
        if self.file == Path::new("-") {
            let archive = std::io::stdout().lock();
            if archive.is_terminal() {
                return Err(Error::Conflict(
                    "an archive is not for a terminal: name a file".into(),
                ));
            }
            return export::export(store, &image, archive).context(step);
        }
        let file = File::create_new(&self.file).context(step)?;
        let result = export::export(store, &image, std::io::BufWriter::new(&file));
        if result.is_err() {
            // Half an archive is worse than none.
            drop(std::fs::remove_file(&self.file));
        }
        result.context(step)?;
        let bytes = file.metadata().context(step)?.len();
        output.done(
            || format!("{}: {}, {}", self.file.display(), image.name, text::size(bytes)),
            json!({"file": self.file, "image": image.name, "bytes": bytes}),
        )
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
    pub(crate) fn run(&self, store: &Store, output: Output) -> Result<()> {
        let step = || format!("mount {} at {}", self.image, self.directory.display());
        let trees = bundle::unpacked_trees(store, &self.image).context(step)?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let target = linux::path::open(&self.directory, flags).context(step)?;
        let lower: Vec<&Path> = trees.iter().map(PathBuf::as_path).collect();
        match lower[..] {
            // One directory needs no overlay, and overlayfs refuses a single one without an upper.
            [only] => {
                let tree = linux::mount::clone_tree(only, false).context(step)?;
                let read_only = Attributes::set(Attributes::READ_ONLY);
                linux::mount::set_attributes(tree.as_fd(), read_only, false).context(step)?;
                linux::mount::attach(tree.as_fd(), target.as_fd()).context(step)?;
            }
            _ => {
                let user_attributes = store.form() == Form::User;
                let layers = Layers { lower: &lower, writable: None, user_attributes };
                mount_over(target.as_fd(), layers).context(step)?;
            }
        }
        output.done(
            || format!("{}: {}", self.directory.display(), self.image),
            json!({"directory": self.directory, "image": self.image.to_string()}),
        )
    }
}
