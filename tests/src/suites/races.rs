//! Two containers share a volume, and one of them renames in it while the other is made.
//!
//! CVE-2021-30465, CVE-2024-45310: the runtime checks a directory of the volume and then mounts on
//! it, and between the two it has become a link to somewhere else. The race needs many tries; a
//! bound on the time keeps the test short, and how many there were is printed.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::call::length_of_loop;
use crate::programs;
use crate::world::World;
use crate::{Test, test};

/// How long one race goes on.
const LENGTH: Duration = Duration::from_secs(15);

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("mount_points_in_a_shared_volume", mount_points_in_a_shared_volume),
        test("masks_in_a_shared_volume", masks_in_a_shared_volume),
        test("working_directory_in_a_shared_volume", working_directory_in_a_shared_volume),
    ]
}

/// A volume with `a`, a directory, and `b`, a link to the canary: and somebody who swaps them.
struct Race<'w> {
    world: &'w World,
    volume: String,
    canary: std::path::PathBuf,
}

impl<'w> Race<'w> {
    fn new(world: &'w World) -> Self {
        let (volume, canary) = (world.path("volume"), world.path("canary"));
        std::fs::create_dir_all(volume.join("a")).expect("make a directory");
        std::fs::create_dir(&canary).expect("make a directory");
        let up = format!("../../../../../../../../..{}", canary.display());
        std::os::unix::fs::symlink(up, volume.join("b")).expect("make a link");
        Self { world, volume: volume.to_str().expect("UTF-8").to_owned(), canary }
    }

    /// Makes containers until the time is over; each tries `per_container` times.
    fn run(&self, bundle: &str, per_container: usize) {
        let swapper = self
            .world
            .program(programs::probe())
            .directory(Path::new(&self.volume))
            .args(&["swap", "a", "b"])
            .spawn();
        swapper.wait_for("swapping");
        let begun = Instant::now();
        let mut containers = 0;
        let mut built = 0;
        while begun.elapsed() < length_of_loop(LENGTH) {
            let ran = self.world.run(&["run", "-b", bundle, "c"]);
            containers += 1;
            built += usize::from(ran.status == 0);
            assert!(ran.status <= 1, "{ran:?}");
            let left: Vec<_> = std::fs::read_dir(&self.canary).expect("it is there").collect();
            assert!(left.is_empty(), "after {containers} containers: {left:?}");
        }
        swapper.signal(Signal::KILL);
        swapper.wait();
        eprintln!(
            "{containers} containers ({built} were built), {} tries",
            containers * per_container
        );
        assert!(containers > 3, "only {containers} tries");
    }
}

fn mount_points_in_a_shared_volume(world: &World) {
    let race = Race::new(world);
    let mut bundle =
        world.bundle("c").mount("/volume", "bind", &race.volume, &["rbind"]).args(&["true"]);
    for index in 0..30 {
        bundle = bundle.mount(&format!("/volume/a/x{index}/y"), "tmpfs", "t", &["size=64k"]);
    }
    let file = world.path("file");
    std::fs::write(&file, "x").expect("write a file");
    let source = file.to_str().expect("UTF-8");
    for index in 0..10 {
        bundle = bundle.mount(&format!("/volume/a/f{index}"), "bind", source, &["bind"]);
    }
    race.run(bundle.path(), 40);
}

fn masks_in_a_shared_volume(world: &World) {
    let race = Race::new(world);
    let paths: Vec<_> = (0..30).map(|_| "/volume/a").collect();
    let bundle = world
        .bundle("c")
        .mount("/volume", "bind", &race.volume, &["rbind"])
        .set("/linux/readonlyPaths", json!(paths))
        .args(&["true"]);
    race.run(bundle.path(), 30);
}

fn working_directory_in_a_shared_volume(world: &World) {
    let race = Race::new(world);
    let bundle = world
        .bundle("c")
        .mount("/volume", "bind", &race.volume, &["rbind"])
        .set("/process/cwd", json!("/volume/a/made/by/minirun"))
        .args(&["true"]);
    race.run(bundle.path(), 1);
}
