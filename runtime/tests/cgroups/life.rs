//! From mkdir to rmdir, and every process in between.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use libtest_mimic::Trial;
use linux::clone::Birth;
use linux::mount::{self, Propagation};
use linux::namespace::Kind;
use linux::{OFlag, path};
use minirun::cgroup::{Cgroup, Error, Host, Layout, Record};

use super::group::{Group, parent, place, resources, test, test_of_root, wait};

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
        test("what_was_cut_short_is_removed", cut_short),
        test("a_second_process_enters_and_nothing_leads_out", entered),
        test_of_root("a_group_can_be_given_to_the_containers_root", given),
        test_of_root("where_version_2_is_not_mounted_it_is_used_all_the_same", legacy),
    ]
}

fn everywhere() {
    let group = Group::new("everywhere");
    let child = group.shell("exec sleep 10000");
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
    let child = group.shell("exec sleep 10000");
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
    let child = group.shell("exec sleep 10000");
    let error = Cgroup::make(&group.host, &group.place).unwrap_err();
    assert!(matches!(&error, Error::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&child.pid.to_string()), "{error}");
    // A second container that only meant to make it must not kill the first when it gives up.
    let record = Record { made: false, ..group.record().clone() };
    let second = Cgroup::open(&group.host, &record).unwrap();
    second.kill_all().unwrap();
    assert_eq!(group.processes().unwrap(), [child.pid.as_raw()]);
}

fn was_there() {
    let group = Group::new("there");
    let again = Cgroup::make(&group.host, &group.place).unwrap();
    assert_eq!(again.record().found.len(), again.record().trees.len());
    assert!(again.record().made);
    again.remove().unwrap();
    assert!(group.is_empty().unwrap());
}

fn frozen() {
    let group = Group::new("frozen");
    let child = group.shell("while :; do :; done");
    assert!(!group.is_frozen().unwrap());
    group.freeze().unwrap();
    assert!(group.is_frozen().unwrap());
    let used = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.pid)).unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(11).unwrap().to_owned()
    };
    // What ran until the freeze is still being accounted for a moment; then nothing is added.
    let stands_still = || {
        let before = used();
        std::thread::sleep(Duration::from_millis(50));
        before == used()
    };
    assert!((0..20).any(|_| stands_still()), "a frozen process uses its CPU");
    group.thaw().unwrap();
    assert!(!group.is_frozen().unwrap());
    // Also what is frozen can be killed.
    group.freeze().unwrap();
    group.kill_all().unwrap();
    assert_eq!(wait(&child).status(), 137);
}

fn killed() {
    let group = Group::with("killed", r#"{"pids":{"limit":50}}"#);
    // Ten that fork without end and never reach the limit: a shell that cannot fork gives up.
    let ten = "f() { while :; do (:) & wait; done; }; for i in 0 1 2 3 4 5 6 7 8 9; do f & done";
    let child = group.shell(&format!("{ten}; wait"));
    while group.processes().unwrap().len() < 10 {
        std::thread::yield_now();
    }
    group.kill_all().unwrap();
    assert!(group.wait_empty(Duration::from_secs(60)).unwrap());
    wait(&child);
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
    let child = group.shell("exec sleep 10000");
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

fn given() {
    let group = Group::new("given");
    group.give_to(1234, 2345).unwrap();
    let dir = group.record().trees["unified"].join(&group.record().path);
    let owner = |name: &str| std::fs::metadata(dir.join(name)).unwrap().uid();
    assert_eq!([".", "cgroup.procs", "cgroup.subtree_control"].map(owner), [1234; 3]);
    // What limits the group stays with whoever limits it.
    assert_eq!(["cgroup.freeze", "cgroup.max.depth"].map(owner), [0; 2]);
}

/// In a mount namespace without the tree of version 2, as on a host of 2015.
fn legacy() {
    let host = Host::detect().unwrap().unwrap();
    if host.layout() != Layout::Hybrid {
        // With version 2 alone nothing is left when it is unmounted.
        let seen = without_version_2(&host, || matches!(Host::detect(), Ok(None)));
        assert!(seen, "cgroups were found where none are mounted");
        return;
    }
    let in_version_2 = host.unified().mount.join(parent().strip_prefix("/").unwrap());
    let works = without_version_2(&host, || {
        let host = Host::detect().unwrap().unwrap();
        assert_eq!(host.layout(), Layout::Legacy);
        let group = Group::with("legacy", r#"{"pids":{"limit":5}}"#);
        let child = group.shell("exec sleep 10000");
        assert_eq!(group.processes().unwrap(), [child.pid.as_raw()]);
        group.freeze().unwrap();
        assert!(group.is_frozen().unwrap());
        group.kill_all().unwrap();
        wait(&child).status() == 137 && group.remove().is_ok()
    });
    assert!(works);
    // What that process could not name: the same tree, where it is mounted.
    std::fs::remove_dir(in_version_2).unwrap();
}

/// What `act` finds in a process that does not see the tree of version 2.
fn without_version_2(host: &Host, act: impl FnOnce() -> bool) -> bool {
    let birth = Birth { namespaces: [Kind::Mount].into_iter().collect(), ..Birth::default() };
    let child = linux::clone::spawn(birth, || {
        mount::set_root_propagation(Propagation::Private).unwrap();
        let mounted = path::open(&host.unified().mount, OFlag::O_PATH).unwrap();
        mount::enter_directory(mounted.as_fd()).unwrap();
        mount::detach_current_directory().unwrap();
        std::env::set_current_dir("/").unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        i32::from(!result.unwrap_or(false))
    });
    wait(&child.unwrap()).status() == 0
}

fn cut_short() {
    let group = Group::new("cut");
    let record = group.record();
    // Killed while removing: the tree of version 2 went first, others are left.
    std::fs::remove_dir(record.trees["unified"].join(&record.path)).unwrap();
    assert!(Cgroup::open(&group.host, record).unwrap_err().is_gone());
    Cgroup::remove_recorded(&group.host, record).unwrap();
    for mount in record.trees.values() {
        assert!(!mount.join(&record.path).exists(), "{}", mount.display());
    }
    // Killed before anything was made.
    Cgroup::remove_recorded(&group.host, record).unwrap();
}

fn entered() {
    let group = Group::new("entered");
    for mount in group.record().trees.values() {
        let dir = mount.join(&group.record().path);
        // Only the cpuset tree of version 1 minds: it gives the leaf the CPUs of its parent.
        let _ = std::fs::write(dir.join("cgroup.clone_children"), "1");
        std::fs::create_dir(dir.join("leaf")).unwrap();
    }
    let entry = group.entry(|_| "/leaf".into()).unwrap();
    let birth = Birth { cgroup: Some(entry.birth.as_fd()), ..Birth::default() };
    let child = linux::clone::spawn(birth, || {
        minirun::cgroup::join(&entry.join).unwrap();
        let text = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        i32::from(!text.lines().all(|line| line.ends_with("/entered/leaf")))
    });
    assert_eq!(wait(&child.unwrap()).status(), 0);
    let first = group.shell("exec sleep 10000");
    assert_eq!(group.below_of(first.pid).unwrap(), Some("".into()));
    let own = linux::Pid::from_raw(i32::try_from(std::process::id()).unwrap());
    assert_eq!(group.below_of(own).unwrap(), None);
    assert!(group.entry(|_| "".into()).is_ok());
    for outside in ["..", "../..", "leaf/../..", "/../entered", "leaf/../../entered", "missing"] {
        assert!(group.entry(|_| outside.into()).is_err(), "{outside}");
    }
}
