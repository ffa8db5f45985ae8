//! Images that want out: none of them changes anything outside of its tree, each gets one clear
//! error, and nothing of it stays in the store.

use crate::common::{Place, Tar, gzip, layout};
use std::fs;
use tar::EntryType;

/// Imports a layer that must be refused; the error. A file beside the store is the canary.
fn refused(layer: &[u8]) -> String {
    let place = Place::new();
    let canary = place.write("canary", b"alive");
    place.write("layer.tar", layer);
    let error = place.fails(&["import", "layer.tar", "hostile"]);
    assert_eq!(fs::read(canary).unwrap(), b"alive");
    assert!(place.nothing_was_kept(), "{error}");
    assert_eq!(fs::read_dir(place.dir.path()).unwrap().count(), 3, "something was made outside");
    error
}

fn check(layer: Tar, words: &str) {
    let error = refused(&layer.done());
    assert!(error.contains(words), "`{words}` is not in: {error}");
}

#[test]
fn names_that_lead_out() {
    for name in ["../evil", "a/../../evil", "..", "a/..", "./../evil"] {
        check(Tar::new().file("x", b"").file(name, b"x"), "`..`");
    }
    for name in ["/evil", "//evil", "/"] {
        check(Tar::new().file("x", b"").file(name, b"x"), "absolute");
    }
}

#[test]
fn links_that_lead_out() {
    for to in ["/", "..", "../../..", "/tmp", "/proc/self/root"] {
        check(Tar::new().symlink("x", to).file("x/evil", b"x"), "nothing is written through it");
    }
    check(
        Tar::new().symlink("a", "b").symlink("b", "..").file("a/evil", b""),
        "nothing is written through it",
    );
    check(Tar::new().symlink("a", "..").dir("a/evil", 0o755), "nothing is written through it");
    check(Tar::new().symlink("a", "..").symlink("a/evil", "x"), "nothing is written through it");
    check(Tar::new().symlink("a", "..").file("a/.wh.canary", b""), "nothing is written through it");
    check(Tar::new().symlink("a", "..").file("a/.wh..wh..opq", b""), "a/.wh..wh..opq");
}

#[test]
fn hard_links_that_lead_out() {
    check(Tar::new().link("x", "../canary"), "`..`");
    check(Tar::new().link("x", "/etc/passwd"), "absolute");
    check(Tar::new().symlink("up", "..").link("x", "up/canary"), "entry `x`");
    check(
        Tar::new().symlink("s", "/etc/passwd").link("x", "s").file("x/y", b""),
        "nothing is written",
    );
    check(Tar::new().link("x", "absent"), "neither this layer nor one below");
    check(Tar::new().link("x", "x"), "neither this layer nor one below");
    check(Tar::new().dir("d", 0o755).link("x", "d"), "entry `x`");
    check(Tar::new().file(".wh.gone", b"").link("x", "gone"), "deletes");
}

#[test]
fn a_file_over_a_link_replaces_the_link() {
    let place = Place::new();
    let canary = place.write("canary", b"alive");
    let layer = Tar::new().symlink("x", canary.to_str().unwrap()).file("x", b"mine");
    place.write("layer.tar", &layer.done());
    place.ok(&["import", "layer.tar", "image", "--cmd", "/x"]);
    place.ok(&["bundle", "image", "bundle"]);
    assert_eq!(fs::read(canary).unwrap(), b"alive");
    assert_eq!(fs::read(place.lower("bundle")[0].join("x")).unwrap(), b"mine");
}

#[test]
fn whiteouts_of_what_cannot_be_deleted() {
    for name in [".wh.", ".wh..", ".wh...", "a/.wh..", "a/.wh..."] {
        check(Tar::new().file("x", b"").file(name, b""), "whiteout");
    }
}

#[test]
fn devices_that_are_marks() {
    check(Tar::new().device("x", EntryType::Char, 0, 0), "0:0");
}

#[test]
fn attributes_that_steer_the_kernel_are_left_out() {
    let place = Place::new();
    let layer = Tar::new()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.overlay.metacopy", b""),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.mine", b"1"),
        ])
        .dir("d", 0o755);
    place.write("layer.tar", &layer.done());
    let output = place.run(&["import", "layer.tar", "image", "--cmd", "/x"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("3 × an attribute of overlayfs"), "{said}");
    place.ok(&["bundle", "image", "bundle"]);
    let directory = fs::File::open(place.lower("bundle")[0].join("d")).unwrap();
    let names = linux::xattr::list(std::os::fd::AsFd::as_fd(&directory)).unwrap();
    assert_eq!(names, [c"user.mine".to_owned()]);
}

#[test]
fn sizes_that_lie() {
    let mut endless = Tar::new().raw(b"x", EntryType::Regular, b"", 0o644, b"").done();
    // 8 EiB in base 256.
    endless[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0x70, 0, 0, 0, 0, 0, 0, 0]);
    fix_checksum(&mut endless);
    assert!(refused(&endless).contains("--max-layer-size"));

    let sparse = Tar::new()
        .pax(&[("GNU.sparse.size", b"99999999999999"), ("GNU.sparse.map", b"0,0")])
        .file("x", b"");
    check(sparse, "--max-layer-size");
    let long =
        Tar::new().raw(b"././@LongLink", EntryType::GNULongName, b"", 0, &vec![b'a'; 2 << 20]);
    check(long.file("x", b""), "extended header");
    let long = Tar::new().raw(b"././@LongLink", EntryType::GNULongName, b"", 0, &[b'a'; 5000]);
    check(long.file("x", b""), "4095");
    check(Tar::new().pax(&[("uid", b"4294967295")]).file("x", b""), "owner");
    check(Tar::new().pax(&[("uid", b"-1")]).file("x", b""), "number");
    check(Tar::new().raw(b"x", EntryType::new(b'M'), b"", 0, b""), "type `M`");
}

fn fix_checksum(archive: &mut [u8]) {
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(&archive[..512]);
    header.set_cksum();
    archive[..512].copy_from_slice(header.as_bytes());
}

#[test]
fn bombs_stop_at_the_limit() {
    let place = Place::new();
    let bomb = gzip(&Tar::new().file("x", &vec![0; 8 << 20]).done());
    assert!(bomb.len() < 100_000);
    place.write("bomb.tar.gz", &bomb);
    let limited = ["import", "bomb.tar.gz", "x", "--max-layer-size", "1000000"];
    assert!(place.fails(&limited).contains("the limit is 1000000"));

    let zstd = zstd::encode_all(&Tar::new().file("x", &vec![0; 8 << 20]).done()[..], 3).unwrap();
    place.write("bomb.tar.gz", &zstd);
    assert!(place.fails(&limited).contains("the limit is 1000000"));

    let many = (0..50).fold(Tar::new(), |tar, at| tar.file(&format!("f{at}"), b""));
    place.write("many.tar", &many.done());
    let error = place.fails(&["import", "many.tar", "x", "--max-layer-entries", "49"]);
    assert!(error.contains("--max-layer-entries"), "{error}");

    // Directories that are only mentioned are made as well, and count.
    let deep = (0..20).fold(Tar::new(), |tar, at| tar.file(&format!("a{at}/b/c/d/e/f"), b""));
    place.write("deep.tar", &deep.done());
    let error = place.fails(&["import", "deep.tar", "x", "--max-layer-entries", "50"]);
    assert!(error.contains("--max-layer-entries"), "{error}");
    assert!(place.nothing_was_kept());
}

#[test]
fn streams_that_end_early_or_are_changed() {
    let layer = Tar::new().file("a", &[1; 3000]).file("b", &[2; 3000]).done();
    for cut in [100, 600, 2000, 4000] {
        refused(&layer[..cut]);
    }
    let packed = gzip(&layer);
    for cut in [3, 20, packed.len() / 2, packed.len() - 4] {
        refused(&packed[..cut]);
    }
    for at in [12, packed.len() / 2, packed.len() - 6] {
        let mut changed = packed.clone();
        changed[at] ^= 0x10;
        refused(&changed);
    }
}

#[test]
fn every_digest_of_a_layout_is_checked() {
    let layer = Tar::new().file("a", &[1; 3000]).done();
    let files = {
        let place = Place::new();
        layout(&place.path("layout"), "image", std::slice::from_ref(&layer));
        let blobs = fs::read_dir(place.path("layout/blobs/sha256")).unwrap();
        let mut files: Vec<_> = blobs.map(|blob| blob.unwrap().file_name()).collect();
        files.sort();
        files
    };
    assert_eq!(files.len(), 3);
    for file in files {
        let place = Place::new();
        layout(&place.path("layout"), "image", std::slice::from_ref(&layer));
        let blob = place.path("layout/blobs/sha256").join(&file);
        let mut bytes = fs::read(&blob).unwrap();
        // For JSON a blank more in a string, for gzip a bit of the header that has no meaning.
        let at = bytes.len() - 5;
        if bytes[0] == b'{' {
            bytes[at] ^= 1
        } else {
            bytes[4] ^= 1
        }
        fs::write(&blob, &bytes).unwrap();
        let error = place.fails(&["import", "layout", "image"]);
        assert!(error.contains("the content is sha256:"), "{error}");
        assert!(place.nothing_was_kept());
    }
}

#[test]
fn a_layer_that_is_not_what_the_configuration_says() {
    let place = Place::new();
    layout(&place.path("layout"), "image", &[Tar::new().file("a", b"1").done()]);
    let blobs = place.path("layout/blobs/sha256");
    // The manifest gets another layer with its right digest; the configuration keeps its diffID.
    let other = gzip(&Tar::new().file("a", b"2").done());
    let digest = rootfs_tools::Digest::of(&other);
    fs::write(blobs.join(digest.hex()), &other).unwrap();
    let index = fs::read_to_string(place.path("layout/index.json")).unwrap();
    let mut index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap().replace("sha256:", "");
    let mut document: serde_json::Value =
        serde_json::from_slice(&fs::read(blobs.join(manifest)).unwrap()).unwrap();
    document["layers"][0]["digest"] = serde_json::json!(digest);
    document["layers"][0]["size"] = serde_json::json!(other.len());
    let bytes = serde_json::to_vec(&document).unwrap();
    let manifest = rootfs_tools::Digest::of(&bytes);
    fs::write(blobs.join(manifest.hex()), &bytes).unwrap();
    index["manifests"][0]["digest"] = serde_json::json!(manifest);
    index["manifests"][0]["size"] = serde_json::json!(bytes.len());
    fs::write(place.path("layout/index.json"), index.to_string()).unwrap();

    let error = place.fails(&["import", "layout", "image"]);
    assert!(error.contains("layer 1 of 1") && error.contains("uncompressed"), "{error}");
    assert!(place.nothing_was_kept());
}

/// A layout whose index is `index`, with these documents as blobs.
fn with_documents(place: &Place, index: &str, documents: &[&[u8]]) {
    let blobs = place.path("layout/blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    for document in documents {
        fs::write(blobs.join(rootfs_tools::Digest::of(document).hex()), document).unwrap();
    }
    fs::write(place.path("layout/index.json"), index).unwrap();
    fs::write(place.path("layout/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// An index or a manifest can name itself only with a wrong digest, so cycles are chains: of
/// indexes that go on for longer than anybody needs.
#[test]
fn manifests_that_lead_in_circles() {
    let kind = "application/vnd.oci.image.index.v1+json";
    let host = rootfs_tools::image::platform::Platform::host();
    let naming = |digest: &str, size: usize| {
        serde_json::json!({
            "schemaVersion": 2, "mediaType": kind,
            "manifests": [{
                "mediaType": kind, "digest": digest, "size": size,
                "platform": {"os": host.os, "architecture": host.architecture},
            }],
        })
        .to_string()
    };
    let place = Place::new();
    let nobody = rootfs_tools::Digest::of(b"").to_string();
    let mut chain = vec![naming(&nobody, 0)];
    for _ in 0..20 {
        let last = chain.last().unwrap();
        chain.push(naming(&rootfs_tools::Digest::of(last.as_bytes()).to_string(), last.len()));
    }
    let documents: Vec<_> = chain.iter().map(|document| document.as_bytes()).collect();
    with_documents(&place, chain.last().unwrap(), &documents);
    let error = place.fails(&["import", "layout", "image"]);
    assert!(error.contains("not an image"), "{error}");

    // One that says that it is itself: the digest cannot be right.
    let place = Place::new();
    let itself = naming(&nobody, naming(&nobody, 100).len());
    with_documents(&place, &itself, &[]);
    fs::write(place.path("layout/blobs/sha256").join(&nobody[7..]), &itself).unwrap();
    let error = place.fails(&["import", "layout", "image"]);
    assert!(error.contains("sha256:") || error.contains("bytes"), "{error}");
    assert!(place.nothing_was_kept());
}

#[test]
fn manifests_that_are_huge() {
    let place = Place::new();
    let digest = rootfs_tools::Digest::of(b"").to_string();
    let entry = serde_json::json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1,
    });
    let many = vec![entry; 40_000];
    with_documents(
        &place,
        &serde_json::json!({"schemaVersion": 2, "manifests": many}).to_string(),
        &[],
    );
    assert!(place.fails(&["import", "layout", "image"]).contains("larger than"));

    // A manifest with more layers than a kernel can mount.
    let layer = serde_json::json!({"mediaType": "x", "digest": digest, "size": 1});
    let manifest = serde_json::json!({
        "schemaVersion": 2, "config": layer, "layers": vec![layer.clone(); 501],
    });
    let manifest = manifest.to_string();
    let entry = |size: usize| {
        serde_json::json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": rootfs_tools::Digest::of(manifest.as_bytes()), "size": size,
        }]})
        .to_string()
    };
    with_documents(&place, &entry(manifest.len()), &[manifest.as_bytes()]);
    assert!(place.fails(&["import", "layout", "image"]).contains("501"));
    // A descriptor that promises gigabytes of document: nobody reads them.
    with_documents(&place, &entry(1 << 40), &[manifest.as_bytes()]);
    assert!(place.fails(&["import", "layout", "image"]).contains("none has more"));
    // Brackets in brackets do not end the program.
    with_documents(&place, &format!("{{\"x\":{}", "[".repeat(1 << 20)), &[]);
    assert!(place.fails(&["import", "layout", "image"]).contains("recursion limit"));
    assert!(place.nothing_was_kept());
}

#[test]
fn names_that_are_not_utf8() {
    let place = Place::new();
    let layer = Tar::new()
        .raw(b"d\xff", EntryType::Directory, b"", 0o755, b"")
        .raw(b"d\xff/\xfe\n", EntryType::Regular, b"", 0o644, b"content")
        .raw(b"link", EntryType::Symlink, b"d\xff/\xfe\n", 0o777, b"");
    place.write("layer.tar", &layer.done());
    place.ok(&["import", "layer.tar", "image", "--cmd", "/x"]);
    place.ok(&["bundle", "image", "bundle"]);
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::OsStr::from_bytes(b"d\xff/\xfe\n");
    assert_eq!(fs::read(place.lower("bundle")[0].join(name)).unwrap(), b"content");
    assert_eq!(place.ok(&["verify"]), "image:latest: as it was\n");
    // In a message such a name is escaped: it cannot steer a terminal.
    let error = refused(&Tar::new().raw(b"\x1b[2J/../x", EntryType::Regular, b"", 0, b"").done());
    assert!(!error.contains('\x1b'), "{error}");
}

#[test]
fn entries_that_are_there_twice() {
    let place = Place::new();
    let layer = Tar::new()
        .file("x", b"first")
        .dir("d", 0o755)
        .file("d/inner", b"1")
        .file("x", b"second")
        .file("d", b"now a file")
        .symlink("y", "x")
        .dir("y", 0o755)
        .file("y/z", b"2");
    place.write("layer.tar", &layer.done());
    place.ok(&["import", "layer.tar", "image", "--cmd", "/x"]);
    place.ok(&["bundle", "image", "bundle"]);
    let tree = &place.lower("bundle")[0];
    assert_eq!(fs::read(tree.join("x")).unwrap(), b"second");
    assert_eq!(fs::read(tree.join("d")).unwrap(), b"now a file");
    assert_eq!(fs::read(tree.join("y/z")).unwrap(), b"2");
    assert_eq!(place.ok(&["verify"]), "image:latest: as it was\n");
}
