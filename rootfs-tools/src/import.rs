//! An image comes into the store: its layers are read once, verified, kept and unpacked.
//!
//! ```text
//! 1  plan      which layers are there already, which must be read
//! 2  read      all others, several at a time: digest, keep, decompress, unpack   (tmp/)
//! 3  settle    from the lowest to the topmost: what depends on the layers below
//! 4  publish   blobs, each flushed, and layers get their names, then the image gets its own
//! ```
//! The layers' files are flushed afterwards, by whoever opened the store (`store::durable`).
//! Until step 4 nothing can be seen, and a death before it leaves a directory in `tmp/`.

use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::image::config::{ImageConfig, chain_ids};
use crate::image::document::{self, CONFIG, Descriptor, MANIFEST, Manifest};
use crate::image::view::View;
use crate::layer::attributes::Notices;
use crate::layer::decode::{Decoded, decode};
use crate::layer::limits::Limits;
use crate::layer::unpack::Unpacking;
use crate::layer::walk::Walk;
use crate::progress::{Part, Progress, Silent, Watched};
use crate::reference::Reference;
use crate::source::{Configuration, SourceImage, SourceLayer};
use crate::store::Store;
use crate::store::layers::{LayerRecord, NewLayer};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// How an image is brought into the store.
#[derive(Debug, Clone, Copy)]
pub struct How<'a> {
    /// What it may ask for.
    pub limits: Limits,
    /// Who is told how far it is.
    pub progress: &'a dyn Progress,
}

impl Default for How<'_> {
    fn default() -> Self {
        Self { limits: Limits::default(), progress: &Silent }
    }
}

/// What an import did.
#[derive(Debug)]
pub struct Imported {
    /// The descriptor of the image.
    pub image: Descriptor,
    /// How many layers it has.
    pub layers: usize,
    /// How many of them were there already.
    pub shared: usize,
    /// What was left out.
    pub notices: Notices,
}

/// What is known about a layer when it has been read.
struct Read {
    decoded: Decoded,
    layer: NewLayer,
    unpacking: Unpacking,
    /// Where the blob lies, to be published; nowhere, when the store has it.
    kept: Option<PathBuf>,
}

/// The state of one layer of the image.
enum Layer {
    /// In the store, unpacked, from this blob.
    There(Box<Descriptor>, Digest),
    /// Just read.
    New(Box<Read>),
}

/// Brings an image into the store and gives it a name.
///
/// # Errors
/// When the source is damaged, breaks a limit, or cannot be read; then the store is as it was.
pub fn import(
    store: &Store,
    source: &SourceImage,
    name: &Reference,
    how: How<'_>,
) -> Result<Imported> {
    let imported = nameless(store, source, how)?;
    store.set_name(name, imported.image.clone())?;
    Ok(imported)
}

/// Brings an image into the store. Without a name it stays until the next collection, which does
/// not begin before the store is closed.
///
/// # Errors
/// As for [`import`].
pub fn nameless(store: &Store, source: &SourceImage, how: How<'_>) -> Result<Imported> {
    let layers = read_layers(store, source, how)?;
    let diff_ids: Vec<_> = layers.iter().map(Layer::diff_id).collect();
    let chain = chain_ids(&diff_ids);
    let shared = layers.iter().filter(|layer| matches!(layer, Layer::There(..))).count();
    let mut notices = Notices::default();
    let descriptors = settle(store, layers, &chain, &mut notices)?;
    let image = write_documents(store, source, descriptors, diff_ids)?;
    Ok(Imported { image, layers: chain.len(), shared, notices })
}

impl Layer {
    fn diff_id(&self) -> Digest {
        match self {
            Layer::There(_, diff_id) => *diff_id,
            Layer::New(read) => read.decoded.diff_id,
        }
    }
}

/// At least so many layers are read at a time: a download waits more than it works.
const LEAST_THREADS: usize = 4;

/// Reads all layers that are not there, several at a time. The first error stops all.
fn read_layers(store: &Store, source: &SourceImage, how: How<'_>) -> Result<Vec<Layer>> {
    let count = source.layers.len();
    // Above a layer whose diffID is not known yet no chain id is.
    let known: Vec<_> = source.layers.iter().map_while(|layer| layer.diff_id).collect();
    let chain = chain_ids(&known);
    let results: Vec<Mutex<Option<Result<Layer>>>> = (0..count).map(|_| Mutex::default()).collect();
    // The largest first, so that no thread begins it when the others are done.
    let mut order: Vec<_> = (0..count).collect();
    let size = |at: &usize| source.layers[*at].blob.as_ref().map_or(0, |blob| blob.size);
    order.sort_by_key(|at| std::cmp::Reverse(size(at)));
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let work = || {
        while let Some(&at) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            if failed.load(Ordering::Relaxed) {
                return;
            }
            let layer = &source.layers[at];
            let chain_id = chain.get(at).copied();
            let part = Part {
                number: at + 1,
                count,
                digest: layer.blob.as_ref().map(|blob| blob.digest).or(layer.diff_id),
                bytes: layer.blob.as_ref().map(|blob| blob.size),
            };
            let result = read_layer(store, layer, chain_id, part, how)
                .context(|| format!("layer {} of {count}{}", at + 1, named(layer)));
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            if let Ok(mut slot) = results[at].lock() {
                *slot = Some(result);
            }
        }
    };
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let threads = processors.max(LEAST_THREADS).min(count);
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let results = results.into_iter().filter_map(|slot| slot.into_inner().ok().flatten());
    let layers = results.collect::<Result<Vec<_>>>()?;
    if layers.len() == count {
        Ok(layers)
    } else {
        Err(Error::Invalid("a layer was not read".into()))
    }
}

fn named(layer: &SourceLayer) -> String {
    let digest = layer.blob.as_ref().map(|blob| blob.digest).or(layer.diff_id);
    digest.map_or_else(String::new, |digest| format!(", {digest}"))
}

fn read_layer(
    store: &Store,
    source: &SourceLayer,
    chain_id: Option<Digest>,
    part: Part,
    how: How<'_>,
) -> Result<Layer> {
    if let Some(record) = chain_id.map(|chain_id| store.layer(&chain_id)).transpose()?.flatten()
        && store.has_blob(&record.blob)
        && source.blob.as_ref().is_none_or(|blob| blob.digest == record.blob.digest)
    {
        if let (Some(chain_id), Some(_)) = (chain_id, record.boot) {
            store.note(|unflushed| &mut unflushed.met, chain_id);
        }
        return Ok(Layer::There(Box::new(record.blob), record.diff_id));
    }
    if let Some(chain_id) = chain_id.filter(|chain_id| store.is_lost(chain_id)) {
        store.note(|unflushed| &mut unflushed.again, chain_id);
    }
    let layer = store.new_layer()?;
    let here = source.blob.as_ref().filter(|blob| store.has_blob(blob));
    let kept = match (here, &source.kept) {
        (Some(_), _) => None,
        (None, Some(path)) => Some(path.clone()),
        (None, None) => Some(layer.blob()),
    };
    let result = decode_layer(store, source, here, &layer, how, part);
    if let (Err(error), Some(path)) = (&result, &source.kept)
        && !matches!(error.innermost(), Error::Network(_))
    {
        // What arrived is not what was promised; the next try must not go on with it.
        drop(std::fs::remove_file(path));
    }
    let (decoded, unpacking) = result?;
    if let Some(file) = &kept {
        // A blob cannot be made again. The other threads work meanwhile.
        let flush = || File::open(file)?.sync_all();
        flush().context(|| "flush the blob".into())?;
    }
    Ok(Layer::New(Box::new(Read { decoded, layer, unpacking, kept })))
}

/// Reads a layer once: every byte digested, kept, decompressed, unpacked. It is what the source
/// promised, or an error.
fn decode_layer(
    store: &Store,
    source: &SourceLayer,
    here: Option<&Descriptor>,
    layer: &NewLayer,
    how: How<'_>,
    part: Part,
) -> Result<(Decoded, Unpacking)> {
    let limits = how.limits;
    let mut unpacking = Unpacking::new(layer.tree()?, layer.record()?, store.form(), limits)?;
    let input: Box<dyn io::Read + Send> = match here {
        Some(blob) => Box::new(store.open_blob(&blob.digest)?),
        None => (source.open)()?,
    };
    let input = Watched::new(input, how.progress.begin(part));
    let keep: Box<dyn io::Write + Send> = match (here, &source.kept) {
        (None, None) => Box::new(File::create_new(layer.blob())?),
        _ => Box::new(io::sink()),
    };
    let (decoded, unpacking) = decode(input, keep, limits, |chunks| {
        unpacking.write(&mut Walk::new(chunks, limits))?;
        Ok(unpacking)
    })?;
    if let Some(blob) = &source.blob {
        blob.digest.expect(decoded.blob)?;
        if blob.size != decoded.blob_bytes {
            return Err(Error::Invalid(format!(
                "it has {} bytes, and its descriptor says {}",
                decoded.blob_bytes, blob.size
            )));
        }
    }
    if let Some(diff_id) = &source.diff_id {
        diff_id.expect(decoded.diff_id).context(|| "uncompressed".into())?;
    }
    Ok((decoded, unpacking))
}

/// Completes the new layers from the lowest up, and gives them their places.
fn settle(
    store: &Store,
    layers: Vec<Layer>,
    chain: &[Digest],
    notices: &mut Notices,
) -> Result<Vec<Descriptor>> {
    let count = layers.len();
    let mut descriptors = Vec::new();
    let mut trees: Vec<PathBuf> = Vec::new();
    let mut fresh = Vec::new();
    for (at, layer) in layers.into_iter().enumerate() {
        let read = match layer {
            Layer::There(blob, _) => {
                trees.insert(0, store.tree_path(&chain[at]));
                descriptors.push(*blob);
                continue;
            }
            Layer::New(read) => read,
        };
        let Read { decoded, layer, unpacking, kept } = *read;
        let step = || format!("layer {} of {count}, {}", at + 1, decoded.blob);
        let blob = Descriptor::of_layer(decoded.compression, decoded.blob, decoded.blob_bytes);
        let unpacked = unpacking.complete(&View::open(&trees, store.form())?).context(step)?;
        notices.merge(&unpacked.notices);
        let below = at.checked_sub(1).map(|below| chain[below]);
        let record = LayerRecord {
            tree: unpacked.tree,
            bytes: decoded.bytes,
            entries: unpacked.entries,
            ..LayerRecord::new(decoded.diff_id, below, blob.clone(), store.form())
        };
        store.seal_layer(&layer, &record).context(step)?;
        trees.insert(0, layer.tree_path());
        descriptors.push(blob);
        fresh.push((layer, chain[at], decoded.blob, kept));
    }
    if store.boot().id().is_none() && !fresh.is_empty() {
        // Nobody could tell afterwards whether the machine was started again.
        store.flush()?;
    }
    for (layer, chain_id, blob, kept) in fresh {
        if let Some(file) = kept {
            store.publish_blob(&file, &blob)?;
        }
        store.publish_layer(layer, &chain_id)?;
    }
    store.flush_names()?;
    Ok(descriptors)
}

/// Writes the documents: as they came, or made for what had none.
fn write_documents(
    store: &Store,
    source: &SourceImage,
    layers: Vec<Descriptor>,
    diff_ids: Vec<Digest>,
) -> Result<Descriptor> {
    let config_bytes = match &source.config {
        Configuration::Given(_, bytes) => bytes.clone(),
        Configuration::Made(config) => {
            let mut config: ImageConfig = config.as_ref().clone();
            config.rootfs.diff_ids = diff_ids;
            document::to_bytes(&config)?
        }
    };
    let image = match &source.manifest {
        Some((descriptor, bytes)) => {
            let media_type = Manifest::parse(bytes)?.config.media_type;
            store.add_document(&media_type, &config_bytes)?;
            store.add_document(&descriptor.media_type, bytes)?
        }
        None => {
            let config = store.add_document(CONFIG, &config_bytes)?;
            store.add_document(MANIFEST, &document::to_bytes(&Manifest::new(config, layers))?)?
        }
    };
    store.flush_names()?;
    Ok(image)
}
