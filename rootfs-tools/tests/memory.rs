//! The memory that an import takes does not grow with the image. A test program of its own, for
//! the kernel tells the peak of all children together.

#![expect(clippy::unwrap_used, reason = "a step of a test that fails has failed the test")]

use flate2::Compression;
use flate2::write::GzEncoder;
use nix::sys::resource::{UsageWho, getrusage};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Command;
use tar::{Builder, Header};

/// More than an import ever needs, in KiB: two threads with some buffers of 128 KiB each for every
/// layer that is read at the same time.
const MOST_KIB: i64 = 40 * 1024;

fn add<W: Write>(tar: &mut Builder<W>, name: &str, size: u64) {
    let mut header = Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, io::repeat(7).take(size)).unwrap();
}

fn archive(path: &Path, files: impl Iterator<Item = (String, u64)>) {
    let gzip = GzEncoder::new(File::create(path).unwrap(), Compression::fast());
    let mut tar = Builder::new(gzip);
    files.for_each(|(name, size)| add(&mut tar, &name, size));
    tar.into_inner().unwrap().finish().unwrap();
}

#[test]
fn an_import_of_any_size_fits_into_40_mib() {
    let place = tempfile::tempdir().unwrap();
    // A file of 96 MiB and 20,000 small ones: the two ways of being large.
    archive(&place.path().join("large.tar.gz"), std::iter::once(("large".to_owned(), 96 << 20)));
    let many = (0..20_000).map(|at| (format!("d{}/f{at}", at % 100), 5));
    archive(&place.path().join("many.tar.gz"), many);
    for source in ["large.tar.gz", "many.tar.gz"] {
        let status = Command::new(env!("CARGO_BIN_EXE_rootfs-tools"))
            .args(["--store", "store", "import", source])
            .current_dir(place.path())
            .status();
        assert!(status.unwrap().success());
        let peak = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
        println!("{source}: at most {peak} KiB");
        assert!(peak < MOST_KIB, "{source}: {peak} KiB");
    }
}
