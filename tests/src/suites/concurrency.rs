//! Several commands about one container at the same time, and several containers at once.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::call::{Ran, Running, length_of_loop, wait_until};
use crate::world::World;
use crate::{Test, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("one_create_wins", one_create_wins),
        test("names_that_nobody_chose", names_that_nobody_chose),
        test("one_start_wins", one_start_wins),
        test("every_forced_delete_succeeds", every_forced_delete_succeeds),
        test("create_against_delete", create_against_delete),
        test("run_against_delete", run_against_delete),
        test("a_name_that_was_given_away", a_name_that_was_given_away),
        test("many_containers_at_once", many_containers_at_once),
        test("many_execs_at_once", many_execs_at_once),
        test("two_hundred_lives", two_hundred_lives),
    ]
}

/// The same call, so many times at once.
fn at_once(world: &World, count: usize, arguments: &[&str]) -> Vec<Ran> {
    let running: Vec<_> = (0..count).map(|_| world.minirun(arguments).spawn()).collect();
    running.into_iter().map(Running::wait).collect()
}

/// Exactly one has succeeded, and all others say that.
fn one_wins(all: &[Ran], words: &str) {
    let winners = all.iter().filter(|ran| ran.status == 0).count();
    assert_eq!(winners, 1, "{all:?}");
    let losers = all.iter().filter(|ran| ran.status == 1 && ran.errors.contains(words)).count();
    assert_eq!(losers, all.len() - 1, "{all:?}");
}

fn one_create_wins(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    let all = at_once(world, 6, &["create", "-b", bundle.path(), "c"]);
    one_wins(&all, "already exists");
    assert_eq!(world.status("c"), "created");
    world.run(&["delete", "-f", "c"]).ok();
}

/// Whoever finds the name of the bundle taken gets the next one.
fn names_that_nobody_chose(world: &World) {
    let bundle = world.bundle("unnamed").unset("/linux/cgroupsPath").args(&["/bin/probe", "wait"]);
    for ran in at_once(world, 6, &["run", "-d", bundle.path()]) {
        ran.ok();
    }
    let names = world.run(&["list", "-q"]).ok().output.clone();
    let numbered = (2..=6).map(|number| format!("unnamed-{number}"));
    assert!(names.lines().eq(std::iter::once("unnamed".to_owned()).chain(numbered)), "{names}");
    for name in names.lines() {
        world.run(&["delete", "-f", name]).ok();
    }
}

fn one_start_wins(world: &World) {
    let bundle = world.bundle("c").shell("echo x >>/tmp/started; sleep 1000");
    world.run(&["create", "-b", bundle.path(), "c"]).ok();
    let all = at_once(world, 6, &["start", "c"]);
    one_wins(&all, "cannot start an already running container");
    let started = bundle.rootfs("tmp/started");
    assert!(wait_until(|| started.exists()));
    assert_eq!(std::fs::read_to_string(started).expect("it is there"), "x\n");
    world.run(&["delete", "-f", "c"]).ok();
}

fn every_forced_delete_succeeds(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    world.run(&["run", "-d", bundle.path()]).ok();
    for ran in at_once(world, 6, &["delete", "--force", "c"]) {
        ran.ok();
    }
}

fn create_against_delete(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    let begun = Instant::now();
    while begun.elapsed() < length_of_loop(Duration::from_secs(6)) {
        let create = world.minirun(&["create", "-b", bundle.path(), "c"]).spawn();
        let deletes = at_once(world, 3, &["delete", "--force", "c"]);
        let created = create.wait();
        // Deleted while it was made, before, or after: never half.
        assert!(created.status == 0 || created.status == 1, "{created:?}");
        for ran in deletes {
            ran.exits(0);
        }
        world.run(&["delete", "--force", "c"]).ok();
        let left = world.what_is_left();
        assert!(left.is_empty(), "{left:?} after {created:?}");
    }
}

fn run_against_delete(world: &World) {
    let bundle = world.bundle("c").args(&["true"]);
    let begun = Instant::now();
    while begun.elapsed() < length_of_loop(Duration::from_secs(6)) {
        let run = world.minirun(&["run", "-b", bundle.path(), "c"]).spawn();
        let deletes = at_once(world, 2, &["delete", "--force", "c"]);
        let ran = run.wait();
        assert!([0, 1, 137].contains(&ran.status), "{ran:?}");
        for ran in deletes {
            ran.exits(0);
        }
        world.run(&["delete", "--force", "c"]).ok();
        let left = world.what_is_left();
        assert!(left.is_empty(), "{left:?} after {ran:?}");
    }
}

/// Its creator still stands in front of a container that others have deleted and replaced.
fn a_name_that_was_given_away(world: &World) {
    let old = world.bundle("old").args(&["/bin/probe", "wait"]);
    let new = world.bundle("new").args(&["/bin/probe", "wait"]);
    let running = world.minirun(&["run", "-b", old.path(), "c"]).spawn();
    running.wait_for("waiting");
    // Its program may have said so before `run` has let go of the container: whoever changes
    // something comes after that.
    world.run(&["update", "--pids-limit", "50", "c"]).ok();
    running.signal(Signal::STOP);
    world.run(&["delete", "-f", "c"]).ok();
    world.run(&["run", "-d", "-b", new.path(), "c"]).ok();
    running.signal(Signal::CONT);
    running.wait().exits(137);
    assert_eq!(world.status("c"), "running", "it has removed the container of another");
    world.run(&["delete", "-f", "c"]).ok();
}

fn many_containers_at_once(world: &World) {
    let bundles: Vec<_> = (0..12)
        .map(|index| world.bundle(&format!("c{index}")).shell(&format!("echo I am {index}")))
        .collect();
    let running: Vec<_> =
        bundles.iter().map(|bundle| world.minirun(&["run", bundle.path()]).spawn()).collect();
    for (index, running) in running.into_iter().enumerate() {
        running.wait().ok().prints(&format!("I am {index}\n"));
    }
}

fn many_execs_at_once(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    world.run(&["run", "-d", bundle.path()]).ok();
    for ran in at_once(world, 12, &["exec", "c", "sh", "-c", "echo here; exit 3"]) {
        ran.exits(3).prints("here\n");
    }
    world.run(&["delete", "-f", "c"]).ok();
}

/// 200 containers, 20 at a time: created, started, entered, asked, killed and deleted.
fn two_hundred_lives(world: &World) {
    let bundles: Vec<_> = (0..20)
        .map(|worker| world.bundle(&format!("c{worker}")).args(&["/bin/sleep", "1000"]))
        .collect();
    let script = r#"
        set -e
        for number in 0 1 2 3 4 5 6 7 8 9; do
            id=life-$WORKER-$number
            "$@" create -b "$BUNDLE" $id
            "$@" start $id
            test "$("$@" exec $id echo inside)" = inside
            "$@" state $id | grep -q running
            "$@" update --pids-limit 50 $id
            "$@" pause $id
            "$@" resume $id
            "$@" kill $id KILL
            "$@" delete --force $id
            echo $number
        done
        echo done
    "#;
    let minirun = crate::programs::minirun();
    let root = world.root();
    let running: Vec<Running> = bundles
        .iter()
        .enumerate()
        .map(|(worker, bundle)| {
            world
                .program("/bin/sh")
                .args(&["-c", script, "sh", minirun.to_str().expect("UTF-8")])
                .args(&["--root", root.to_str().expect("UTF-8")])
                .env("BUNDLE", bundle.path())
                .env("WORKER", worker.to_string())
                .spawn()
        })
        .collect();
    let ran: Vec<Ran> = running.into_iter().map(Running::wait).collect();
    for ran in ran {
        let output = ran.ok().output;
        assert!(output.ends_with("9\ndone\n"), "{output}");
    }
    assert_eq!(world.run(&["list", "-q"]).ok().output, "");
}
