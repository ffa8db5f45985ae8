//! `inspect`: all that is known about an image.

use clap::Args;
use rootfs_tools::{Reference, Result, Store};
use serde_json::json;
use std::io::Write;

/// Shows all that is known about an image, as JSON
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The image
    image: Reference,
    /// Its manifest, to the byte
    #[arg(long, conflicts_with = "config")]
    manifest: bool,
    /// Its configuration, to the byte
    #[arg(long)]
    config: bool,
}

impl Inspect {
    pub(crate) fn run(&self, store: &Store) -> Result<()> {
        let image = store.image(&self.image)?;
        let mut output = std::io::stdout();
        if self.manifest {
            return Ok(output.write_all(&store.read_document(&image.descriptor)?)?);
        }
        if self.config {
            return Ok(output.write_all(&store.read_document(&image.manifest.config)?)?);
        }
        let mut layers = Vec::new();
        for (at, chain_id) in image.chain().iter().enumerate() {
            let record = store.layer(chain_id)?;
            layers.push(json!({
                "digest": image.manifest.layers[at].digest,
                "mediaType": image.manifest.layers[at].media_type,
                "size": image.manifest.layers[at].size,
                "diffId": image.config.rootfs.diff_ids[at],
                "chainId": chain_id,
                "unpacked": record.as_ref().map(|record| record.bytes),
                "entries": record.as_ref().map(|record| record.entries),
                "durable": record.as_ref().map(|record| record.boot.is_none()),
                "tree": record.as_ref().map(|_| store.tree_path(chain_id)),
            }));
        }
        let report = json!({
            "name": image.name,
            "digest": image.descriptor.digest,
            "mediaType": image.descriptor.media_type,
            "annotations": image.manifest.annotations,
            "os": image.config.os,
            "architecture": image.config.architecture,
            "variant": image.config.variant,
            "created": image.config.created,
            "author": image.config.author,
            "config": image.config.config,
            "history": image.config.history,
            "layers": layers,
        });
        Ok(writeln!(output, "{}", serde_json::to_string_pretty(&report)?)?)
    }
}
