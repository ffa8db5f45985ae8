//! Bundles that use layers of the store. What a bundle names is not collected while the bundle is
//! there; when somebody has deleted it, its entry here means nothing any more.

use super::{Lifetime, Store};
use crate::digest::Digest;
use crate::error::{Context, Result};
use crate::image::document;
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A bundle and its layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleRecord {
    /// The directory of the bundle.
    pub bundle: PathBuf,
    /// The chain ids of its layers, the topmost first.
    pub layers: Vec<Digest>,
}

impl BundleRecord {
    /// What names its entry and its writable layer.
    pub(super) fn key(&self) -> Digest {
        Digest::of(self.bundle.as_os_str().as_bytes())
    }
}

impl Store {
    /// Writes down that a bundle uses layers; before the bundle is written.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add_bundle(&self, bundle: &Path, layers: Vec<Digest>, life: Lifetime) -> Result<()> {
        let record = BundleRecord { bundle: bundle.to_path_buf(), layers };
        let name = record.key().hex();
        self.replace_for(&format!("bundles/{name}.json"), &document::to_bytes(&record)?, life)
    }

    /// Where the container of a bundle may write, when its bundle is in memory.
    pub fn writable_path(&self, bundle: &Path) -> PathBuf {
        self.root.join("writable").join(Digest::of(bundle.as_os_str().as_bytes()).hex())
    }

    /// All bundles that were made, with the files of their entries, sorted.
    ///
    /// # Errors
    /// When an entry cannot be read.
    pub fn bundles(&self) -> Result<Vec<(PathBuf, BundleRecord)>> {
        let directory = self.root.join("bundles");
        let read = || -> Result<Vec<(PathBuf, BundleRecord)>> {
            let mut records = Vec::new();
            for entry in fs::read_dir(&directory)? {
                let path = entry?.path();
                let record =
                    document::parse(&fs::read(&path)?).context(|| path.display().to_string())?;
                records.push((path, record));
            }
            records.sort_by(|(a, _), (b, _)| a.cmp(b));
            Ok(records)
        };
        read().context(|| "read the bundles of the store".into())
    }
}
