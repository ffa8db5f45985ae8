//! Layers that may not be on the disk: used under the boot that wrote them, never under another.

use crate::common::{Place, Tar, layout};
use crate::death::sound;
use minirun::ready::{Ready, boot_id};
use nix::unistd::geteuid;
use rootfs_tools::bundle::{self, Wish};
use rootfs_tools::image::config::ImageConfig;
use rootfs_tools::image::platform::Platform;
use rootfs_tools::import::{How, import};
use rootfs_tools::source::{self, Selection};
use rootfs_tools::store::durable::Boot;
use rootfs_tools::{Digest, Store};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const CONTENT: &[u8] = b"what the layer has";

fn with_image() -> Place {
    let place = Place::new();
    let lower = Tar::new().dir("d", 0o755).file("d/file", CONTENT).done();
    layout(&place.path("one"), "one", &[lower, Tar::new().file("upper", b"1").done()]);
    place
}

fn open(place: &Place, boot: &str) -> Store {
    Store::open_under(&place.path("store"), Boot::named(boot)).unwrap()
}

/// Imports as a process does that is killed before it has started another one to flush.
fn import_and_die(place: &Place, store: &Store) -> Vec<Digest> {
    let selection = Selection { name: None, platform: Platform::host() };
    let scratch = store.scratch().unwrap();
    let path = place.path("one");
    let source = source::open(&path, &selection, ImageConfig::default(), scratch.path()).unwrap();
    import(store, &source, &"one".parse().unwrap(), How::default()).unwrap();
    store.image(&"one".parse().unwrap()).unwrap().chain()
}

/// What a power cut leaves of a file whose content was not on the disk yet.
fn lose_content(store: &Store, chain: &[Digest]) -> PathBuf {
    let file = store.tree_path(&chain[0]).join("d/file");
    File::create(&file).unwrap();
    file
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_durable(place: &Place) -> bool {
    Store::open(&place.path("store")).unwrap().all_unflushed().unwrap().is_empty()
}

#[test]
fn a_layer_of_another_boot_is_unpacked_again() {
    let place = with_image();
    let chain = import_and_die(&place, &open(&place, "first"));
    let first = open(&place, "first");
    assert!(chain.iter().all(|id| first.is_flushing(id)), "it is used at once");
    let file = lose_content(&first, &chain);
    drop(first);

    let second = open(&place, "second");
    assert!(chain.iter().all(|id| second.layer(id).unwrap().is_none() && second.is_lost(id)));
    let name = "one".parse().unwrap();
    let wish = Wish { ephemeral: true, ..Wish::default() };
    bundle::create(&second, &name, &place.path("bundle"), &wish).unwrap();
    assert_eq!(fs::read(file).unwrap(), CONTENT);
    let unflushed = second.unflushed();
    assert_eq!(unflushed.again, chain.iter().copied().collect());
    assert_eq!(unflushed.written, unflushed.again);
    // The first boot cannot come again; but if its name did, these layers were not its own.
    let first = open(&place, "first");
    assert!(chain.iter().all(|id| first.layer(id).unwrap().is_none()));
    drop((first, second));
    assert_eq!(fs::read_dir(place.path("store/tmp")).unwrap().count(), 0);
}

#[test]
fn a_durable_layer_is_used_under_any_boot() {
    let place = with_image();
    let first = open(&place, "first");
    let chain = import_and_die(&place, &first);
    first.make_durable(&chain.iter().copied().collect()).unwrap();
    drop(first);
    for boot in [Boot::named("second"), Boot::unknown(), Boot::current()] {
        let store = Store::open_under(&place.path("store"), boot).unwrap();
        for id in &chain {
            assert!(store.layer(id).unwrap().is_some_and(|record| record.boot.is_none()));
        }
    }
    sound(&place);
}

#[test]
fn a_store_of_an_unknown_boot_waits_for_the_disk() {
    let place = with_image();
    let store = Store::open_under(&place.path("store"), Boot::unknown()).unwrap();
    let chain = import_and_die(&place, &store);
    assert!(chain.iter().all(|id| store.layer(id).unwrap().is_some() && !store.is_flushing(id)));
    drop(store);
    sound(&place);
}

/// Whatever a power cut leaves of a layer, the program says so, unpacks it again, and goes on.
#[test]
fn what_a_power_cut_leaves_is_told_and_unpacked_again() {
    let boot = r#"sed -i 's/"boot":"[^"]*"/"boot":"another"/' */layer.json"#;
    let cuts = [
        format!("{boot}; for f in */fs/d/file */tree.mtree */state; do : > $f; done"),
        format!("{boot}; rm -r */fs"),
        "for f in */layer.json */state; do : > $f; done".into(),
        "rm */layer.json".into(),
    ];
    for cut in cuts {
        let place = with_image();
        import_and_die(&place, &Store::open(&place.path("store")).unwrap());
        let layers = place.path("store/layers/sha256");
        crate::common::sh(&format!("cd {} && {cut}", layers.display()));
        assert!(place.ok(&["ls"]).contains("one"), "{cut}");
        assert_eq!(
            place.ok(&["verify"]),
            "one:latest: as it was\n",
            "what is not there is not wrong"
        );
        let output = place.run(&["bundle", "one", "bundle"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{cut}: {said}");
        assert_eq!(said.matches("was unpacked again").count(), 2, "{cut}: {said}");
        let file = place.lower("bundle")[1].join("d/file");
        assert_eq!(fs::read(file).unwrap(), CONTENT, "{cut}");
        assert!(is_durable(&place), "a bundle lasts, and so do its layers");
        sound(&place);
        let again = place.run(&["bundle", "one", "other"]);
        assert!(again.status.success() && again.stderr.is_empty(), "{again:?}");
    }
}

#[test]
fn who_comes_next_finishes_what_a_killed_process_began() {
    let place = with_image();
    import_and_die(&place, &Store::open(&place.path("store")).unwrap());
    place.ok(&["ls"]);
    assert!(!is_durable(&place), "nobody has used a layer");
    place.ok(&["bundle", "--ephemeral", "one", "bundle"]);
    wait_until("in the background", || is_durable(&place));
    sound(&place);
}

/// The file system lost what was written, and the kernel lived.
#[test]
fn who_flushes_for_another_looks_first() {
    let place = with_image();
    let store = Store::open(&place.path("store")).unwrap();
    let chain = import_and_die(&place, &store);
    let file = lose_content(&store, &chain);
    drop(store);
    assert!(place.fails(&["sync"]).contains("the disk has lost files of layer"));
    let output = place.run(&["bundle", "one", "bundle"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read(file).unwrap(), CONTENT);
    sound(&place);
}

/// A bundle waits for another process, and that one finds that the disk has lost something.
#[test]
fn no_bundle_is_made_of_what_another_process_found_lost() {
    let place = with_image();
    let store = Store::open(&place.path("store")).unwrap();
    let chain = import_and_die(&place, &store);
    let flushing = store.flush_lock().unwrap();
    flushing.lock().unwrap();
    let bundle =
        place.command(&["bundle", "one", "bundle"]).stderr(Stdio::piped()).spawn().unwrap();
    let process = PathBuf::from(format!("/proc/{}", bundle.id()));
    wait_until("it waits for its turn", || waits_for_a_lock(&process));
    // What a process does whose flush fails.
    fs::remove_file(store.layer_path(&chain[0]).join("layer.json")).unwrap();
    flushing.unlock().unwrap();
    let output = bundle.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("the disk has lost files"), "{said}");
    assert!(!place.path("bundle").exists());
    drop(store);
    place.ok(&["bundle", "one", "bundle"]);
    sound(&place);
}

#[test]
fn sync_waits() {
    let place = with_image();
    place.ok(&["import", "one", "--sync"]);
    assert!(is_durable(&place));
    place.ok(&["rm", "one"]);
    place.ok(&["gc"]);
    place.ok(&["import", "one"]);
    place.ok(&["sync"]);
    assert!(is_durable(&place));
    assert_eq!(place.ok(&["sync", "--json"]), "{\"layers\":0}\n");
}

#[test]
fn what_is_ready_holds_for_this_boot_until_the_layers_are_durable() {
    let place = with_image();
    fs::create_dir(place.path("store")).unwrap();
    let flushing = File::create(place.path("store/flush.lock")).unwrap();
    flushing.lock().unwrap();
    place.ok(&["import", "one"]);
    let boot_of_ready = |bundle: &str| -> Option<String> {
        place.ok(&["bundle", "--ephemeral", "one", bundle]);
        let ready = fs::read(place.path("store/ready/one")).unwrap();
        serde_json::from_slice::<Ready>(&ready).unwrap().boot
    };
    assert_eq!(boot_of_ready("first"), boot_id());
    assert!(boot_id().is_some_and(|id| id.len() == 36));
    flushing.unlock().unwrap();
    wait_until("the layers are durable", || is_durable(&place));
    assert_eq!(boot_of_ready("second"), None);
}

/// Whether a process waits for a lock: proc_locks(5) has an arrow before those that do.
fn waits_for_a_lock(process: &Path) -> bool {
    let pid = process.file_name().unwrap().to_str().unwrap();
    let locks = fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|line| line.contains("->") && line.split(' ').any(|word| word == pid))
}

/// Processes that have the store's path among their arguments.
fn processes_of(place: &Place) -> Vec<PathBuf> {
    let store = place.path("store").to_str().unwrap().to_owned();
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let is_ours = |path: &PathBuf| {
        fs::read_to_string(path.join("cmdline")).is_ok_and(|line| line.contains(&store))
    };
    processes.filter(is_ours).collect()
}

#[test]
fn the_process_in_the_background_has_nothing_of_the_caller() {
    let place = with_image();
    fs::create_dir(place.path("store")).unwrap();
    // As if another one were at work: so it can be looked at.
    let flushing = File::create(place.path("store/flush.lock")).unwrap();
    flushing.lock().unwrap();
    // The caller's lock and pipe, which every program that it starts inherits.
    let script = "exec 9> caller.lock; flock 9; exec 8> caller.file; exec \"$@\"";
    let mut import = Command::new("sh");
    import.args(["-euc", script, "sh"]).arg(env!("CARGO_BIN_EXE_rootfs-tools"));
    import.arg("--store").arg(place.path("store")).args(["import", "one"]);
    import.current_dir(place.dir.path()).stdin(Stdio::null());
    // Returns when everybody has closed the pipes.
    let output = import.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let lock = File::open(place.path("caller.lock")).unwrap();
    lock.try_lock().expect("nobody has the caller's lock");

    let processes = processes_of(&place);
    let [process] = &processes[..] else { panic!("{processes:?}") };
    wait_until("it waits for its turn", || waits_for_a_lock(process));
    let link = |name: &str| fs::read_link(process.join(name)).unwrap();
    let store = place.path("store");
    assert_eq!(link("cwd"), Path::new("/"));
    assert_eq!((link("fd/0"), link("fd/2")), (store.clone(), "/dev/null".into()));
    assert_eq!(link("fd/1"), store.join("flush.lock"));
    for descriptor in fs::read_dir(process.join("fd")).unwrap().skip(3) {
        let open = fs::read_link(descriptor.unwrap().path()).unwrap();
        assert!(open.starts_with(&store) || open == Path::new("/dev/null"), "{open:?}");
    }
    let stat = fs::read_to_string(process.join("stat")).unwrap();
    let words: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let pid = process.file_name().unwrap().to_str().unwrap();
    assert_eq!(words[3], pid, "a session of its own");
    assert_eq!(fs::read(process.join("environ")).unwrap(), b"");
    assert!(!is_durable(&place));

    flushing.unlock().unwrap();
    wait_until("it ends", || processes_of(&place).is_empty());
    assert!(is_durable(&place));
    sound(&place);
}

/// Nobody makes a store that was removed again, nor any part of it.
#[test]
fn a_store_can_be_removed_under_the_process_in_the_background() {
    for wait in [0, 1, 2, 4, 8, 16] {
        let place = with_image();
        place.ok(&["import", "one"]);
        std::thread::sleep(Duration::from_millis(wait));
        fs::remove_dir_all(place.path("store")).unwrap();
        wait_until("it ends", || processes_of(&place).is_empty());
        assert!(!place.path("store").exists());
    }
}

#[test]
fn a_full_disk_leaves_nothing_and_stops_no_flush() {
    if !geteuid().is_root() {
        return;
    }
    let place = with_image();
    let large = (0..300).fold(Tar::new(), |tar, at| tar.file(&format!("f{at}"), &[at as u8; 9000]));
    layout(&place.path("large"), "large", &[large.done()]);
    let store = place.path("store");
    fs::create_dir(&store).unwrap();
    let script = r#"
        mount -t tmpfs -o size=1m disk "$2"
        tools() { "$1" --store "$2/s" "$3" ${4-}; }
        if tools "$1" "$2" import large; then exit 3; fi
        tools "$1" "$2" verify
        test -z "$(ls "$2"/s/layers/sha256 "$2"/s/tmp | grep -v :)"
        flock "$2/s/flush.lock" sh -ec '
            "$1" --store "$2/s" import one
            dd if=/dev/zero of="$2/full" bs=4k 2> /dev/null || true
            if echo more > "$2/more" 2> /dev/null; then exit 4; fi
        ' sh "$1" "$2"
        tools "$1" "$2" sync
        grep -c durable "$2"/s/layers/sha256/*/state
    "#;
    let output = Command::new("unshare")
        .args(["-m", "sh", "-euc", script, "sh", env!("CARGO_BIN_EXE_rootfs-tools")])
        .arg(&store)
        .current_dir(place.dir.path())
        .output()
        .unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(err.contains("No space left on device"), "{err}");
    assert_eq!(out.matches("state:1").count(), 2, "{out}{err}");
}
