//! An image leaves the store: one archive that is an OCI layout and what `docker load` reads, both
//! about the same blobs.

use crate::error::{Context, Error, Result};
use crate::image::document::{self, Index, REF_NAME};
use crate::store::Store;
use crate::store::index::Image;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use tar::{EntryType, Header};

/// Writes an archive. The same image gives the same bytes.
///
/// # Errors
/// When a blob is missing, or the archive cannot be written.
pub fn export(store: &Store, image: &Image, output: impl Write) -> Result<()> {
    let mut archive = tar::Builder::new(output);
    let blob = |digest: &crate::Digest| format!("blobs/sha256/{}", digest.hex());
    let mut blobs = BTreeMap::new();
    let manifest = &image.manifest;
    for descriptor in manifest.layers.iter().chain([&manifest.config, &image.descriptor]) {
        blobs.insert(descriptor.digest, descriptor.size);
    }
    let mut descriptor = image.descriptor.clone();
    descriptor.annotations.insert(REF_NAME.into(), image.name.clone());
    let index = Index { manifests: vec![descriptor], ..Index::default() };
    let docker = json!([{
        "Config": blob(&manifest.config.digest),
        "RepoTags": [image.name],
        "Layers": manifest.layers.iter().map(|layer| blob(&layer.digest)).collect::<Vec<_>>(),
    }]);
    // Documents first, so that a reader of a stream knows early what it reads.
    add(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add(&mut archive, "index.json", &document::to_bytes(&index)?)?;
    add(&mut archive, "manifest.json", &document::to_bytes(&docker)?)?;
    for (digest, size) in blobs {
        let file = store.open_blob(&digest)?;
        add_file(&mut archive, &blob(&digest), size, file)
            .context(|| format!("export {digest}"))?;
    }
    archive.into_inner()?.flush()?;
    Ok(())
}

fn add(archive: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> Result<()> {
    append(archive, name, bytes.len() as u64, bytes)
}

fn add_file(
    archive: &mut tar::Builder<impl Write>,
    name: &str,
    size: u64,
    file: File,
) -> Result<()> {
    if file.metadata()?.len() != size {
        return Err(Error::Invalid("the blob has not the size that its image says".into()));
    }
    append(archive, name, size, file.take(size))
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    name: &str,
    size: u64,
    content: impl Read,
) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_path(name)?;
    header.set_mode(0o644);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(archive.append(&header, content)?)
}
