//! A plain root file system: a directory, or a tar of one. It becomes an image of one layer.

use super::{Configuration, SourceImage, SourceLayer};
use crate::error::{Context, Result};
use crate::image::config::ImageConfig;
use crate::layer::pack::{self, Owners};
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;

/// An image of the tree in a tar file, which may be compressed.
pub fn from_archive(file: File, plain: ImageConfig) -> SourceImage {
    let file = Arc::new(file);
    let open = move || -> Result<Box<dyn Read + Send>> {
        let length = file.metadata()?.len();
        Ok(Box::new(super::archive::Section::whole(file.clone(), length)))
    };
    one_layer(Box::new(open), plain)
}

/// An image of the tree in a directory. It is packed into a file in `spool` first: what becomes of
/// an image is the same, whatever somebody does to the directory meanwhile.
///
/// # Errors
/// When something in the tree cannot be read.
pub fn from_directory(tree: &Path, plain: ImageConfig, spool: &Path) -> Result<SourceImage> {
    let packed = spool.join("tree.tar.gz");
    let pack = || -> Result<File> {
        let mut output = BufWriter::new(File::create_new(&packed)?);
        let level = flate2::Compression::default();
        let mut encoder = flate2::GzBuilder::new().write(&mut output, level);
        pack::tree(tree, &mut encoder, Owners::of_this_process())?;
        encoder.finish()?;
        output.flush()?;
        drop(output);
        Ok(File::open(&packed)?)
    };
    let file = pack().context(|| format!("pack {}", tree.display()))?;
    Ok(from_archive(file, plain))
}

fn one_layer(open: super::Opener, plain: ImageConfig) -> SourceImage {
    SourceImage {
        manifest: None,
        config: Configuration::Made(Box::new(plain)),
        layers: vec![SourceLayer { blob: None, diff_id: None, open }],
        name: None,
    }
}
