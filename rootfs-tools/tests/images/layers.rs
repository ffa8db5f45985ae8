//! What layers mean: stacked by overlayfs they give the tree that the image describes.

use crate::common::{Place, Tar, layout};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use tar::EntryType;

/// Imports layers, the lowest first, and returns their directories, the lowest first.
fn unpacked(place: &Place, layers: &[Vec<u8>]) -> Vec<PathBuf> {
    layout(&place.path("layout"), "image", layers);
    place.ok(&["import", "layout", "image"]);
    place.ok(&["bundle", "image", "bundle", "--force"]);
    let mut lower = place.lower("bundle");
    lower.reverse();
    lower
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn opaque(directory: &std::path::Path) -> bool {
    let name = if is_root() { c"trusted.overlay.opaque" } else { c"user.overlay.opaque" };
    let file = File::open(directory).unwrap();
    linux::xattr::get(file.as_fd(), name).unwrap().as_deref() == Some(b"y")
}

#[test]
fn whiteouts_become_those_of_overlayfs() {
    let place = Place::new();
    let low =
        Tar::new().file("a/gone", b"1").file("a/kept", b"1").file("b/x", b"1").file("c", b"1");
    let top = Tar::new()
        .file("a/.wh.gone", b"")
        .dir("b", 0o755)
        .file("b/.wh..wh..opq", b"")
        .file(".wh.c", b"")
        .file("c/new", b"2")
        .file(".wh..wh.plnk", b"");
    let layers = unpacked(&place, &[low.done(), top.done()]);
    let gone = fs::symlink_metadata(layers[1].join("a/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert!(opaque(&layers[1].join("b")));
    assert!(opaque(&layers[1].join("c")), "a directory in place of what was deleted");
    assert!(!opaque(&layers[1].join("a")));
    assert_eq!(fs::read(layers[1].join("c/new")).unwrap(), b"2");
    assert!(!layers[1].join(".wh..wh.plnk").exists());
}

#[test]
fn a_whiteout_is_about_the_layers_below_only() {
    let place = Place::new();
    let layer = Tar::new()
        .file("file", b"1")
        .file(".wh.file", b"")
        .dir("dir", 0o755)
        .file("dir/x", b"1")
        .file(".wh.dir", b"")
        .file(".wh.late", b"")
        .file("late", b"2");
    let layers = unpacked(&place, &[layer.done()]);
    assert_eq!(fs::read(layers[0].join("file")).unwrap(), b"1");
    assert_eq!(fs::read(layers[0].join("late")).unwrap(), b"2");
    assert_eq!(fs::read(layers[0].join("dir/x")).unwrap(), b"1");
    assert!(opaque(&layers[0].join("dir")));
}

#[test]
fn a_directory_that_is_only_mentioned_is_as_it_is_below() {
    let place = Place::new();
    let low = Tar::new().dir("srv", 0o1777).file("srv/a", b"");
    let top = Tar::new().file("srv/b", b"").file("new/deep/x", b"");
    let layers = unpacked(&place, &[low.done(), top.done()]);
    let below = fs::metadata(layers[0].join("srv")).unwrap();
    let above = fs::metadata(layers[1].join("srv")).unwrap();
    assert_eq!(above.mode() & 0o7777, 0o1777);
    assert_eq!(above.mtime(), below.mtime());
    let new = fs::metadata(layers[1].join("new/deep")).unwrap();
    assert_eq!((new.mode() & 0o7777, new.mtime()), (0o755, 0));
}

#[test]
fn hard_links_reach_into_layers_below() {
    let place = Place::new();
    let low = Tar::new().file("bin/tool", b"code");
    let top = Tar::new().link("bin/alias", "bin/tool").file("own", b"1").link("twin", "own");
    let layers = unpacked(&place, &[low.done(), top.done()]);
    let inode = |name: &str| fs::metadata(layers[1].join(name)).unwrap().ino();
    assert_eq!(fs::read(layers[1].join("bin/alias")).unwrap(), b"code");
    assert_eq!(inode("bin/alias"), inode("bin/tool"), "copied up, as overlayfs does");
    assert_eq!(inode("own"), inode("twin"));
}

#[test]
fn the_last_of_equal_names_counts() {
    let place = Place::new();
    let layer = Tar::new()
        .file("a", b"first")
        .file("a", b"second")
        .dir("b", 0o755)
        .file("b/x", b"")
        .file("b", b"a file now")
        .file("c", b"")
        .dir("c", 0o700)
        .dir("d", 0o755)
        .file("d/x", b"")
        .dir("d", 0o711)
        .symlink("e", "a")
        .file("e", b"not through the link");
    let layers = unpacked(&place, &[layer.done()]);
    let read = |name: &str| fs::read_to_string(layers[0].join(name)).unwrap();
    assert_eq!(read("a"), "second");
    assert_eq!(read("b"), "a file now");
    assert_eq!(read("e"), "not through the link");
    let mode = |name: &str| fs::metadata(layers[0].join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("c"), mode("d")), (0o700, 0o711));
    assert!(layers[0].join("d/x").exists());
}

#[test]
fn every_kind_of_file_comes_out_as_it_went_in() {
    let place = Place::new();
    let capability =
        b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let layer = Tar::new()
        .dir("locked", 0o500)
        .file("locked/in", b"x")
        .pax(&[
            ("mtime", b"1234.5"),
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.user.n", b"a\nb=c"),
        ])
        .raw(b"suid", EntryType::Regular, b"", 0o4755, b"program")
        .pax(&[("path", long.as_bytes())])
        .file("short", b"long name")
        .raw(b"name \xff\n", EntryType::Regular, b"", 0o644, b"no text")
        .raw(b"pipe", EntryType::Fifo, b"", 0o640, b"")
        .symlink("dangling", "/no/where")
        .pax(&[("GNU.sparse.size", b"1000000"), ("GNU.sparse.map", b"0,3,999997,3")])
        .file("sparse", b"abcxyz");
    let layers = unpacked(&place, &[layer.done()]);
    let at = |name: &str| layers[0].join(name);
    let of = |name: &str| fs::symlink_metadata(at(name)).unwrap();
    assert_eq!(of("locked").mode() & 0o7777, 0o500);
    assert_eq!(of("locked").mtime(), 1_700_000_000);
    assert_eq!(of("suid").mode() & 0o7777, 0o4755);
    assert_eq!((of("suid").mtime(), of("suid").mtime_nsec()), (1234, 500_000_000));
    let suid = File::open(at("suid")).unwrap();
    assert_eq!(linux::xattr::get(suid.as_fd(), c"user.n").unwrap().unwrap(), b"a\nb=c");
    if is_root() {
        let found = linux::xattr::get(suid.as_fd(), c"security.capability").unwrap().unwrap();
        assert_eq!(found, capability);
    }
    assert_eq!(fs::read(at(&long)).unwrap(), b"long name");
    let odd = std::ffi::OsStr::from_bytes(b"name \xff\n");
    assert_eq!(fs::read(layers[0].join(odd)).unwrap(), b"no text");
    assert!(of("pipe").file_type().is_fifo());
    assert_eq!(of("pipe").permissions().mode() & 0o7777, 0o640);
    assert_eq!(fs::read_link(at("dangling")).unwrap(), PathBuf::from("/no/where"));
    let sparse = fs::read(at("sparse")).unwrap();
    assert!(sparse.len() == 1_000_000 && &sparse[..3] == b"abc" && &sparse[999_997..] == b"xyz");
    assert!(of("sparse").blocks() * 512 < 100_000, "the hole takes no room");
}
