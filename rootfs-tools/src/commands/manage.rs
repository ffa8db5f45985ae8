//! `tag`, `rm`, `gc`, `df`: what is in the store, and for how long.

use super::output::Output;
use super::text;
use clap::Args;
use rootfs_tools::store::index::Image;
use rootfs_tools::{Context, Error, Reference, Result, Store};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;

/// Gives an image one more name
#[derive(Debug, Args)]
pub(crate) struct Tag {
    /// The image
    image: Reference,
    /// Its other name; another image that has it loses it
    name: Reference,
}

impl Tag {
    pub(crate) fn run(&self, store: &Store, output: Output) -> Result<()> {
        let image = store.image(&self.image)?;
        if self.name.digest.is_some() {
            return Err(Error::Invalid("a digest is not a name that can be given".into()));
        }
        let digest = image.descriptor.digest;
        store.set_name(&self.name, image.descriptor)?;
        output.done(
            || format!("{}: image {}", self.name, digest.short()),
            json!({"name": self.name.to_string(), "digest": digest}),
        )
    }
}

/// Takes names away from images; `gc` then frees what nothing needs
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// The names
    #[arg(required = true)]
    names: Vec<Reference>,
}

impl Rm {
    pub(crate) fn run(&self, store: &Store, output: Output) -> Result<()> {
        for name in &self.names {
            store.remove_name(name)?;
            let json = json!({"name": name.to_string(), "removed": true});
            output.done(|| format!("{name}: removed"), json)?;
        }
        Ok(())
    }
}

/// Frees what no image, no bundle and no running container needs
#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// Only says what would be freed
    #[arg(long)]
    dry_run: bool,
}

impl Gc {
    pub(crate) fn run(&self, store: Store, output: Output) -> Result<()> {
        let collected = store.collect(self.dry_run).context(|| "collect garbage".into())?;
        let json = json!({
            "blobs": collected.blobs,
            "layers": collected.layers,
            "bytes": collected.bytes,
            "dryRun": self.dry_run,
        });
        let words = || {
            let verb = if self.dry_run { "would free" } else { "freed" };
            let (blobs, layers) = (collected.blobs.len(), collected.layers.len());
            let size = text::size(collected.bytes);
            format!("{verb} {size}: {blobs} blobs, {layers} unpacked layers")
        };
        output.done(words, json)
    }
}

/// Shows what the store needs of the disk, and what sharing saves
#[derive(Debug, Args)]
pub(crate) struct Df {}

/// The sizes of one layer.
#[derive(Debug, Clone, Copy, Default)]
struct Use {
    images: u64,
    compressed: u64,
    unpacked: u64,
}

impl Df {
    pub(crate) fn run(&self, store: &Store, output: Output) -> Result<()> {
        let images = store.images()?;
        let mut layers = BTreeMap::new();
        for image in &images {
            for (chain_id, blob) in image.chain().into_iter().zip(&image.manifest.layers) {
                let unpacked = store.layer(&chain_id)?.map_or(0, |record| record.bytes);
                let entry = layers.entry(chain_id).or_insert(Use::default());
                *entry = Use { images: entry.images + 1, compressed: blob.size, unpacked };
            }
        }
        let sum = |size: fn(&Use) -> u64| layers.values().map(size).sum::<u64>();
        let compressed = sum(|layer| layer.compressed);
        let unpacked = sum(|layer| layer.unpacked);
        let saved = sum(|layer| (layer.images - 1) * (layer.compressed + layer.unpacked));
        let shared = layers.values().filter(|layer| layer.images > 1).count();
        if output.json {
            let report = json!({
                "images": images.len(),
                "layers": layers.len(),
                "sharedLayers": shared,
                "compressed": compressed,
                "unpacked": unpacked,
                "savedBySharing": saved,
            });
            return Ok(writeln!(std::io::stdout(), "{report}")?);
        }
        let row = |what: &str, count: usize, size: u64| {
            [what.to_owned(), count.to_string(), text::size(size)]
        };
        let rows = [
            row("layers as they came", layers.len(), compressed),
            row("layers unpacked", layers.len(), unpacked),
            row("saved by sharing", shared, saved),
        ];
        writeln!(std::io::stdout(), "{} images in {}", images.len(), store.root().display())?;
        text::table(["WHAT", "COUNT", "SIZE"], &rows)
    }
}

/// Checks that images are still what they were: every digest, every unpacked file
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The images; all, when none is named
    names: Vec<Reference>,
    /// Then lets the kernel keep the unpacked files as they are (fs-verity)
    #[arg(long)]
    seal: bool,
}

impl Verify {
    pub(crate) fn run(&self, store: &Store, output: Output) -> Result<()> {
        let images = match self.names.as_slice() {
            [] => store.images()?,
            names => names.iter().map(|name| store.image(name)).collect::<Result<_>>()?,
        };
        let mut damaged = Vec::new();
        for image in &images {
            let wrong = rootfs_tools::store::verify::image(store, image)
                .context(|| format!("verify image `{}`", image.name))?;
            let words = || match wrong.is_empty() {
                true => format!("{}: as it was", image.name),
                false => {
                    let lines = wrong.iter().map(|line| format!("{}: {line}", image.name));
                    lines.collect::<Vec<_>>().join("\n")
                }
            };
            output.done(words, json!({"name": image.name, "wrong": wrong}))?;
            if !wrong.is_empty() {
                damaged.push(image.name.clone());
            } else if self.seal {
                seal(store, image).context(|| format!("seal image `{}`", image.name))?;
            }
        }
        if damaged.is_empty() {
            return Ok(());
        }
        Err(Error::Conflict(format!(
            "damaged: {}; `rm` the name, `gc`, and import the image again",
            damaged.join(", ")
        )))
    }
}

fn seal(store: &Store, image: &Image) -> Result<()> {
    for chain_id in image.chain() {
        store.seal(&chain_id).context(|| format!("layer {}", chain_id.short()))?;
    }
    Ok(())
}
