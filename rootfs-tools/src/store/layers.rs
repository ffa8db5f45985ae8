//! Unpacked layers: directories that are named by their chain id and never change.

use super::Store;
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
}

impl LayerRecord {
    /// A record of this version.
    pub fn new(diff_id: Digest, parent: Option<Digest>, blob: Descriptor, form: Form) -> Self {
        let (tree, bytes, entries) = (Digest::of(b""), 0, 0);
        Self { version: VERSION, diff_id, parent, blob, tree, form, bytes, entries, verity: None }
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

    /// What is recorded about an unpacked layer; `None` when it is not unpacked.
    ///
    /// # Errors
    /// When the record is damaged, or of a later version.
    pub fn layer(&self, chain_id: &Digest) -> Result<Option<LayerRecord>> {
        let bytes = match fs::read(self.layer_path(chain_id).join("layer.json")) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            result => result.context(|| format!("read the record of layer {chain_id}"))?,
        };
        let record: LayerRecord =
            document::parse(&bytes).context(|| format!("the record of layer {chain_id}"))?;
        if record.version != VERSION {
            return Err(Error::Unsupported(format!(
                "layer {chain_id} was unpacked by another version of rootfs-tools (format {}); remove the directory, and it is unpacked again",
                record.version
            )));
        }
        Ok(Some(record))
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

    /// Writes down what a layer is. Its files must be flushed after this and before it is
    /// published.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn seal_layer(&self, layer: &NewLayer, record: &LayerRecord) -> Result<()> {
        let seal = || -> Result<()> {
            let mut file = File::create_new(layer.layer().join("layer.json"))?;
            Ok(file.write_all(&document::to_bytes(record)?)?)
        };
        seal().context(|| "write the record of the layer".into())
    }

    /// Gives a complete, flushed layer its place. Another process may have been faster: then its
    /// layer stays, for it is the same.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn publish_layer(&self, layer: NewLayer, chain_id: &Digest) -> Result<()> {
        match fs::rename(layer.layer(), self.layer_path(chain_id)) {
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists
                ) =>
            {
                Ok(())
            }
            result => result.context(|| format!("keep layer {chain_id}")),
        }
    }
}
