//! `kill -9` at any moment of everything that changes a store: whatever dies, what has a name is
//! complete and right, and the next one goes on as if nothing had been.

use crate::build::runtime;
use crate::common::{Place, Tar, has, layout, sh};
use crate::registry::Registry;
use rootfs_tools::{Digest, Store};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often each command is killed, unless `KILLS` says otherwise.
const KILLS: u32 = 50;

fn kills() -> u32 {
    std::env::var("KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS)
}

/// Everything that has a name in the store is complete and right.
pub(crate) fn sound(place: &Place) {
    if !place.path("store/oci-layout").exists() {
        return;
    }
    let store = Store::open(&place.path("store")).unwrap();
    for entry in fs::read_dir(place.path("store/blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let digest = Digest::of(&fs::read(&path).unwrap());
        assert_eq!(path.file_name().unwrap().to_str().unwrap(), digest.hex());
    }
    for entry in fs::read_dir(place.path("store/layers/sha256")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let chain_id = format!("sha256:{name}").parse().unwrap();
        assert!(store.layer(&chain_id).unwrap().is_some());
        let wrong = rootfs_tools::store::verify::layer(&store, &chain_id).unwrap();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
    for image in store.images().unwrap() {
        assert!(rootfs_tools::store::verify::image(&store, &image).unwrap().is_empty());
    }
}

fn command(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rootfs-tools"));
    command
        .arg("--store")
        .arg(place.path("store"))
        .args(arguments)
        .current_dir(place.dir.path())
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Kills `arguments` at moments spread over the time that it takes; before each, `before` brings
/// the store to where there is work. In the end the command succeeds.
fn die(place: &Place, arguments: &[&str], before: &[&[&str]]) {
    let prepare = || before.iter().for_each(|arguments| drop(command(place, arguments).status()));
    prepare();
    let begin = Instant::now();
    place.ok(arguments);
    let length = begin.elapsed();
    let (mut killed, kills) = (0, kills());
    for round in 0..kills {
        prepare();
        let mut child = command(place, arguments).spawn().unwrap();
        // Steps that do not repeat, from the first microseconds to about the whole length.
        std::thread::sleep(length * (round * 37 % kills) / kills);
        child.kill().unwrap();
        killed += u32::from(child.wait().unwrap().signal().is_some());
        if round % 8 == 7 {
            sound(place);
        }
    }
    println!("{arguments:?}: {killed} of {kills} killed, it takes {length:?}");
    assert!(killed >= kills / 4, "{arguments:?}: only {killed} of {kills} died");
    sound(place);
    prepare();
    place.ok(arguments);
    sound(place);
}

fn files(from: u32) -> Vec<u8> {
    let add = |tar: Tar, at: u32| tar.file(&format!("d{}/f{at}", at % 7), &[1; 900]);
    (from..from + 120).fold(Tar::new(), add).done()
}

fn with_image() -> Place {
    let place = Place::new();
    layout(&place.path("one"), "one", &[files(0), files(1000), files(2000)]);
    place
}

/// What makes every command begin from nothing.
const EMPTY: &[&[&str]] = &[&["rm", "one"], &["gc"]];

#[test]
fn death_of_an_import_which_unpacks() {
    die(&with_image(), &["import", "one"], EMPTY);
}

#[test]
fn death_of_a_collection() {
    die(&with_image(), &["gc"], &[&["import", "one"], &["rm", "one"]]);
}

#[test]
fn death_of_a_pull() {
    if !has("docker-registry") {
        return;
    }
    let place = with_image();
    let registry = Registry::start(&place, "", "");
    let target = registry.image("team/one:v1");
    place.ok(&["import", "one"]);
    place.ok(&["push", "one", &target, "--insecure"]);
    die(&place, &["pull", &target, "one", "--insecure"], EMPTY);
}

/// A push changes nothing here; what it leaves there is for the next one to complete.
#[test]
fn death_of_a_push() {
    if !has("docker-registry") {
        return;
    }
    let place = with_image();
    let registry = Registry::start(&place, "", "");
    place.ok(&["import", "one"]);
    let (mut round, kills) = (0, kills());
    let begin = Instant::now();
    place.ok(&["push", "one", &registry.image("team/zero:v1"), "--insecure"]);
    let length = begin.elapsed();
    let mut killed = 0;
    while round < kills {
        // A repository each, so that there is always something to send.
        let target = registry.image(&format!("team/r{round}:v1"));
        let mut child = command(&place, &["push", "one", &target, "--insecure"]).spawn().unwrap();
        std::thread::sleep(length * (round * 37 % kills) / kills);
        child.kill().unwrap();
        killed += u32::from(child.wait().unwrap().signal().is_some());
        if round % 8 == 7 {
            place.ok(&["push", "one", &target, "--insecure"]);
            let other = Place::new();
            other.ok(&["pull", &target, "--insecure"]);
            sound(&other);
        }
        round += 1;
    }
    println!("push: {killed} of {kills} killed, it takes {length:?}");
    assert!(killed >= kills / 4, "only {killed} of {kills} died");
    sound(&place);
}

#[test]
fn death_of_a_commit() {
    let place = with_image();
    place.ok(&["import", "one"]);
    place.ok(&["bundle", "one", "bundle"]);
    // What minirun keeps of a container while it is there.
    let upper = place.path("bundle/.minirun-c/upper");
    sh(&format!(
        "mkdir -p {0} && cd {0} && for i in $(seq 200); do echo $i > new-$i; done",
        upper.display()
    ));
    die(&place, &["commit", "bundle", "next"], &[&["rm", "next"], &["gc"]]);
}

#[test]
fn death_of_a_build() {
    let place = with_image();
    place.ok(&["import", "one"]);
    sh(&format!(
        "cd {} && mkdir copied && for i in $(seq 200); do echo $i > copied/$i; done",
        place.dir.path().display()
    ));
    let mut text = "FROM one\nCOPY copied /copied\nWORKDIR /made\n".to_owned();
    if runtime().is_some() {
        sh(&format!("cp $(command -v busybox) {}", place.dir.path().display()));
        text += "COPY busybox /bin/\nRUN [\"/bin/busybox\", \"touch\", \"/made/file\"]\n";
    }
    place.write("Containerfile", text.as_bytes());
    place.write(".dockerignore", b"store\none\n");
    let build = ["build", "-t", "built", "--network", "none", "."];
    die(&place, &build, &[&["rm", "built"], &["gc"]]);
    // A container whose build was killed ends by itself; nothing waits for it.
    std::thread::sleep(Duration::from_millis(200));
    place.ok(&["gc"]);
    assert_eq!(fs::read_dir(place.path("store/tmp")).unwrap().count(), 0);
}
