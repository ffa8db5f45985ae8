//! Blobs: files that are named by their digest and never change.

use super::{Store, sync_directory};
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::image::document::Descriptor;
use crate::layer::limits::Limits;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

impl Store {
    /// Where the blob is, or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Whether the blob is there, in its full size.
    pub fn has_blob(&self, descriptor: &Descriptor) -> bool {
        fs::metadata(self.blob_path(&descriptor.digest))
            .is_ok_and(|metadata| metadata.is_file() && metadata.len() == descriptor.size)
    }

    /// Opens a blob. Its content is for the reader to verify.
    ///
    /// # Errors
    /// When it is not there.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        File::open(self.blob_path(digest)).context(|| format!("open blob {digest}"))
    }

    /// Reads a document and verifies it.
    ///
    /// # Errors
    /// When it is not there, is not what its digest says, or is too large for a document.
    pub fn read_document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let file = self.open_blob(&descriptor.digest)?;
        read_document(file, descriptor)
            .context(|| format!("read {} from the store", descriptor.digest))
    }

    /// Gives a complete, flushed file its place among the blobs.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn publish_blob(&self, file: &Path, digest: &Digest) -> Result<()> {
        let publish = || -> Result<()> {
            fs::set_permissions(file, fs::Permissions::from_mode(0o444))?;
            Ok(fs::rename(file, self.blob_path(digest))?)
        };
        publish().context(|| format!("keep blob {digest}"))
    }

    /// Writes a document, unless it is there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add_document(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let descriptor = Descriptor::of(media_type, bytes);
        if !self.has_blob(&descriptor) {
            let scratch = self.scratch()?;
            let temporary = scratch.path().join("document");
            let mut file = File::create_new(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            self.publish_blob(&temporary, &descriptor.digest)?;
        }
        Ok(descriptor)
    }

    /// Flushes the names of blobs and layers.
    ///
    /// # Errors
    /// When the disk has lost something.
    pub fn flush_names(&self) -> Result<()> {
        sync_directory(&self.root.join("blobs/sha256"))?;
        sync_directory(&self.root.join("layers/sha256"))
    }
}

/// Reads a document from anywhere and verifies it.
///
/// # Errors
/// When it is not what its digest says, or is too large for a document.
pub fn read_document(input: impl Read, descriptor: &Descriptor) -> Result<Vec<u8>> {
    if descriptor.size > Limits::DOCUMENT_BYTES {
        let (size, limit) = (descriptor.size, Limits::DOCUMENT_BYTES);
        return Err(Error::Invalid(format!(
            "the document has {size} bytes, and none has more than {limit}"
        )));
    }
    let mut bytes = Vec::new();
    input.take(descriptor.size + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != descriptor.size {
        return Err(Error::Invalid(format!(
            "it has not the {} bytes that its descriptor says",
            descriptor.size
        )));
    }
    descriptor.digest.expect(Digest::of(&bytes))?;
    Ok(bytes)
}
