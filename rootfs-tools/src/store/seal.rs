//! Sealed layers: the kernel keeps their files as they are (fs-verity).
//!
//! `tree.verity` beside `tree.mtree` has a line for every file, its path and the root of the tree of
//! digests that the kernel has of it:
//! ```text
//! ./etc/passwd verity=9f86d081884c7d65…
//! ```
//! Its own digest is in `layer.json`. With it a file is verified by asking the kernel, without
//! reading: what was damaged on the disk since then is never given to a reader.

use super::Store;
use super::layers::LayerRecord;
use crate::digest::{Digest, Digesting, hex};
use crate::error::{Context, Error, Result};
use crate::image::document;
use crate::layer::listing::{Line, Recorder};
use crate::layer::name::Name;
use crate::layer::scan;
use linux::{Errno, OFlag, metadata, verity};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;

const FILE: &str = "tree.verity";
const WORD: &str = "verity";

/// The roots of a layer's files, by their paths.
#[derive(Debug, Default)]
pub(super) struct Roots(BTreeMap<Vec<u8>, String>);

impl Store {
    /// Seals an unpacked layer. Whether it was not before.
    ///
    /// # Errors
    /// When its file system has no fs-verity, or a file cannot be sealed.
    pub fn seal(&self, chain_id: &Digest) -> Result<bool> {
        // Its record is replaced below, by one that no mark belongs to.
        self.make_durable(&[*chain_id].into())?;
        let Some(record) = self.layer(chain_id)?.filter(|record| record.verity.is_none()) else {
            return Ok(false);
        };
        let root = linux::path::open(&self.tree_path(chain_id), OFlag::O_RDONLY)?;
        let mut roots = Recorder::new(Vec::new())?;
        let listing = File::open(self.layer_path(chain_id).join("tree.mtree"))?;
        for text in BufReader::new(listing).lines() {
            let Some(line) = Line::parse(&text?)?.filter(|line| line.kind() == "file") else {
                continue;
            };
            let name = Name::joined(&line.name, b"");
            let step = || format!("seal `{name}`");
            let file = scan::open(root.as_fd(), &name, OFlag::O_RDONLY).context(step)?;
            verity::enable(file.as_fd()).map_err(explained).context(step)?;
            // The kernel writes its tree behind the file's end, which counts as a change.
            if let Some((_, time)) = line.mode_and_time() {
                metadata::set_times(file.as_fd(), time).context(step)?;
            }
            let digest = verity::measure(file.as_fd()).context(step)?.ok_or_else(|| {
                Error::Unsupported(format!("`{name}` was sealed with another kind of digest"))
            })?;
            let line = Line { name: line.name, words: Vec::new() };
            roots.add(&line.with(WORD, hex(&digest)))?;
        }
        let (text, digest) = roots.finish()?;
        let name = format!("layers/sha256/{}", chain_id.hex());
        // First the list, then what says that it counts.
        self.replace(&format!("{name}/{FILE}"), &text)?;
        let record = LayerRecord { verity: Some(digest), ..record };
        self.replace(&format!("{name}/layer.json"), &document::to_bytes(&record)?)?;
        Ok(true)
    }

    /// The roots of a sealed layer; an error when the list is not the one that was written.
    pub(super) fn roots(&self, chain_id: &Digest, record: &LayerRecord) -> Result<Roots> {
        let Some(expected) = record.verity else { return Ok(Roots::default()) };
        let path = self.layer_path(chain_id).join(FILE);
        let mut content = Digesting::new(File::open(&path).context(|| format!("open {FILE}"))?);
        let mut text = Vec::new();
        io::Read::read_to_end(&mut content, &mut text)?;
        expected.expect(content.finish().1).context(|| FILE.into())?;
        let mut roots = Roots::default();
        for text in text.lines() {
            if let Some(line) = Line::parse(&text?)? {
                let root = line.word(WORD).unwrap_or_default().to_owned();
                roots.0.insert(line.name, root);
            }
        }
        Ok(roots)
    }
}

impl Roots {
    /// Whether the kernel still has the tree of digests that the file got; `None` for a file that
    /// was not sealed.
    pub(super) fn holds(&self, name: &[u8], file: &File) -> Result<Option<bool>> {
        let Some(root) = self.0.get(name) else { return Ok(None) };
        let measured = verity::measure(file.as_fd())?;
        Ok(Some(measured.is_some_and(|digest| hex(&digest) == *root)))
    }
}

fn explained(error: linux::Error) -> Error {
    match error.errno {
        Errno::EOPNOTSUPP | Errno::ENOTTY => Error::Unsupported(format!(
            "{error}: the file system of the store has no fs-verity: `tune2fs -O verity DEVICE` gives it to ext4, and btrfs has it"
        )),
        Errno::EACCES => Error::Unsupported(format!(
            "{error}: a file that its owner may not write can be sealed by root only"
        )),
        _ => error.into(),
    }
}
