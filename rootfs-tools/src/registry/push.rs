//! Push: an image of the store goes to a registry. Blobs first, those that it lacks, several at a
//! time; then the manifest, which makes it an image.

use super::client::{Client, Options, expect};
use super::upload::{Arrival, Upload};
use crate::error::{Context, Error, Result};
use crate::image::document::Descriptor;
use crate::progress::{Part, Progress};
use crate::reference::Reference;
use crate::store::Store;
use crate::store::index::Image;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use ureq::SendBody;
use ureq::http::{Method, StatusCode};

/// What a push did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Blobs that were sent.
    pub sent: usize,
    /// Blobs that were there already.
    pub present: usize,
    /// Blobs that the registry took from another of its repositories.
    pub mounted: usize,
    /// The bytes of those that were sent.
    pub bytes: u64,
}

/// So many blobs are sent at a time.
const THREADS: usize = 4;

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
    let others = neighbours(store, host, target)?;
    let pushed = send_all(store, &client, &image, &others, progress)?;
    let manifest = store.read_document(&image.descriptor)?;
    let url = client.url(&format!("manifests/{tag}"));
    // Not in chunks: not every registry takes a manifest whose length it is not told.
    let length = manifest.len().to_string();
    let kind = ("Content-Type", image.descriptor.media_type.as_str());
    let headers = [kind, ("Content-Length", length.as_str())];
    let response = client.send(Method::PUT, &url, &headers, || {
        Ok(SendBody::from_owned_reader(std::io::Cursor::new(manifest.clone())))
    })?;
    expect(response, &[StatusCode::CREATED])
        .context(|| format!("push the manifest to {target}"))?;
    Ok(pushed)
}

/// The images of the store that are named as being in the same registry, elsewhere: it may have
/// their blobs already. A damaged one is no reason not to push another.
fn neighbours(store: &Store, host: &str, target: &Reference) -> Result<Vec<(String, Image)>> {
    let mut found = Vec::new();
    for descriptor in store.index()?.manifests {
        let name = descriptor.ref_name().and_then(|name| name.parse::<Reference>().ok());
        let Some(name) = name.filter(|name| name.host.as_deref() == Some(host)) else { continue };
        if name.path != target.path
            && let Ok(image) = store.read_image(descriptor)
        {
            found.push((name.path, image));
        }
    }
    Ok(found)
}

fn blobs_of(image: &Image) -> impl Iterator<Item = &Descriptor> {
    image.manifest.layers.iter().chain([&image.manifest.config])
}

/// Sends all blobs, the largest first. The first error stops all.
fn send_all(
    store: &Store,
    client: &Client,
    image: &Image,
    others: &[(String, Image)],
    progress: &dyn Progress,
) -> Result<Pushed> {
    let blobs: Vec<_> = blobs_of(image).collect();
    let count = blobs.len();
    let mut order: Vec<_> = (0..count).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(blobs[at].size));
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done: Mutex<Vec<(usize, Result<Arrival>)>> = Mutex::default();
    let work = || {
        while let Some(&at) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            if failed.load(Ordering::Relaxed) {
                return;
            }
            let blob = blobs[at];
            let has_it = |image: &Image| blobs_of(image).any(|other| other.digest == blob.digest);
            let elsewhere = others.iter().find(|(_, image)| has_it(image));
            let bytes = Some(blob.size);
            let upload = Upload {
                client,
                blob,
                path: store.blob_path(&blob.digest),
                elsewhere: elsewhere.map(|(path, _)| path.clone()),
                part: Part { number: at + 1, count, digest: Some(blob.digest), bytes },
                progress,
            };
            let result = upload.run().context(|| format!("push {}", blob.digest));
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            if let Ok(mut done) = done.lock() {
                done.push((at, result));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..THREADS.min(count) {
            scope.spawn(work);
        }
        work();
    });
    let mut pushed = Pushed::default();
    for (at, result) in done.into_inner().unwrap_or_default() {
        match result? {
            Arrival::Present => pushed.present += 1,
            Arrival::Mounted => pushed.mounted += 1,
            Arrival::Sent => {
                pushed.sent += 1;
                pushed.bytes += blobs[at].size;
            }
        }
    }
    if pushed.present + pushed.mounted + pushed.sent == count {
        return Ok(pushed);
    }
    Err(Error::Invalid("a blob was not sent".into()))
}
