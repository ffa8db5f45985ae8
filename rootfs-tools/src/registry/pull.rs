//! Pull: an image of a registry as a source.

use super::client::{Client, Options, expect, read};
use super::download::Download;
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::image::config::ImageConfig;
use crate::image::document::{
    self, DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, INDEX, Index, MANIFEST, Manifest,
};
use crate::image::platform::{Platform, choose};
use crate::reference::{DOCKER, Reference};
use crate::source::{Configuration, SourceImage, SourceLayer};
use crate::store::Store;
use crate::store::blobs::read_document;
use std::sync::Arc;
use ureq::http::{Method, StatusCode};

/// Finds an image at the mirrors and then at its own registry. Its layers are downloaded when
/// they are opened.
///
/// # Errors
/// When no host has it, with what each said.
pub fn find(
    store: &Store,
    name: &Reference,
    platform: &Platform,
    options: &Options,
) -> Result<SourceImage> {
    let Some(host) = &name.host else {
        return Err(Error::Invalid(format!(
            "`{name}` names no registry; write it out, as in {} (what Docker means by it), or say \
             which registry such names are of: MINIRUN_REGISTRY={DOCKER}",
            name.at(DOCKER)
        )));
    };
    let mut refusals = Vec::new();
    for host in options.mirrors.iter().chain([host]) {
        match find_at(store, host, name, platform, options) {
            Ok(image) => return Ok(image),
            Err(error) => refusals.push(format!("{host}: {}", error.chain())),
        }
    }
    Err(Error::Network(refusals.join("; ")))
}

fn find_at(
    store: &Store,
    host: &str,
    name: &Reference,
    platform: &Platform,
    options: &Options,
) -> Result<SourceImage> {
    let client = Arc::new(Client::new(host, name, options)?);
    let wanted = match (&name.digest, &name.tag) {
        (Some(digest), _) => digest.to_string(),
        (None, Some(tag)) => tag.clone(),
        (None, None) => "latest".into(),
    };
    let (mut image, mut bytes) = manifest(&client, &wanted)?;
    if let Some(digest) = name.digest {
        digest.expect(image.digest)?;
    }
    if image.is_index() {
        let index = Index::parse(&bytes).context(|| format!("index {}", image.digest))?;
        let chosen = choose(&index.manifests, platform)?;
        (image, bytes) = manifest(&client, &chosen.digest.to_string())?;
        chosen.digest.expect(image.digest)?;
    }
    if !image.is_manifest() {
        return Err(Error::Unsupported(format!(
            "it is of the type {}, not an image",
            image.media_type
        )));
    }
    let manifest = Manifest::parse(&bytes).context(|| format!("manifest {}", image.digest))?;
    let step = || format!("configuration {}", manifest.config.digest);
    let url = client.url(&format!("blobs/{}", manifest.config.digest));
    let response = client.request(Method::GET, &url, &[])?;
    let response = expect(response, &[StatusCode::OK]).context(step)?;
    let config_bytes = read_document(&read(response)?[..], &manifest.config).context(step)?;
    let config: ImageConfig = document::parse(&config_bytes).context(step)?;
    config.check(manifest.layers.len())?;
    let mut layers = Vec::new();
    for (blob, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
        let partial = store.root().join("partial/sha256").join(blob.digest.hex());
        let (client, descriptor, path) = (client.clone(), blob.clone(), partial.clone());
        layers.push(SourceLayer {
            blob: Some(blob.clone()),
            diff_id: Some(*diff_id),
            open: Box::new(move || {
                Ok(Box::new(Download::new(client.clone(), &descriptor, &path)?))
            }),
            kept: Some(partial),
        });
    }
    let config = Configuration::Given(Box::new(config), config_bytes);
    let name = Some(name.to_string());
    Ok(SourceImage { manifest: Some((image, bytes)), config, layers, name })
}

/// Gets a manifest or an index, and says what it is.
fn manifest(client: &Client, wanted: &str) -> Result<(Descriptor, Vec<u8>)> {
    let url = client.url(&format!("manifests/{wanted}"));
    let accept = [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX].join(", ");
    let response = client.request(Method::GET, &url, &[("Accept", &accept)])?;
    let response = expect(response, &[StatusCode::OK]).context(|| format!("GET {url}"))?;
    let text = |name: &str| {
        response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let (media_type, digest) = (text("content-type"), text("docker-content-digest"));
    let bytes = read(response)?;
    let media_type = media_type.unwrap_or_else(|| MANIFEST.into());
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
    let image = Descriptor::of(&media_type, &bytes);
    // The registry's word for it is one more witness, when it is a digest that we compute.
    if let Some(Ok(promised)) = digest.map(|digest| digest.parse::<Digest>()) {
        promised.expect(image.digest).context(|| format!("GET {url}"))?;
    }
    Ok((image, bytes))
}
