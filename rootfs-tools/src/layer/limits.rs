//! How much an image may ask for. An image is input from a stranger: without limits a kilobyte of
//! gzip can fill a disk, and a tar of empty names can use up its inodes.

use crate::error::{Error, Result};

/// Limits on one layer. Each has an option of its own on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the uncompressed layer, and the apparent size of every file in it.
    pub bytes: u64,
    /// Entries of the layer.
    pub entries: u64,
}

impl Default for Limits {
    /// Room for the largest images that people really make (machine-learning images of 40 GiB in
    /// a layer), and an end to those that nobody makes.
    fn default() -> Self {
        Self { bytes: 128 << 30, entries: 4_000_000 }
    }
}

impl Limits {
    /// The longest extended header (PAX records, GNU long name) in bytes. Real ones have a few
    /// hundred; a file capability or an ACL has a few dozen more.
    pub const EXTENSION_BYTES: u64 = 1 << 20;

    /// The longest path in bytes, as for the kernel (PATH_MAX, path_resolution(7)).
    pub const PATH_BYTES: usize = 4095;

    /// The largest manifest, index or configuration in bytes (distribution specification: 4 MiB).
    pub const DOCUMENT_BYTES: u64 = 4 << 20;

    /// Checks a number of bytes.
    ///
    /// # Errors
    /// [`Error::Limit`] when there are too many.
    pub fn check_bytes(&self, bytes: u64) -> Result<()> {
        if bytes <= self.bytes {
            return Ok(());
        }
        let what = "the unpacked layer has too many bytes".to_owned();
        Err(Error::Limit { what, limit: self.bytes, option: "--max-layer-size" })
    }

    /// Checks a number of entries.
    ///
    /// # Errors
    /// [`Error::Limit`] when there are too many.
    pub fn check_entries(&self, entries: u64) -> Result<()> {
        if entries <= self.entries {
            return Ok(());
        }
        let what = "the layer has too many entries".to_owned();
        Err(Error::Limit { what, limit: self.entries, option: "--max-layer-entries" })
    }
}
