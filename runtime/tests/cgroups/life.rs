//! From mkdir to rmdir, and every process in between.

use std::time::Duration;

use libtest_mimic::Trial;
use minirun::cgroup::{Cgroup, Error, Record};

use super::group::{Group, place, resources, test, wait};

pub(crate) fn all() -> Vec<Trial> {
    vec![
        test("a_process_is_in_the_group_in_every_tree", everywhere),
        test("a_group_is_found_again_from_its_record", found_again),
        test("a_group_with_processes_is_refused_and_left_alone", in_use),
        test("an_empty_group_that_was_there_stays", was_there),
        test("what_is_frozen_stands_still_until_thawed", frozen),
        test("all_are_killed_even_those_that_fork", killed),
        test("groups_that_the_container_made_are_removed", nested),
        test("removing_waits_for_the_killed_and_names_the_living", removing),
        test("removing_twice_is_fine", twice),
    ]
}

fn everywhere() {
    let group = Group::new("everywhere");
    let child = group.shell("exec sleep 100");
    let text = std::fs::read_to_string(format!("/proc/{}/cgroup", child.pid)).unwrap();
    let path = format!("/{}", group.record().path.display());
    assert_eq!(text.lines().count(), group.record().trees.len(), "{text}");
    assert!(text.lines().all(|line| line.ends_with(&path)), "{text}");
    assert_eq!(group.processes().unwrap(), [child.pid.as_raw()]);
    assert!(!group.is_empty().unwrap());
    group.kill_all().unwrap();
    assert_eq!(wait(&child).status(), 137);
    assert!(group.is_empty().unwrap());
}

fn found_again() {
    let group = Group::new("found");
    let text = serde_json::to_string(group.record()).unwrap();
    let record: Record = serde_json::from_str(&text).unwrap();
    let child = group.shell("exec sleep 100");
    let again = Cgroup::open(&group.host, &record).unwrap();
    assert_eq!(again.processes().unwrap(), [child.pid.as_raw()]);
    again.kill_all().unwrap();
    wait(&child);
    again.remove().unwrap();
    for mount in record.trees.values() {
        assert!(!mount.join(&record.path).exists(), "{}", mount.display());
    }
    assert!(Cgroup::open(&group.host, &record).is_err());
}

fn in_use() {
    let group = Group::new("used");
    let child = group.shell("exec sleep 100");
    let error = Cgroup::make(&group.host, &group.place).unwrap_err();
    assert!(matches!(&error, Error::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&child.pid.to_string()), "{error}");
    assert_eq!(group.processes().unwrap(), [child.pid.as_raw()]);
}

fn was_there() {
    let group = Group::new("there");
    let again = Cgroup::make(&group.host, &group.place).unwrap();
    assert_eq!(again.record().found.len(), again.record().trees.len());
    again.remove().unwrap();
    assert!(group.is_empty().unwrap());
}

fn frozen() {
    let group = Group::new("frozen");
    let child = group.shell("while :; do :; done");
    assert!(!group.is_frozen().unwrap());
    group.freeze().unwrap();
    assert!(group.is_frozen().unwrap());
    let stat = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.pid)).unwrap();
        let fields = stat.rsplit(')').next().unwrap().split_whitespace();
        let fields: Vec<String> = fields.map(str::to_owned).collect();
        (fields[0].clone(), fields[11].clone())
    };
    // The kernel counts it as frozen just before it leaves its CPU.
    while stat().0 == "R" {
        std::thread::yield_now();
    }
    let before = stat();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(before, stat());
    group.thaw().unwrap();
    assert!(!group.is_frozen().unwrap());
    // Also what is frozen can be killed.
    group.freeze().unwrap();
    group.kill_all().unwrap();
    assert_eq!(wait(&child).status(), 137);
}

fn killed() {
    let group = Group::with("killed", r#"{"pids":{"limit":50}}"#);
    let child = group.shell("f() { while :; do f & done; }; f 2>/dev/null");
    while group.processes().unwrap().len() < 10 {
        std::thread::yield_now();
    }
    group.kill_all().unwrap();
    assert!(group.wait_empty(Duration::from_secs(10)).unwrap());
    assert_eq!(wait(&child).status(), 137);
    assert!(group.processes().unwrap().is_empty());
}

fn nested() {
    let group = Group::new("nested");
    for mount in group.record().trees.values() {
        std::fs::create_dir_all(mount.join(&group.record().path).join("a/b")).unwrap();
    }
    group.remove().unwrap();
    for mount in group.record().trees.values() {
        assert!(!mount.join(&group.record().path).exists());
    }
}

fn removing() {
    let group = Group::new("removing");
    let child = group.shell("exec sleep 100");
    assert!(!group.wait_empty(Duration::ZERO).unwrap());
    group.kill_all().unwrap();
    group.remove().unwrap();
    wait(&child);
}

fn twice() {
    let group = Group::new("twice");
    group.remove().unwrap();
    group.remove().unwrap();
    let second = Cgroup::make(&group.host, &place(&group.host, "twice")).unwrap();
    second.apply(&resources("{}")).unwrap();
    second.remove().unwrap();
}
