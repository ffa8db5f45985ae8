//! What a RUN gave the last time, under a key of all that it depends on.
//!
//! COPY needs no memory: the same content gives the same layer, and the store keeps one of it. A
//! key leads to a blob and a diffID; it keeps nothing from being collected, and when the blob is
//! gone, the key leads nowhere and the step is done again.

use crate::digest::Digest;
use crate::error::Result;
use crate::image::document::{self, Descriptor};
use crate::store::Store;
use serde::{Deserialize, Serialize};
use std::fs;

/// The layer that a step made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Known {
    /// The layer.
    pub blob: Descriptor,
    /// The layer, uncompressed.
    pub diff_id: Digest,
}

/// The layer of a step whose key is known.
pub fn find(store: &Store, key: &Digest) -> Option<Known> {
    let bytes = fs::read(store.root().join("build").join(format!("{}.json", key.hex()))).ok()?;
    let known: Known = document::parse(&bytes).ok()?;
    store.has_blob(&known.blob).then_some(known)
}

/// Remembers the layer of a step.
///
/// # Errors
/// When it cannot be written.
pub fn remember(store: &Store, key: &Digest, known: &Known) -> Result<()> {
    store.replace(&format!("build/{}.json", key.hex()), &document::to_bytes(known)?)
}
