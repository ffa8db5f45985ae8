//! Manifests, indexes and descriptors (image-spec: manifest.md, image-index.md, descriptor.md).
//!
//! Types of our own and not oci-spec's: those keep annotations in a `HashMap` and drop fields that
//! they do not know, so that reading and writing a document would change its bytes, and with them
//! its digest, in a different way each time.

use super::platform::Platform;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::layer::compression::Compression;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The media type of an OCI manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an OCI index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of an image configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The media type of an uncompressed layer; a suffix names the compression.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Docker's manifest, which is the same document.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's manifest list, which is the same document as an index.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// The annotation that gives a descriptor of an index its name (annotations.md).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// What the specification has no field for, or a later version of it has.
type Extra = BTreeMap<String, Value>;
type Annotations = BTreeMap<String, String>;

/// A document or a blob, named by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Which it is.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What is said about it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
    /// What it runs on, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What else there is.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Descriptor {
    /// A descriptor of some bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// A descriptor.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            annotations: Annotations::new(),
            platform: None,
            extra: Extra::new(),
        }
    }

    /// A descriptor of a layer.
    pub fn of_layer(compression: Compression, digest: Digest, size: u64) -> Self {
        Self::new(format!("{LAYER}{}", compression.suffix()), digest, size)
    }

    /// Whether it names a manifest.
    pub fn is_manifest(&self) -> bool {
        matches!(self.media_type.as_str(), MANIFEST | DOCKER_MANIFEST)
    }

    /// Whether it names an index.
    pub fn is_index(&self) -> bool {
        matches!(self.media_type.as_str(), INDEX | DOCKER_INDEX)
    }

    /// The name that an index gives it.
    pub fn ref_name(&self) -> Option<&str> {
        self.annotations.get(REF_NAME).map(String::as_str)
    }
}

/// An image: a configuration and layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// What this document is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, the lowest first.
    pub layers: Vec<Descriptor>,
    /// What is said about the image.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
    /// What else there is.
    #[serde(flatten)]
    pub extra: Extra,
}

/// More layers than this cannot be mounted: the kernel takes 500 of overlayfs.
const MOST_LAYERS: usize = 500;

impl Manifest {
    /// A manifest of ours.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(MANIFEST.into()),
            config,
            layers,
            annotations: Annotations::new(),
            extra: Extra::new(),
        }
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// When it is none, when it is an index as well (a document with two meanings,
    /// CVE-2021-41190), and when it has more layers than can be mounted.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let manifest: Self = parse(bytes)?;
        if manifest.schema_version != 2 {
            return Err(Error::Unsupported(format!(
                "the manifest has the schema version {}, and images have 2",
                manifest.schema_version
            )));
        }
        let misnamed = manifest
            .media_type
            .as_deref()
            .is_some_and(|media_type| !matches!(media_type, MANIFEST | DOCKER_MANIFEST));
        if misnamed || manifest.extra.contains_key("manifests") {
            return Err(Error::Invalid(
                "the manifest says that it is something else as well".into(),
            ));
        }
        if manifest.layers.len() > MOST_LAYERS {
            let count = manifest.layers.len();
            return Err(Error::Unsupported(format!(
                "the image has {count} layers, and overlayfs stacks {MOST_LAYERS}"
            )));
        }
        Ok(manifest)
    }
}

/// A list of images: those of a layout, or one image for several platforms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// What this document is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The images.
    #[serde(default, deserialize_with = "or_default")]
    pub manifests: Vec<Descriptor>,
    /// What is said about the list.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
    /// What else there is.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            schema_version: 2,
            media_type: Some(INDEX.into()),
            manifests: Vec::new(),
            annotations: Annotations::new(),
            extra: Extra::new(),
        }
    }
}

impl Index {
    /// Reads an index.
    ///
    /// # Errors
    /// When it is none, or is a manifest as well (CVE-2021-41190).
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let index: Self = parse(bytes)?;
        if index.extra.contains_key("layers") || index.extra.contains_key("config") {
            return Err(Error::Invalid("the index says that it is a manifest as well".into()));
        }
        Ok(index)
    }
}

/// Reads a JSON document.
///
/// # Errors
/// [`Error::Json`], with the line and the column.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    Ok(serde_json::from_slice(bytes)?)
}

/// The bytes of a document: compact, and the same each time.
///
/// # Errors
/// When a value has no form in JSON.
pub fn to_bytes(document: &impl Serialize) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(document)?)
}

/// Go writes `null` for what is empty.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_document_is_written_as_it_was_read() {
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"x","digest":"{DIGEST}","size":0}},"layers":[],"annotations":{{"a":"1","b":"2"}},"later":{{"x":[1]}}}}"#
        );
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(to_bytes(&manifest).unwrap()).unwrap(), text);
    }

    #[test]
    fn a_document_with_two_meanings_is_refused() {
        let config = format!(r#"{{"mediaType":"x","digest":"{DIGEST}","size":0}}"#);
        let both = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"manifests":[]}}"#);
        assert!(Manifest::parse(both.as_bytes()).is_err());
        assert!(Index::parse(both.as_bytes()).is_err());
        let misnamed =
            format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","config":{config},"layers":[]}}"#);
        assert!(Manifest::parse(misnamed.as_bytes()).is_err());
    }

    #[test]
    fn go_writes_null_for_nothing() {
        let index =
            Index::parse(br#"{"schemaVersion":2,"manifests":null,"annotations":null}"#).unwrap();
        assert!(index.manifests.is_empty());
    }
}
