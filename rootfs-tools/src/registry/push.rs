//! Push: an image of the store goes to a registry. Blobs first, those that it lacks; then the
//! manifest, which makes it an image.

use super::client::{Client, Options, expect};
use crate::error::{Context, Error, Result};
use crate::image::document::Descriptor;
use crate::progress::{Part, Progress, Watched};
use crate::reference::Reference;
use crate::store::Store;
use std::fs::File;
use ureq::SendBody;
use ureq::http::{Method, StatusCode};

/// What a push did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Blobs that were sent.
    pub sent: usize,
    /// Blobs that were there already.
    pub present: usize,
    /// The bytes of those that were sent.
    pub bytes: u64,
}

/// Sends an image to where its name says, or to `target`.
///
/// # Errors
/// When the registry refuses, or a blob of the store is damaged.
pub fn push(
    store: &Store,
    name: &Reference,
    target: &Reference,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Pushed> {
    let Some(host) = &target.host else {
        return Err(Error::Invalid(format!(
            "`{target}` names no registry; write it out: registry.example/{target}"
        )));
    };
    let Some(tag) = &target.tag else {
        return Err(Error::Invalid(format!("`{target}` has no tag to push to")));
    };
    let image = store.image(name)?;
    let client = Client::new(host, target, options)?;
    let mut pushed = Pushed::default();
    let blobs = image.manifest.layers.iter().chain([&image.manifest.config]);
    let count = image.manifest.layers.len() + 1;
    for (at, blob) in blobs.enumerate() {
        let bytes = Some(blob.size);
        let part = Part { number: at + 1, count, digest: Some(blob.digest), bytes };
        let sent = send_blob(store, &client, blob, part, progress)
            .context(|| format!("push {}", blob.digest))?;
        if sent {
            pushed.sent += 1;
            pushed.bytes += blob.size;
        } else {
            pushed.present += 1;
        }
    }
    let manifest = store.read_document(&image.descriptor)?;
    let url = client.url(&format!("manifests/{tag}"));
    let headers = [("Content-Type", image.descriptor.media_type.as_str())];
    let response = client.send(Method::PUT, &url, &headers, || {
        Ok(SendBody::from_owned_reader(std::io::Cursor::new(manifest.clone())))
    })?;
    expect(response, &[StatusCode::CREATED])
        .context(|| format!("push the manifest to {target}"))?;
    Ok(pushed)
}

/// Sends a blob unless it is there; whether it was sent.
fn send_blob(
    store: &Store,
    client: &Client,
    blob: &Descriptor,
    part: Part,
    progress: &dyn Progress,
) -> Result<bool> {
    let url = client.url(&format!("blobs/{}", blob.digest));
    if client.request(Method::HEAD, &url, &[])?.status() == StatusCode::OK {
        return Ok(false);
    }
    let url = client.url("blobs/uploads/");
    let response =
        client.send(Method::POST, &url, &[("Content-Length", "0")], || Ok(SendBody::none()))?;
    let response = expect(response, &[StatusCode::ACCEPTED])?;
    let location = response.headers().get("location").and_then(|value| value.to_str().ok());
    let location = location
        .ok_or_else(|| Error::Invalid("the registry does not say where to upload".into()))?;
    let separator = if location.contains('?') { '&' } else { '?' };
    let url = client.absolute(&format!("{location}{separator}digest={}", blob.digest));
    let length = blob.size.to_string();
    let headers = [("Content-Type", "application/octet-stream"), ("Content-Length", &length)];
    let path = store.blob_path(&blob.digest);
    let response = client.send(Method::PUT, &url, &headers, || {
        let file = Watched::new(File::open(&path)?, progress.begin(part));
        Ok(SendBody::from_owned_reader(file))
    })?;
    // The registry computes the digest of what it got: a damaged blob does not get through.
    expect(response, &[StatusCode::CREATED])?;
    Ok(true)
}
