//! A plain root file system: a directory, or a tar of one. It becomes an image of one layer.

use super::archive::Section;
use super::{Configuration, SourceImage, SourceLayer};
use crate::error::{Context, Result};
use crate::image::config::ImageConfig;
use crate::layer::compress;
use crate::layer::pack::{self, Owners};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// An image of the tree in a tar file, which may be compressed.
///
/// # Errors
/// When the kernel does not say how long the file is.
pub fn from_archive(file: File, plain: ImageConfig) -> Result<SourceImage> {
    let config = Configuration::Made(Box::new(plain));
    Ok(SourceImage { manifest: None, config, layers: vec![layer_of(file)?], name: None })
}

/// A layer that is a tar file, which may be compressed.
///
/// # Errors
/// When the kernel does not say how long the file is.
pub fn layer_of(file: File) -> Result<SourceLayer> {
    let length = file.metadata()?.len();
    let whole = Section::whole(Arc::new(file), length);
    let open: super::Opener = Box::new(move || Ok(Box::new(whole.again())));
    Ok(SourceLayer { blob: None, diff_id: None, open, kept: None })
}

/// An image of the tree in a directory. It is packed into a file in `spool` first: what becomes of
/// an image is the same, whatever somebody does to the directory meanwhile.
///
/// # Errors
/// When something in the tree cannot be read.
pub fn from_directory(tree: &Path, plain: ImageConfig, spool: &Path) -> Result<SourceImage> {
    let packed = spool.join("tree.tar.gz");
    let pack = || -> Result<File> {
        compress::to_file(&packed, |output| pack::tree(tree, output, Owners::of_this_process()))?;
        Ok(File::open(&packed)?)
    };
    let file = pack().context(|| format!("pack {}", tree.display()))?;
    from_archive(file, plain)
}
