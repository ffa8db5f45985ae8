//! Where images come from: a layout, an archive, a plain tree. Each is turned into the same thing,
//! a configuration and layers that can be opened and read, any number of times, from any thread.

pub mod archive;
pub mod docker;
pub mod layout;
pub mod rootfs;

use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::image::config::ImageConfig;
use crate::image::document::Descriptor;
use crate::image::platform::Platform;
use crate::layer::compression::Compression;
use archive::{Archive, Format};
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An image outside of the store.
#[derive(Debug)]
pub struct SourceImage {
    /// The manifest as it came, when there is one: then the image keeps its digest.
    pub manifest: Option<(Descriptor, Vec<u8>)>,
    /// The configuration as it came, or one to be completed with the digests of the layers.
    pub config: Configuration,
    /// The layers, the lowest first.
    pub layers: Vec<SourceLayer>,
    /// The name that the source gives it.
    pub name: Option<String>,
}

/// The configuration of an image outside of the store.
#[derive(Debug)]
pub enum Configuration {
    /// As it came, to the byte.
    Given(Box<ImageConfig>, Vec<u8>),
    /// For a plain tree there is none; this one lacks the digests.
    Made(Box<ImageConfig>),
}

/// A layer outside of the store.
pub struct SourceLayer {
    /// What the manifest says that it is.
    pub blob: Option<Descriptor>,
    /// What the configuration says that it is, uncompressed.
    pub diff_id: Option<Digest>,
    /// Opens it.
    pub open: Opener,
    /// The file in which the stream itself keeps what it gives, complete when it ends.
    pub kept: Option<PathBuf>,
}

/// Opens a stream; more than once, from any thread.
pub type Opener = Box<dyn Fn() -> Result<Box<dyn Read + Send>> + Send + Sync>;

impl fmt::Debug for SourceLayer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { blob, diff_id, kept, open: _ } = self;
        out.debug_struct("SourceLayer")
            .field("blob", blob)
            .field("diff_id", diff_id)
            .field("kept", kept)
            .finish()
    }
}

/// Which image of a source is meant.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Its name in the source.
    pub name: Option<String>,
    /// What it shall run on.
    pub platform: Platform,
}

/// Opens the source at `path`; `-` is standard input. `plain` is the configuration for a source
/// that has none. `spool` is a directory for what must be read twice and cannot.
///
/// # Errors
/// When there is nothing, or nothing that is an image.
pub fn open(
    path: &Path,
    selection: &Selection,
    plain: ImageConfig,
    spool: &Path,
) -> Result<SourceImage> {
    if path.is_dir() {
        if path.join("oci-layout").is_file() {
            return layout::load(Arc::new(layout::Directory::new(path)), selection);
        }
        return rootfs::from_directory(path, plain, spool);
    }
    let file = if path == Path::new("-") {
        spooled(&mut io::stdin().lock(), spool)?
    } else {
        let file = File::open(path).context(|| format!("open {}", path.display()))?;
        // A pipe (`<(gunzip …)`, a fifo) can be read once only.
        if file.metadata()?.is_file() { file } else { spooled(&mut &file, spool)? }
    };
    from_file(file, selection, plain, spool)
}

fn from_file(
    mut file: File,
    selection: &Selection,
    plain: ImageConfig,
    spool: &Path,
) -> Result<SourceImage> {
    let compression = Compression::detect(&mut BufReader::new(&file))?;
    file.rewind()?;
    let format = archive::format(compression.decoder(BufReader::new(&file))?)?;
    file.rewind()?;
    if format == Format::Tree {
        return rootfs::from_archive(file, plain);
    }
    if compression != Compression::None {
        let plain = spooled(&mut compression.decoder(BufReader::new(&file))?, spool)?;
        file = plain;
    }
    let archive = Archive::open(file)?;
    if archive.has("oci-layout") && archive.has("index.json") {
        layout::load(Arc::new(archive), selection)
    } else if archive.has("manifest.json") {
        docker::load(&archive, selection)
    } else {
        Err(Error::Invalid(
            "the archive has blobs, but neither index.json (an OCI layout) nor manifest.json (docker save): it is cut short".into(),
        ))
    }
}

/// Copies a stream to a file without a name.
fn spooled(input: &mut impl Read, spool: &Path) -> Result<File> {
    let path = spool.join("spool");
    let step = || "keep the input while it is read".to_owned();
    let mut file =
        File::options().read(true).write(true).create_new(true).open(&path).context(step)?;
    std::fs::remove_file(&path).context(step)?;
    io::copy(input, &mut file).context(step)?;
    file.rewind()?;
    Ok(file)
}
