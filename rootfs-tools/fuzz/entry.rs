//! Where fuzzers come in: bytes from a stranger, and what may not happen to them is a panic, a hang
//! or memory without end. Used by the fuzz targets and by the tests.

use rootfs_tools::build::{parse, words};
use rootfs_tools::image::config::ImageConfig;
use rootfs_tools::image::document::{self, Index, Manifest};
use rootfs_tools::layer::decode::decode;
use rootfs_tools::layer::limits::Limits;
use rootfs_tools::layer::walk::Walk;
use std::collections::BTreeMap;
use std::io::sink;

/// A layer: detected, decompressed, walked to its end.
pub(crate) fn layer(bytes: &[u8]) {
    let limits = Limits { bytes: 1 << 20, entries: 1_000 };
    let walked = decode(bytes, sink(), limits, |chunks| {
        let mut walk = Walk::new(chunks, limits);
        while walk.next_entry()?.is_some() {
            loop {
                let length = walk.chunk()?.len();
                if length == 0 {
                    break;
                }
                walk.consume(length);
            }
        }
        walk.drain()
    });
    // Only that there is an answer matters.
    drop(walked);
}

/// A manifest, an index, a configuration. Whether it was a manifest.
///
/// # Panics
/// When a manifest that was read is not the one that is written.
pub(crate) fn document(bytes: &[u8]) -> bool {
    drop(Index::parse(bytes));
    drop(document::parse::<ImageConfig>(bytes));
    let Ok(manifest) = Manifest::parse(bytes) else { return false };
    let again = document::to_bytes(&manifest).and_then(|bytes| Manifest::parse(&bytes));
    assert!(again.is_ok_and(|again| again == manifest), "it reads differently than it was written");
    true
}

/// A Containerfile. Whether it was one.
pub(crate) fn containerfile(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    drop(words::expand(&text, &BTreeMap::new()));
    parse::parse(&text).is_ok()
}
