//! The store: images by name, blobs by digest, unpacked layers by chain id.
//!
//! ```text
//! STORE/                            0700: an image may hold set-user-ID programs
//! ├── oci-layout                    {"imageLayoutVersion":"1.0.0"}
//! ├── index.json                    every image: a descriptor of its manifest, with the name in the
//! │                                 annotation org.opencontainers.image.ref.name (`web:latest`)
//! ├── blobs/sha256/HEX              manifests, configurations, layers as they came; 0444
//! ├── layers/sha256/HEX/            an unpacked layer, HEX being its chain id
//! │   ├── layer.json                {"version":1, diffId, parent, blob, tree, form, bytes, entries, …}
//! │   ├── state                     `flushing`, under the boot that layer.json names, or `durable`
//! │   ├── tree.mtree                what each file was when it was written
//! │   ├── tree.verity               of a sealed layer: what the kernel holds each file to
//! │   └── fs/                       the tree, as overlayfs wants a lower layer
//! ├── build/HEX.json                what a RUN gave the last time: {blob, diffId}
//! ├── bundles/HEX.json              {"bundle":"/path","layers":[chain ids]}: what gc must keep
//! ├── writable/HEX/                 what the container of `minirun run IMAGE` writes; HEX as above
//! ├── ready/NAME                    what the next container of an image needs (minirun::ready)
//! ├── partial/sha256/HEX            blobs that a pull has begun; resumed or collected
//! ├── tmp/                          everything half made, by the process that makes it
//! ├── lock                          flock: shared to work, exclusive to collect
//! ├── flush.lock                    flock: while layers become durable
//! ├── layers.lock                   flock: while a layer that counts as not unpacked is replaced
//! └── index.lock                    flock: while index.json is replaced
//! ```
//!
//! The first three lines are an OCI image layout (image-spec, image-layout.md), so any OCI tool
//! reads the store as it is: `skopeo inspect oci:STORE:web:latest`, `umoci ls --layout STORE`.
//!
//! **Nothing half made is ever seen.** A blob or a layer is made under `tmp/` and then renamed to its
//! name, which is the promise that it is complete; `index.json` is replaced after everything that it
//! names is in place. So whatever dies, at whatever moment, leaves files that nobody refers to, and
//! the next process that finds itself alone removes them. Blobs and `index.json` are flushed before
//! they get their names, layers afterwards ([`durable`]).

pub mod blobs;
pub mod bundles;
pub mod collect;
pub mod durable;
pub mod index;
pub mod layers;
pub mod lock;
pub mod scratch;
pub mod seal;
pub mod verify;

use crate::error::{Context, Error, Result};
use crate::layer::whiteout::Form;
use durable::{Boot, Unflushed};
use lock::Lock;
use scratch::{Scratch, ScratchFile};
use serde::Deserialize;
use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The directories of a store, parents first.
const DIRECTORIES: [&str; 11] = [
    "blobs",
    "blobs/sha256",
    "build",
    "layers",
    "layers/sha256",
    "bundles",
    "writable",
    "ready",
    "partial",
    "partial/sha256",
    "tmp",
];

/// What the file `oci-layout` holds.
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// How long something is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until somebody removes it: it is flushed to the disk before it is used.
    Lasting,
    /// Until this machine starts anew: a flush, which takes milliseconds, would be for nothing.
    ThisBoot,
}

/// An open store. While it is open nothing is collected from it.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    /// Shared while we work, exclusive while we collect; its end is the end of our work.
    lock: Lock,
    /// The root, open since before anything was written: an error of the disk is told once to each
    /// open file, and this one gets all that are about us.
    disk: File,
    boot: Boot,
    unflushed: Mutex<Unflushed>,
    /// Held by a process that goes on for another one ([`Store::go_on`]).
    flush_lock: Option<File>,
}

impl Store {
    /// Where the store of this user is: `/var/lib/minirun/images` for root, otherwise in the
    /// user's data directory (XDG Base Directory Specification).
    ///
    /// # Errors
    /// When the user has no home.
    pub fn default_path() -> Result<PathBuf> {
        minirun::ready::default_store().ok_or_else(|| {
            Error::Unsupported(
                "neither XDG_DATA_HOME nor HOME says where your store is; --store does".into(),
            )
        })
    }

    /// Opens a store, and makes it when it is not there. Removes what dead processes left half
    /// made, when no other process is at work.
    ///
    /// # Errors
    /// When the directory cannot be made, or is the layout of a later version.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_under(root, Boot::current())
    }

    /// The same as if the machine had been started with this boot.
    ///
    /// # Errors
    /// As for [`Store::open`].
    pub fn open_under(root: &Path, boot: Boot) -> Result<Self> {
        let step = || format!("open the store {}", root.display());
        let open = || -> Result<Self> {
            let root = std::path::absolute(root)?;
            make_directories(&root)?;
            let lock = match Lock::try_exclusive(&root.join("lock"))? {
                Some(alone) => {
                    scratch::clear(&root.join("tmp"))?;
                    alone.share()?
                }
                None => Lock::shared(&root.join("lock"))?,
            };
            let (disk, unflushed) = (File::open(&root)?, Mutex::default());
            let store = Self { root, lock, disk, boot, unflushed, flush_lock: None };
            store.check_layout()?;
            Ok(store)
        };
        open().context(step)
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The overlayfs attributes in which this process unpacks layers.
    pub fn form(&self) -> Form {
        Form::of_this_process()
    }

    /// The start of the machine under which this process works.
    pub fn boot(&self) -> &Boot {
        &self.boot
    }

    /// A place for something half made.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn scratch(&self) -> Result<Scratch> {
        Scratch::new(&self.root.join("tmp"))
    }

    /// Flushes the file system of the store.
    ///
    /// # Errors
    /// When the disk has lost something.
    pub fn flush(&self) -> Result<()> {
        nix::unistd::syncfs(&self.disk).context(|| "flush the store".into())
    }

    /// Replaces a file of the store at once: a reader sees the old one or the new one, also after
    /// a power cut.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.replace_for(name, bytes, Lifetime::Lasting)
    }

    /// The same for a file that may be of this boot only.
    pub(crate) fn replace_for(&self, name: &str, bytes: &[u8], life: Lifetime) -> Result<()> {
        let replace = || -> Result<()> {
            let mut temporary = ScratchFile::new(&self.root.join("tmp"))?;
            temporary.file.write_all(bytes)?;
            let target = self.root.join(name);
            if life == Lifetime::ThisBoot {
                return temporary.place(&target);
            }
            temporary.file.sync_all()?;
            temporary.place(&target)?;
            sync_directory(target.parent().unwrap_or(&self.root))
        };
        replace().context(|| format!("write {name} of the store"))
    }

    fn check_layout(&self) -> Result<()> {
        #[derive(Deserialize)]
        struct Layout {
            #[serde(rename = "imageLayoutVersion")]
            version: String,
        }
        match fs::read(self.root.join("oci-layout")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.replace("oci-layout", LAYOUT.as_bytes())
            }
            Err(error) => Err(error.into()),
            Ok(bytes) => match serde_json::from_slice::<Layout>(&bytes)?.version.as_str() {
                "1.0.0" => Ok(()),
                later => Err(Error::Unsupported(format!(
                    "it is an image layout of version {later}, and this program knows 1.0.0"
                ))),
            },
        }
    }
}

fn make_directories(root: &Path) -> Result<()> {
    let mut parents = DirBuilder::new();
    if let Some(parent) = root.parent() {
        parents.recursive(true).mode(0o755).create(parent)?;
    }
    let mut private = DirBuilder::new();
    private.mode(0o700);
    for directory in [root.to_path_buf()].into_iter().chain(DIRECTORIES.map(|name| root.join(name)))
    {
        match private.create(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).context(|| format!("make {}", directory.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Flushes the names in a directory.
fn sync_directory(directory: &Path) -> Result<()> {
    Ok(File::open(directory)?.sync_all()?)
}
