//! Unpacked layers: directories that are named by their chain id and never change.

use super::Store;
use super::durable::{DURABLE, FLUSHING, STATE};
use super::lock::Lock;
use super::scratch::Scratch;
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::image::document::{self, Descriptor};
use crate::layer::whiteout::Form;
use linux::OFlag;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// The version of `layer.json` and of what it describes.
const VERSION: u32 = 1;

/// What `layer.json` says about an unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerRecord {
    /// The version of the format.
    pub version: u32,
    /// The digest of the uncompressed layer.
    pub diff_id: Digest,
    /// The chain id of what is below, if anything is.
    pub parent: Option<Digest>,
    /// The blob that it was unpacked from.
    pub blob: Descriptor,
    /// The digest of `tree.mtree`.
    pub tree: Digest,
    /// The family of its overlayfs attributes.
    pub form: Form,
    /// The size of the uncompressed layer in bytes.
    pub bytes: u64,
    /// How many entries it has.
    pub entries: u64,
    /// The digest of `tree.verity`, when the layer is sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verity: Option<Digest>,
    /// The start of the machine under which the files were written, when they may not be on the
    /// disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
}

impl LayerRecord {
    /// A record of this version.
    pub fn new(diff_id: Digest, parent: Option<Digest>, blob: Descriptor, form: Form) -> Self {
        let (tree, bytes, entries) = (Digest::of(b""), 0, 0);
        let (version, verity, boot) = (VERSION, None, None);
        Self { version, diff_id, parent, blob, tree, form, bytes, entries, verity, boot }
    }
}

/// A layer in the making: `fs/`, `tree.mtree` and the blob beside them.
#[derive(Debug)]
pub struct NewLayer {
    scratch: Scratch,
}

impl NewLayer {
    /// The tree, open.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn tree(&self) -> Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        Ok(linux::path::open(&self.layer().join("fs"), flags)?)
    }

    /// Where the tree is, for the layers above.
    pub fn tree_path(&self) -> PathBuf {
        self.layer().join("fs")
    }

    /// The record of the tree, empty, to write and read.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn record(&self) -> Result<File> {
        let path = self.layer().join("tree.mtree");
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .context(|| "make the record of the layer".into())
    }

    /// Where the blob goes while it is read.
    pub fn blob(&self) -> PathBuf {
        self.scratch.path().join("blob")
    }

    fn layer(&self) -> PathBuf {
        self.scratch.path().join("layer")
    }
}

impl Store {
    /// The directory of an unpacked layer, whether it is there or not.
    pub fn layer_path(&self, chain_id: &Digest) -> PathBuf {
        self.root.join("layers/sha256").join(chain_id.hex())
    }

    /// The tree of an unpacked layer: a lower directory for overlayfs.
    pub fn tree_path(&self, chain_id: &Digest) -> PathBuf {
        self.layer_path(chain_id).join("fs")
    }

    /// What is recorded about an unpacked layer; `None` when it is not unpacked, or a start of the
    /// machine came before its files were on the disk. `boot` is `None` when they are.
    ///
    /// # Errors
    /// When the record is damaged, or of a later version.
    pub fn layer(&self, chain_id: &Digest) -> Result<Option<LayerRecord>> {
        let directory = self.layer_path(chain_id);
        let bytes = match fs::read(directory.join("layer.json")) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            result => result.context(|| format!("read the record of layer {chain_id}"))?,
        };
        let is_durable = fs::read(directory.join(STATE)).is_ok_and(|state| state == DURABLE);
        let mut record: LayerRecord = match document::parse(&bytes) {
            // Also a record is a file that a power cut may have left without its content.
            Err(_) if !is_durable => return Ok(None),
            result => result.context(|| format!("the record of layer {chain_id}"))?,
        };
        if record.version != VERSION {
            return Err(Error::Unsupported(format!(
                "layer {chain_id} was unpacked by another version of rootfs-tools (format {}); remove the directory, and it is unpacked again",
                record.version
            )));
        }
        if is_durable {
            record.boot = None;
        }
        let is_there = record.boot.is_none() || record.boot.as_deref() == self.boot.id();
        Ok(is_there.then_some(record))
    }

    /// Begins a layer.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new_layer(&self) -> Result<NewLayer> {
        let layer = NewLayer { scratch: self.scratch()? };
        fs::create_dir_all(layer.tree_path()).context(|| "make a layer".into())?;
        Ok(layer)
    }

    /// Writes down what a layer is, and under which boot.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn seal_layer(&self, layer: &NewLayer, record: &LayerRecord) -> Result<()> {
        let seal = || -> Result<()> {
            let boot = self.boot.id().map(str::to_owned);
            let state = if boot.is_some() { FLUSHING } else { DURABLE };
            let record = LayerRecord { boot, ..record.clone() };
            let mut file = File::create_new(layer.layer().join("layer.json"))?;
            file.write_all(&document::to_bytes(&record)?)?;
            Ok(File::create_new(layer.layer().join(STATE))?.write_all(state)?)
        };
        seal().context(|| "write the record of the layer".into())
    }

    /// Gives a complete layer its place. Another process may have been faster: then its layer
    /// stays, for it is the same. What lies there and counts as not unpacked makes way.
    ///
    /// # Errors
    /// When it cannot be renamed, or what lies there is mounted.
    pub fn publish_layer(&self, layer: NewLayer, chain_id: &Digest) -> Result<()> {
        let target = self.layer_path(chain_id);
        let step = || format!("keep layer {chain_id}");
        // Who finds something there must be the only one who judges and replaces it.
        let mut alone = None;
        loop {
            match fs::rename(layer.layer(), &target) {
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists
                    ) => {}
                result => {
                    result.context(step)?;
                    if self.boot.id().is_some() {
                        self.note(|unflushed| &mut unflushed.written, *chain_id);
                    }
                    return Ok(());
                }
            }
            if alone.is_none() {
                alone = Some(Lock::exclusive(&self.root.join("layers.lock")).context(step)?);
            }
            if let Some(record) = self.layer(chain_id)? {
                if record.boot.is_some() {
                    self.note(|unflushed| &mut unflushed.met, *chain_id);
                }
                return Ok(());
            }
            self.make_way(chain_id).context(step)?;
        }
    }

    /// Whether something lies in a layer's place that counts as not unpacked.
    pub fn is_lost(&self, chain_id: &Digest) -> bool {
        self.layer_path(chain_id).exists() && matches!(self.layer(chain_id), Ok(None))
    }
}
