//! The images: an OCI layout and an archive of it, made once and kept.

use crate::content::{Numbers, Words};
use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use rootfs_tools::Digest;
use rootfs_tools::digest::Digesting;
use rootfs_tools::image::config::{ImageConfig, Rootfs, RunConfig};
use rootfs_tools::image::document::{
    CONFIG, Descriptor, Index, LAYER, MANIFEST, Manifest, REF_NAME, to_bytes,
};
use rootfs_tools::image::platform::Platform;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use tar::{Builder, EntryType, Header};

/// What an image is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A distribution with a language on top: 20,000 files of all sizes in five layers.
    Debian,
    /// What a package manager of a language leaves: 60,000 small files in three layers.
    Small,
}

impl Shape {
    pub(crate) const ALL: [Self; 2] = [Self::Debian, Self::Small];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Small => "small",
        }
    }

    /// How many files each layer has, the lowest first.
    fn layers(self) -> &'static [usize] {
        match self {
            Self::Debian => &[8000, 5000, 4000, 2000, 1000],
            Self::Small => &[30_000, 20_000, 10_000],
        }
    }

    fn size(self, numbers: &mut Numbers) -> usize {
        match (self, numbers.below(1000)) {
            (Self::Small, _) => numbers.size(40, 4000),
            (Self::Debian, 0..850) => numbers.size(128, 16 << 10),
            (Self::Debian, 850..986) => numbers.size(16 << 10, 256 << 10),
            (Self::Debian, _) => numbers.size(256 << 10, 2 << 20),
        }
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|shape| shape.name() == text);
        found.ok_or_else(|| "one of debian, small".into())
    }
}

/// The name of the image in its layout.
pub(crate) const NAME: &str = "bench.example/image:v1";

/// An image on the disk.
#[derive(Debug)]
pub(crate) struct Image {
    /// The layout.
    pub(crate) layout: PathBuf,
    /// A tar file of the layout.
    pub(crate) archive: PathBuf,
    /// The blobs of the layers, the lowest first.
    pub(crate) layers: Vec<PathBuf>,
    compressed: u64,
}

impl fmt::Display for Image {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} layers, {} MB compressed", self.layers.len(), self.compressed / 1_000_000)
    }
}

/// Makes an image below `directory`, unless it is there.
pub(crate) fn make(directory: &Path, shape: Shape) -> Result<Image> {
    let layout = directory.join(shape.name());
    let archive = directory.join(format!("{}.tar", shape.name()));
    if !archive.exists() {
        let new = directory.join("new");
        fs::create_dir_all(new.join("blobs/sha256"))?;
        write_layout(&new, shape)?;
        fs::rename(&new, &layout)?;
        let packed = directory.join("new.tar");
        let status =
            Command::new("tar").arg("-cf").arg(&packed).arg("-C").arg(&layout).arg(".").status()?;
        if !status.success() {
            bail!("tar: {status}");
        }
        fs::rename(packed, &archive)?;
    }
    let index = Index::parse(&fs::read(layout.join("index.json"))?)?;
    let blob = |digest: &Digest| layout.join("blobs/sha256").join(digest.hex());
    let image = index.manifests.first().context("an empty index")?;
    let manifest = Manifest::parse(&fs::read(blob(&image.digest))?)?;
    let layers = manifest.layers.iter().map(|layer| blob(&layer.digest)).collect();
    let compressed = manifest.layers.iter().map(|layer| layer.size).sum();
    Ok(Image { layout, archive, layers, compressed })
}

fn write_layout(layout: &Path, shape: Shape) -> Result<()> {
    let put = |media_type: &str, bytes: &[u8]| -> Result<Descriptor> {
        fs::write(layout.join("blobs/sha256").join(Digest::of(bytes).hex()), bytes)?;
        Ok(Descriptor::of(media_type, bytes))
    };
    let mut numbers = Numbers::new(7);
    let words = Words::new(&mut numbers);
    let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
    for (at, count) in shape.layers().iter().enumerate() {
        let file = layout.join("layer");
        let gzip = GzEncoder::new(BufWriter::new(File::create(&file)?), Compression::default());
        let mut tar = Builder::new(Digesting::new(gzip));
        write_layer(&mut tar, at, *count, shape, &words, &mut numbers)?;
        let (gzip, diff_id) = tar.into_inner()?.finish();
        gzip.finish()?.flush()?;
        let bytes = fs::read(&file)?;
        fs::remove_file(&file)?;
        layers.push(put(&format!("{LAYER}+gzip"), &bytes)?);
        diff_ids.push(diff_id);
    }
    let host = Platform::host();
    let config = ImageConfig {
        architecture: host.architecture,
        os: host.os,
        config: RunConfig { cmd: vec!["/bin/sh".into()], ..RunConfig::default() },
        rootfs: Rootfs { kind: "layers".into(), diff_ids },
        ..ImageConfig::default()
    };
    let config = put(CONFIG, &to_bytes(&config)?)?;
    let mut image = put(MANIFEST, &to_bytes(&Manifest::new(config, layers))?)?;
    image.annotations.insert(REF_NAME.into(), NAME.into());
    let index = Index { manifests: vec![image], ..Index::default() };
    fs::write(layout.join("index.json"), to_bytes(&index)?)?;
    Ok(fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?)
}

/// Writes a layer: directories of some forty files each, a link for every twentieth.
fn write_layer<W: Write>(
    tar: &mut Builder<W>,
    layer: usize,
    count: usize,
    shape: Shape,
    words: &Words,
    numbers: &mut Numbers,
) -> Result<()> {
    let mut made = BTreeSet::new();
    for at in 0..count {
        let package = at / 40;
        let directory = format!("usr/share/p{}/l{layer}-{package}/d", package % 50);
        let mut parent = String::new();
        for part in directory.split('/') {
            parent = format!("{parent}{part}/");
            if made.insert(parent.clone()) {
                tar.append_data(&mut header(EntryType::Directory, 0o755, 0), &parent, &[][..])?;
            }
        }
        let name = format!("{directory}/file-{at}.data");
        if at % 20 == 19 {
            let before = format!("file-{}.data", at - 1);
            tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), &name, before)?;
            continue;
        }
        let size = shape.size(numbers);
        let bytes = words.file(numbers, size);
        let mode = if at % 9 == 0 { 0o755 } else { 0o644 };
        tar.append_data(
            &mut header(EntryType::Regular, mode, bytes.len() as u64),
            &name,
            &bytes[..],
        )?;
    }
    Ok(())
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(size);
    header
}
