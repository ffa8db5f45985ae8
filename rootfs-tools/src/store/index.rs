//! Names: `index.json`, replaced as a whole under a lock of its own.

use super::Store;
use super::lock::Lock;
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::image::config::{ImageConfig, chain_ids};
use crate::image::document::{self, Descriptor, Index, Manifest, REF_NAME};
use crate::reference::{DOCKER, Reference};
use std::fs;
use std::io::ErrorKind;

/// An image of the store, with its documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name in full.
    pub name: String,
    /// Its descriptor: the digest of the manifest is the digest of the image.
    pub descriptor: Descriptor,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its configuration.
    pub config: ImageConfig,
}

impl Image {
    /// The chain id of every layer, the lowest first.
    pub fn chain(&self) -> Vec<Digest> {
        chain_ids(&self.config.rootfs.diff_ids)
    }
}

impl Store {
    /// All names, as the index has them.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn index(&self) -> Result<Index> {
        match fs::read(self.root.join("index.json")) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Index::default()),
            Err(error) => Err(error.into()),
            Ok(bytes) => Index::parse(&bytes),
        }
        .context(|| "read index.json of the store".into())
    }

    /// Changes the index. Nobody else does at the same time.
    ///
    /// # Errors
    /// That of the change, or when the index cannot be written.
    pub fn change_index<T>(&self, change: impl FnOnce(&mut Index) -> Result<T>) -> Result<T> {
        let _lock = Lock::exclusive(&self.root.join("index.lock"))
            .context(|| "lock index.json of the store".into())?;
        let mut index = self.index()?;
        let value = change(&mut index)?;
        index
            .manifests
            .sort_by(|a, b| a.ref_name().cmp(&b.ref_name()).then(a.digest.cmp(&b.digest)));
        self.replace("index.json", &document::to_bytes(&index)?)?;
        Ok(value)
    }

    /// Gives an image a name, which another image may have had.
    ///
    /// # Errors
    /// When the index cannot be written.
    pub fn set_name(&self, name: &Reference, mut image: Descriptor) -> Result<()> {
        let name = name.to_string();
        self.change_index(|index| {
            index.manifests.retain(|other| other.ref_name() != Some(&name));
            image.annotations.insert(REF_NAME.into(), name);
            index.manifests.push(image);
            Ok(())
        })
    }

    /// Takes a name away. The image stays until it is collected.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`].
    pub fn remove_name(&self, name: &Reference) -> Result<Descriptor> {
        let text = name.to_string();
        self.change_index(|index| {
            let found = index.manifests.iter().position(|other| other.ref_name() == Some(&text));
            found.map(|at| index.manifests.remove(at)).ok_or_else(|| self.no_such_image(&text))
        })
    }

    /// The image of a name. A digest after the name must be its digest.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; or when one of its documents is missing or damaged.
    pub fn image(&self, name: &Reference) -> Result<Image> {
        let text = name.to_string();
        let index = self.index()?;
        let found = index.manifests.iter().find(|descriptor| match &name.digest {
            Some(digest) if name.tag.is_none() => {
                descriptor.digest == *digest || descriptor.ref_name() == Some(&text)
            }
            _ => descriptor.ref_name() == Some(&text),
        });
        let Some(descriptor) = found else {
            // What Docker saved has its registry in the name, whether or not anybody wrote it.
            let at_docker = name.host.is_none().then(|| self.image(&name.at(DOCKER)).ok());
            return at_docker.flatten().ok_or_else(|| self.no_such_image(&text));
        };
        self.read_image(descriptor.clone()).context(|| format!("image `{text}`"))
    }

    /// The image with this digest, whatever its names.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; or when one of its documents is missing or damaged.
    pub fn image_by_digest(&self, digest: &Digest) -> Result<Image> {
        let named = self.index()?.manifests.into_iter().find(|image| image.digest == *digest);
        let descriptor = named.ok_or_else(|| self.no_such_image(&digest.to_string()))?;
        self.read_image(descriptor).context(|| format!("image {digest}"))
    }

    /// All images, sorted by name.
    ///
    /// # Errors
    /// When a document is missing or damaged.
    pub fn images(&self) -> Result<Vec<Image>> {
        let read = |descriptor: Descriptor| {
            let name = descriptor.ref_name().unwrap_or("(no name)").to_owned();
            self.read_image(descriptor).context(|| format!("image `{name}`"))
        };
        self.index()?.manifests.into_iter().map(read).collect()
    }

    /// Reads the documents of an image, whether it has a name or not.
    ///
    /// # Errors
    /// When a document is missing or damaged.
    pub fn read_image(&self, descriptor: Descriptor) -> Result<Image> {
        if !descriptor.is_manifest() {
            return Err(Error::Unsupported(format!(
                "it is of the type {}, not an image manifest",
                descriptor.media_type
            )));
        }
        let manifest = Manifest::parse(&self.read_document(&descriptor)?)?;
        let config: ImageConfig = document::parse(&self.read_document(&manifest.config)?)?;
        config.check(manifest.layers.len())?;
        let name = descriptor.ref_name().unwrap_or_default().to_owned();
        Ok(Image { name, descriptor, manifest, config })
    }

    fn no_such_image(&self, name: &str) -> Error {
        Error::NoSuchImage { name: name.to_owned(), store: self.root.clone() }
    }
}
