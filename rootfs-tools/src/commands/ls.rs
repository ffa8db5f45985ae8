//! `ls`: what images there are.

use super::output::Output;
use super::text;
use clap::Args;
use rootfs_tools::store::index::Image;
use rootfs_tools::{Result, Store};
use serde_json::{Value, json};
use std::io::Write;

/// Lists the images of the store
#[derive(Debug, Args)]
pub(crate) struct Ls {}

impl Ls {
    pub(crate) fn run(&self, store: &Store, output: Output) -> Result<()> {
        let images = store.images()?;
        if output.json {
            let list =
                images.iter().map(|image| describe(store, image)).collect::<Result<Vec<_>>>()?;
            let text = serde_json::to_string_pretty(&list)?;
            return Ok(writeln!(std::io::stdout(), "{text}")?);
        }
        let mut rows = Vec::new();
        for image in &images {
            rows.push([
                image.name.clone(),
                image.descriptor.digest.short(),
                platform(image),
                image.manifest.layers.len().to_string(),
                text::size(compressed(image)),
                text::size(unpacked(store, image)?),
            ]);
        }
        text::table(["NAME", "DIGEST", "PLATFORM", "LAYERS", "SIZE", "UNPACKED"], &rows)
    }
}

fn platform(image: &Image) -> String {
    let variant =
        image.config.variant.iter().map(|variant| format!("/{variant}")).collect::<String>();
    format!("{}/{}{variant}", image.config.os, image.config.architecture)
}

/// The size of the layers as they came.
fn compressed(image: &Image) -> u64 {
    image.manifest.layers.iter().map(|layer| layer.size).sum()
}

/// The size of the layers that are unpacked, uncompressed.
fn unpacked(store: &Store, image: &Image) -> Result<u64> {
    let mut sum = 0;
    for chain_id in image.chain() {
        sum += store.layer(&chain_id)?.map_or(0, |record| record.bytes);
    }
    Ok(sum)
}

fn describe(store: &Store, image: &Image) -> Result<Value> {
    Ok(json!({
        "name": image.name,
        "digest": image.descriptor.digest,
        "platform": platform(image),
        "created": image.config.created,
        "layers": image.manifest.layers.len(),
        "size": compressed(image),
        "unpacked": unpacked(store, image)?,
        "labels": image.config.config.labels,
    }))
}
