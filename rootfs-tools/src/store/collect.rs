//! Garbage: what no name, no bundle and no mount needs any more.
//!
//! A collection is alone: it holds the store's lock exclusively, so no import, pull or build is on
//! its way. It marks what is needed, from the names down, and removes the rest. A layer is first
//! renamed into `tmp/`, so that a death in the middle of its removal leaves no half of it under
//! its name.

use super::{Store, bundles::BundleRecord, scratch};
use crate::bundle::runtime_config::LOWERDIRS;
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::image::config::{ImageConfig, chain_ids};
use crate::image::document::{self, Descriptor, Index, Manifest};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// What a collection removed, or would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// The digests of the blobs.
    pub blobs: Vec<Digest>,
    /// The chain ids of the unpacked layers.
    pub layers: Vec<Digest>,
    /// Their size in bytes: of the blobs, and of the layers uncompressed.
    pub bytes: u64,
}

/// What is needed.
#[derive(Debug, Default)]
struct Needed {
    blobs: BTreeSet<Digest>,
    layers: BTreeSet<Digest>,
    /// What the names of writable layers are the digests of: bundles.
    writable: BTreeSet<Digest>,
}

/// An index that names an index that names …
const DEEPEST_INDEX: u32 = 4;

impl Store {
    /// Removes what nothing needs; with `pretend`, only finds it.
    ///
    /// Waits until every other process has left the store.
    ///
    /// # Errors
    /// When an image cannot be read, for then nobody knows what it needs; or when something cannot
    /// be removed.
    pub fn collect(self, pretend: bool) -> Result<Collected> {
        self.lock.make_exclusive()?;
        let mut needed = Needed::default();
        for image in self.index()?.manifests {
            let name = image.ref_name().unwrap_or("(no name)").to_owned();
            self.mark(&image, &mut needed, DEEPEST_INDEX).context(|| {
                format!("image `{name}` is damaged, so nobody knows what it needs; import it again, or remove its name")
            })?;
        }
        self.mark_bundles(&mut needed, pretend)?;
        mark_mounts(&mut needed)?;
        let collected = self.sweep(&needed, pretend)?;
        if !pretend {
            scratch::clear(&self.root.join("partial/sha256"))?;
            scratch::clear(&self.root.join("tmp"))?;
            // Of which images are gone, or are called otherwise now: the next start finds it out.
            scratch::clear(&self.root.join("ready"))?;
        }
        Ok(collected)
    }

    fn mark(&self, image: &Descriptor, needed: &mut Needed, depth: u32) -> Result<()> {
        needed.blobs.insert(image.digest);
        if image.is_index() && depth > 0 {
            // An index may name images for other platforms, which are not here.
            let index = Index::parse(&self.read_document(image)?)?;
            for image in index.manifests.iter().filter(|image| self.has_blob(image)) {
                self.mark(image, needed, depth - 1)?;
            }
        } else if image.is_manifest() {
            let manifest = Manifest::parse(&self.read_document(image)?)?;
            needed.blobs.insert(manifest.config.digest);
            needed.blobs.extend(manifest.layers.iter().map(|layer| layer.digest));
            let config: ImageConfig = document::parse(&self.read_document(&manifest.config)?)?;
            needed.layers.extend(chain_ids(&config.rootfs.diff_ids));
        }
        Ok(())
    }

    fn mark_bundles(&self, needed: &mut Needed, pretend: bool) -> Result<()> {
        for (entry, record) in self.bundles()? {
            if self.is_in_use(&record) {
                needed.writable.insert(record.key());
                needed.layers.extend(record.layers);
            } else if !pretend {
                fs::remove_file(&entry).context(|| format!("remove {}", entry.display()))?;
            }
        }
        Ok(())
    }

    /// Whether the bundle is still there and still names its layers. One that cannot be read may.
    fn is_in_use(&self, record: &BundleRecord) -> bool {
        let config = match fs::read(record.bundle.join("config.json")) {
            Err(error) if error.kind() == ErrorKind::NotFound => return false,
            Err(_) => return true,
            Ok(bytes) => bytes,
        };
        let Ok(config) = serde_json::from_slice::<Value>(&config) else { return true };
        let lower = config["annotations"][LOWERDIRS].as_str().unwrap_or_default();
        let root = self.root.to_string_lossy();
        lower.contains(root.as_ref())
    }

    fn sweep(&self, needed: &Needed, pretend: bool) -> Result<Collected> {
        let mut collected = Collected::default();
        for chain_id in names(&self.root.join("layers/sha256"))? {
            if needed.layers.contains(&chain_id) {
                continue;
            }
            // A layer whose record cannot be read is of no use, whatever its size.
            collected.bytes += self.layer(&chain_id).ok().flatten().map_or(0, |layer| layer.bytes);
            collected.layers.push(chain_id);
            if !pretend {
                self.drop_layer(&chain_id)?;
            }
        }
        for digest in names(&self.root.join("blobs/sha256"))? {
            if needed.blobs.contains(&digest) {
                continue;
            }
            let path = self.blob_path(&digest);
            collected.bytes += fs::metadata(&path)?.len();
            collected.blobs.push(digest);
            if !pretend {
                fs::remove_file(&path).context(|| format!("remove {}", path.display()))?;
            }
        }
        for bundle in names(&self.root.join("writable"))? {
            if !needed.writable.contains(&bundle) && !pretend {
                // The container ended without its minirun: the machine did, or both were killed.
                scratch::remove(&self.root.join("writable").join(bundle.hex()))?;
            }
        }
        Ok(collected)
    }

    /// Removes what lies in a layer's place, unless a container still has it mounted.
    ///
    /// # Errors
    /// When it is mounted, or cannot be removed.
    pub(super) fn make_way(&self, chain_id: &Digest) -> Result<()> {
        let mut mounted = Needed::default();
        mark_mounts(&mut mounted)?;
        if mounted.layers.contains(chain_id) {
            return Err(Error::Conflict(
                "files of it were lost by the disk, and a container that runs has it mounted; end the container first".into(),
            ));
        }
        self.drop_layer(chain_id)
    }

    /// Takes a layer out of sight at once, and then removes it.
    ///
    /// # Errors
    /// When it cannot be renamed or removed.
    fn drop_layer(&self, chain_id: &Digest) -> Result<()> {
        let grave = self.scratch()?;
        let dead = grave.path().join("layer");
        fs::rename(self.layer_path(chain_id), &dead)
            .context(|| format!("remove layer {chain_id}"))?;
        scratch::remove(&dead)
    }
}

/// The digests that name the files in a directory, sorted. Other names are not ours.
pub(super) fn names(directory: &Path) -> Result<Vec<Digest>> {
    let mut digests = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if let Ok(digest) = format!("sha256:{}", name.to_string_lossy()).parse() {
            digests.push(digest);
        }
    }
    digests.sort();
    Ok(digests)
}

/// Marks the layers that some process has mounted, in whatever mount namespace: the layers of a
/// container whose bundle was deleted while it runs. Removing a directory under an overlay is
/// undefined (Documentation/filesystems/overlayfs.rst, "Changes to underlying filesystems").
fn mark_mounts(needed: &mut Needed) -> Result<()> {
    for entry in fs::read_dir("/proc").context(|| "find the mounts of all processes".into())? {
        let entry = entry.map_err(Error::from)?;
        let is_process = entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        // A process may end while we look, and one of another user is not ours to look at.
        if is_process && let Ok(mounts) = fs::read_to_string(entry.path().join("mountinfo")) {
            needed.layers.extend(digests_behind("/layers/sha256/", &mounts));
            needed.writable.extend(digests_behind("/writable/", &mounts));
        }
    }
    Ok(())
}

/// The digests behind the name of a directory in the text of a mount table.
fn digests_behind(directory: &str, mounts: &str) -> Vec<Digest> {
    let after = mounts.split(directory).skip(1);
    after.filter_map(|rest| format!("sha256:{}", rest.get(..64)?).parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_found_in_a_mount_table() {
        let [a, b] = [Digest::of(b"a"), Digest::of(b"b")];
        let at = |digest: &Digest| format!("/s/layers/sha256/{}/fs", digest.hex());
        let table = format!(
            "1 2 0:3 / / rw - overlay overlay rw,lowerdir={}:{},upperdir=/x\n4 5 0:6 / /y rw - ext4 /dev/z rw\n",
            at(&a),
            at(&b)
        );
        assert_eq!(digests_behind("/layers/sha256/", &table), [a, b]);
        assert!(digests_behind("/layers/sha256/", "/layers/sha256/short").is_empty());
    }
}
