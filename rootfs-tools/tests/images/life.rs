//! The life of images in a store: names, sharing, verification, collection.

use crate::common::{Place, Tar, layout};
use crate::death::sound;
use rootfs_tools::Store;
use std::fs;
use std::process::{Command, Stdio};

fn base() -> Vec<u8> {
    Tar::new().dir("etc", 0o755).file("etc/base", &[7; 40_000]).done()
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn images_share_layers_and_df_shows_it() {
    let place = Place::new();
    layout(&place.path("one"), "one", &[base(), Tar::new().file("a", b"1").done()]);
    layout(&place.path("two"), "two", &[base(), Tar::new().file("b", b"2").done()]);
    place.ok(&["import", "one", "one"]);
    assert!(place.ok(&["import", "two", "two"]).contains("1 of them shared"));
    let df = json(&place.ok(&["df", "--json"]));
    assert_eq!((&df["layers"], &df["sharedLayers"]), (&3.into(), &1.into()));
    assert!(df["savedBySharing"].as_u64().unwrap() >= base().len() as u64);
    assert_eq!(fs::read_dir(place.path("store/layers/sha256")).unwrap().count(), 3);
}

#[test]
fn names_come_and_go_and_garbage_is_what_nothing_needs() {
    let place = Place::new();
    layout(&place.path("one"), "one", &[base(), Tar::new().file("a", b"1").done()]);
    layout(&place.path("two"), "two", &[base(), Tar::new().file("b", b"2").done()]);
    place.ok(&["import", "one"]);
    place.ok(&["import", "two"]);
    place.ok(&["tag", "one", "uno:v1"]);
    place.ok(&["bundle", "two", "bundle"]);
    assert!(place.fails(&["tag", "three", "tres"]).contains("no image `three:latest`"));
    assert!(place.fails(&["rm", "three"]).contains("no image `three:latest`"));

    place.ok(&["rm", "one"]);
    assert!(place.ok(&["gc"]).starts_with("freed 0 B"), "uno:v1 needs it");
    place.ok(&["rm", "uno:v1", "two"]);
    let pretended = json(&place.ok(&["gc", "--dry-run", "--json"]));
    let collected = json(&place.ok(&["gc", "--json"]));
    assert_eq!(pretended["layers"], collected["layers"]);
    assert_eq!(collected["layers"].as_array().unwrap().len(), 1, "the bundle needs the others");
    assert_eq!(fs::read_dir(place.path("store/blobs/sha256")).unwrap().count(), 0);
    assert!(place.lower("bundle").iter().all(|layer| layer.is_dir()));

    fs::remove_dir_all(place.path("bundle")).unwrap();
    assert_eq!(json(&place.ok(&["gc", "--json"]))["layers"].as_array().unwrap().len(), 2);
    assert_eq!(fs::read_dir(place.path("store/bundles")).unwrap().count(), 0);
    assert!(place.nothing_was_kept());
}

#[test]
fn what_is_mounted_is_not_garbage() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    // Layers that no other test has: a collection keeps what is mounted from any store.
    let layers = [Tar::new().file("mounted", b"0").done(), Tar::new().file("m", b"1").done()];
    layout(&place.path("one"), "one", &layers);
    place.ok(&["import", "one"]);
    place.ok(&["bundle", "one", "bundle"]);
    let lower: Vec<_> = place.lower("bundle").iter().map(|l| l.display().to_string()).collect();
    fs::create_dir(place.path("merged")).unwrap();
    let script = format!(
        "mount -t overlay o -o lowerdir={} {} && echo mounted && read end",
        lower.join(":"),
        place.path("merged").display()
    );
    let mut container = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut said = std::io::BufReader::new(container.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert_eq!(line, "mounted\n");
    fs::remove_dir_all(place.path("bundle")).unwrap();
    place.ok(&["rm", "one"]);
    let collected = json(&place.ok(&["gc", "--json"]));
    drop(container.stdin.take());
    container.wait().unwrap();
    assert_eq!(collected["layers"].as_array().unwrap().len(), 0);
    assert_eq!(json(&place.ok(&["gc", "--json"]))["layers"].as_array().unwrap().len(), 2);
}

#[test]
fn every_change_of_an_unpacked_tree_is_found() {
    let layer = Tar::new()
        .dir("d", 0o755)
        .file("d/file", b"content")
        .link("d/twin", "d/file")
        .symlink("link", "d/file")
        .file(".wh.gone", b"")
        .file("d/.wh..wh..opq", b"")
        .done();
    let changes = [
        ("echo other > d/file", "d/file: another time, size, sha256digest"),
        (
            "touch -r d keep; printf CONTENT > d/file; touch -d @1700000000 d/file; rm keep",
            "sha256digest",
        ),
        ("chmod 600 d/file", "d/file: another mode"),
        ("rm d/twin; cp -p d/file d/twin", "d/twin: it is another file now"),
        ("rm link; ln -s elsewhere link; touch -h -d @1700000000 link", "link: another link"),
        ("rm gone; touch gone", "gone: another type"),
        ("touch d/stranger", "d/stranger: the layer has no such file"),
        ("rm -r d", "d: openat2"),
        ("setfattr -n user.x -v 1 d/file", "attributes"),
        ("echo '# x' >> ../tree.mtree", "tree.mtree was changed"),
    ];
    for (change, found) in changes {
        let place = Place::new();
        place.write("layer.tar", &layer);
        place.ok(&["import", "layer.tar", "x"]);
        assert_eq!(place.ok(&["verify"]), "x:latest: as it was\n");
        let tree = fs::read_dir(place.path("store/layers/sha256")).unwrap().next().unwrap();
        crate::common::sh(&format!("cd {}/fs && {change}", tree.unwrap().path().display()));
        let output = place.run(&["verify", "x"]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(!output.status.success() && said.contains(found), "{change}: {said}");
    }
}

#[test]
fn a_damaged_blob_is_found() {
    let place = Place::new();
    layout(&place.path("one"), "one", &[base()]);
    place.ok(&["import", "one"]);
    let store = Store::open(&place.path("store")).unwrap();
    let image = store.image(&"one".parse().unwrap()).unwrap();
    let blob = store.blob_path(&image.manifest.layers[0].digest);
    drop(store);
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, vec![0; usize::try_from(image.manifest.layers[0].size).unwrap()]).unwrap();
    let output = place.run(&["verify", "one"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(!output.status.success() && said.contains("its content is sha256:"), "{said}");
}

#[test]
fn many_processes_use_one_store() {
    let place = Place::new();
    layout(&place.path("one"), "one", &[base(), Tar::new().file("a", b"1").done()]);
    let start = |name: &str| {
        Command::new(env!("CARGO_BIN_EXE_rootfs-tools"))
            .args(["--store", place.path("store").to_str().unwrap(), "import", "one", name])
            .current_dir(place.dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let names: Vec<_> = (0..12).map(|at| format!("image{at}")).collect();
    let children: Vec<_> = names.iter().map(|name| start(name)).collect();
    place.ok(&["gc"]);
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let list = place.ok(&["ls"]);
    assert!(names.iter().all(|name| list.contains(&format!("{name}:latest"))), "{list}");
    sound(&place);
}
