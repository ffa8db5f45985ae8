//! An OCI image layout (image-spec, image-layout.md): a directory, or a tar of one.

use super::{Configuration, Selection, SourceImage, SourceLayer};
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::image::config::ImageConfig;
use crate::image::document::{self, Descriptor, Index, Manifest};
use crate::image::platform::choose;
use crate::layer::limits::Limits;
use crate::store::blobs::read_document;
use std::fmt::Debug;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A place with files that are named as in a layout.
pub trait Blobs: Debug + Send + Sync {
    /// Reads a small file: `index.json`.
    ///
    /// # Errors
    /// When it is not there, or not small.
    fn document(&self, name: &str) -> Result<Vec<u8>>;

    /// Opens a file: `blobs/sha256/…`.
    ///
    /// # Errors
    /// When it is not there.
    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>>;
}

/// A layout that is a directory.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// The layout in this directory.
    pub fn new(root: &Path) -> Self {
        Self(root.to_path_buf())
    }
}

impl Blobs for Directory {
    fn document(&self, name: &str) -> Result<Vec<u8>> {
        read_small(self.open(name)?)
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>> {
        let path = self.0.join(name);
        let file = File::open(&path).context(|| format!("open {}", path.display()))?;
        Ok(Box::new(file))
    }
}

/// Reads what must be a document by its size.
///
/// # Errors
/// When it is too large.
pub fn read_small(input: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(Limits::DOCUMENT_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > Limits::DOCUMENT_BYTES {
        return Err(Error::Invalid(format!(
            "the document is larger than {} bytes",
            Limits::DOCUMENT_BYTES
        )));
    }
    Ok(bytes)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// An index may name an index; more than this would be a riddle and not an image.
const DEEPEST_INDEX: usize = 4;

/// Finds the image that is meant.
///
/// # Errors
/// When there is none, or more than one, or a document is damaged.
pub fn load(blobs: Arc<dyn Blobs>, selection: &Selection) -> Result<SourceImage> {
    let index = blobs.document("index.json")?;
    let index = Index::parse(&index).context(|| "index.json".into())?;
    let chosen = by_name(&index.manifests, selection.name.as_deref())?;
    let name = chosen.ref_name().map(str::to_owned);
    let read = |descriptor: &Descriptor| -> Result<Vec<u8>> {
        let input = blobs.open(&blob_name(&descriptor.digest))?;
        read_document(input, descriptor).context(|| descriptor.digest.to_string())
    };
    let mut descriptor = chosen.clone();
    for _ in 0..DEEPEST_INDEX {
        if !descriptor.is_index() {
            break;
        }
        let step = || format!("index {}", descriptor.digest);
        let nested = Index::parse(&read(&descriptor)?).context(step)?;
        descriptor = choose(&nested.manifests, &selection.platform).context(step)?.clone();
    }
    if !descriptor.is_manifest() {
        return Err(Error::Unsupported(format!(
            "{} is of the type {}, not an image",
            descriptor.digest, descriptor.media_type
        )));
    }
    let bytes = read(&descriptor)?;
    let manifest = Manifest::parse(&bytes).context(|| format!("manifest {}", descriptor.digest))?;
    let config_bytes = read(&manifest.config)?;
    let config: ImageConfig = document::parse(&config_bytes)
        .context(|| format!("configuration {}", manifest.config.digest))?;
    config.check(manifest.layers.len())?;
    let layers = manifest.layers.iter().zip(&config.rootfs.diff_ids);
    let layers = layers
        .map(|(layer, diff_id)| {
            let (blobs, name) = (blobs.clone(), blob_name(&layer.digest));
            SourceLayer {
                blob: Some(layer.clone()),
                diff_id: Some(*diff_id),
                open: Box::new(move || blobs.open(&name)),
                kept: None,
            }
        })
        .collect();
    descriptor.annotations.clear();
    descriptor.platform = None;
    let config = Configuration::Given(Box::new(config), config_bytes);
    Ok(SourceImage { manifest: Some((descriptor, bytes)), config, layers, name })
}

/// The image of a list by its name; without a name, the only one.
fn by_name<'list>(images: &'list [Descriptor], name: Option<&str>) -> Result<&'list Descriptor> {
    let names = || {
        let names: Vec<_> =
            images.iter().map(|image| image.ref_name().unwrap_or("(no name)")).collect();
        names.join(", ")
    };
    match (name, images) {
        (None, [only]) => Ok(only),
        (None, []) => Err(Error::Invalid("the layout has no image".into())),
        (None, _) => Err(Error::Unsupported(format!(
            "the layout has {} images ({}); --ref NAME chooses one",
            images.len(),
            names()
        ))),
        (Some(name), _) => {
            let found = images
                .iter()
                .find(|image| image.ref_name() == Some(name) || image.digest.to_string() == name);
            found.ok_or_else(|| {
                Error::Invalid(format!("the layout has no image `{name}`, but: {}", names()))
            })
        }
    }
}
