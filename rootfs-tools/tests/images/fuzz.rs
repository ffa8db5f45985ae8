//! Damaged and invented input, by the thousand: nothing may panic, hang, or leave its directory.
//!
//! The seeds are fixed, so a failure is found again; `FUZZ_ROUNDS` makes a run longer. What a
//! round did is told by its number. The entries are those of the fuzz targets for libFuzzer, in
//! `rootfs-tools/fuzz`; the layers are unpacked here as well.

#[path = "../../fuzz/entry.rs"]
mod entry;

use crate::common::{Tar, gzip};
use rootfs_tools::image::document::Manifest;
use rootfs_tools::image::view::View;
use rootfs_tools::layer::decode::decode;
use rootfs_tools::layer::limits::Limits;
use rootfs_tools::layer::unpack::Unpacking;
use rootfs_tools::layer::walk::Walk;
use rootfs_tools::layer::whiteout::Form;
use std::fs::{self, File};
use std::io::sink;
use tar::EntryType;

/// Rounds in a test run; some seconds.
const ROUNDS: u32 = 1_500;

fn rounds() -> u32 {
    std::env::var("FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS)
}

/// Numbers that look random and are the same each time (Numerical Recipes' generator).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end.max(1)
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}

/// Changes some bytes, cuts, or repeats a piece.
fn damaged(input: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len());
        match numbers.below(6) {
            0 => bytes.truncate(at),
            1 => {
                let piece = bytes[at..(at + 512).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            2 => bytes[at] ^= 1 << numbers.below(8),
            _ => bytes[at] = numbers.byte(),
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

/// Makes the checksums of all headers right again, so that damage gets past the first check.
fn with_checksums(mut archive: Vec<u8>) -> Vec<u8> {
    for block in archive.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            let mut header = tar::Header::new_old();
            header.as_mut_bytes().copy_from_slice(block);
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
    archive
}

/// Entries that meet each other in every order: the names are few, the kinds many.
fn invented(numbers: &mut Numbers) -> Vec<u8> {
    const NAMES: [&str; 12] = [
        "a",
        "a/b",
        "a/b/c",
        "b",
        "../x",
        "/x",
        ".wh.a",
        "a/.wh.b",
        "a/.wh..wh..opq",
        ".",
        "a/../b",
        ".wh.",
    ];
    const TARGETS: [&str; 8] = ["a", "a/b", "..", "/", "../../x", "b", ".", "/proc/self/root"];
    let mut tar = Tar::new();
    for _ in 0..numbers.below(12) {
        let name = NAMES[numbers.below(NAMES.len())];
        let target = TARGETS[numbers.below(TARGETS.len())];
        tar = match numbers.below(8) {
            0 => tar.dir(name, 0o755),
            1 => tar.symlink(name, target),
            2 => tar.link(name, target),
            3 => tar.raw(name.as_bytes(), EntryType::Fifo, b"", 0o600, b""),
            4 => {
                tar.pax(&[("path", name.as_bytes()), ("SCHILY.xattr.user.x", b"1")]).file("x", b"1")
            }
            5 => tar
                .pax(&[("GNU.sparse.size", b"9000"), ("GNU.sparse.map", b"10,4")])
                .file(name, b"data"),
            _ => tar.file(name, b"content"),
        };
    }
    tar.done()
}

/// Unpacks into a directory with a canary beside it, and above.
fn unpack(layer: &[u8], round: u32) {
    let place = tempfile::tempdir().unwrap();
    let inner = place.path().join("inner");
    fs::create_dir_all(inner.join("root")).unwrap();
    fs::write(inner.join("canary"), b"alive").unwrap();
    let record = inner.join("record");
    let record = File::options().read(true).write(true).create_new(true).open(record).unwrap();
    let root = File::open(inner.join("root")).unwrap().into();
    let limits = Limits { bytes: 1 << 20, entries: 1_000 };
    let form = if nix::unistd::geteuid().is_root() { Form::Trusted } else { Form::User };
    let mut unpacking = Unpacking::new(root, record, form, limits).unwrap();
    let result = decode(layer, sink(), limits, |chunks| {
        unpacking.write(&mut Walk::new(chunks, limits))?;
        Ok(unpacking)
    });
    if let Ok((_, unpacking)) = result {
        let nothing: [&std::path::Path; 0] = [];
        drop(unpacking.complete(&View::open(&nothing, form).unwrap()));
    }
    assert_eq!(fs::read(inner.join("canary")).unwrap(), b"alive", "round {round}");
    assert_eq!(fs::read_dir(&inner).unwrap().count(), 3, "round {round}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "round {round}");
}

#[test]
fn layers() {
    let honest = Tar::new()
        .dir("d", 0o755)
        .file("d/f", &[1; 2000])
        .link("d/l", "d/f")
        .symlink("s", "d")
        .file("d/.wh.x", b"")
        .pax(&[("path", b"long"), ("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"b")])
        .file("x", b"y")
        .pax(&[("GNU.sparse.size", b"9000"), ("GNU.sparse.map", b"10,4")])
        .file("sparse", b"data")
        .done();
    let mut numbers = Numbers(1);
    for round in 0..rounds() {
        let layer = match round % 4 {
            0 => invented(&mut numbers),
            1 => damaged(&gzip(&honest), &mut numbers),
            2 => damaged(&honest, &mut numbers),
            _ => with_checksums(damaged(&honest, &mut numbers)),
        };
        entry::layer(&layer);
        unpack(&layer, round);
    }
}

#[test]
fn documents() {
    let digest = rootfs_tools::Digest::of(b"");
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"x","digest":"{digest}","size":1}},"layers":[{{"mediaType":"x","digest":"{digest}","size":1,"annotations":{{"a":"b"}}}}]}}"#
    );
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["A=b"],"Cmd":["x"],"Volumes":{{"/d":{{}}}}}},"rootfs":{{"type":"layers","diff_ids":["{digest}"]}},"history":[{{"created_by":"x"}}]}}"#
    );
    let mut numbers = Numbers(2);
    let mut read = 0;
    for _ in 0..rounds() * 4 {
        read += u32::from(entry::document(&damaged(manifest.as_bytes(), &mut numbers)));
        entry::document(&damaged(config.as_bytes(), &mut numbers));
    }
    assert!(read > 0, "nothing was ever read: the damage is too great to test anything");
    let deep = "[".repeat(200_000);
    assert!(Manifest::parse(deep.as_bytes()).is_err());
}

#[test]
fn containerfiles() {
    let honest = "# escape=\\\nARG A=1\nFROM a:${A:-2} AS b\nRUN [\"x\", \"y\"]\nCOPY --chown=1:2 --from=b \"a b\" c \\\n  /d/\nENV A=\"b c\" D=$A\nHEALTHCHECK --interval=1s CMD x\n";
    let mut numbers = Numbers(3);
    let mut read = 0;
    for _ in 0..rounds() * 4 {
        read += u32::from(entry::containerfile(&damaged(honest.as_bytes(), &mut numbers)));
    }
    assert!(read > 0, "nothing was ever read: the damage is too great to test anything");
}
