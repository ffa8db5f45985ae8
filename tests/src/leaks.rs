//! What a test has left behind: processes, mounts, cgroups, files.
//!
//! Everything of a test carries the test's own name: the calls have its state root on their command
//! line, the containers its cgroup, the mounts its directory. So tests can run side by side.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use crate::call::wait_until;

/// Finds everything that is left of the test in `dir`, with the cgroups `cgroup`.
pub(crate) fn find(dir: &Path, cgroup: &str) -> Vec<String> {
    // A process that was killed is gone when its parent, often process 1, has reaped it.
    wait_until_quiet(dir, cgroup);
    let mut left: Vec<String> = processes(dir, cgroup)
        .into_iter()
        .map(|pid| format!("process {pid}: {}", text(&format!("/proc/{pid}/cmdline"))))
        .collect();
    left.extend(mounts(dir).into_iter().map(|line| format!("mount {line}")));
    let groups = groups(cgroup).into_iter().filter(|group| is_container(group, cgroup));
    left.extend(groups.map(|group| format!("cgroup {}", group.display())));
    left.extend(files(dir));
    left
}

fn wait_until_quiet(dir: &Path, cgroup: &str) {
    let begun = std::time::Instant::now();
    // What brings layers to the disk ends by itself, when the disk is done.
    let patience = std::time::Duration::from_secs(60);
    while !processes(dir, cgroup).is_empty() && begun.elapsed() < patience {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// The groups above a container's are made with it and stay: others may be in them.
fn is_container(group: &Path, cgroup: &str) -> bool {
    !group.to_string_lossy().ends_with(cgroup)
}

/// The processes that belong to the test.
pub(crate) fn processes(dir: &Path, cgroup: &str) -> BTreeSet<i32> {
    let ours = |pid: i32| {
        let stat = text(&format!("/proc/{pid}/stat"));
        let ended = stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
        let inside = || {
            let below = format!("{cgroup}/");
            text(&format!("/proc/{pid}/cgroup")).lines().any(|line| {
                line.splitn(3, ':')
                    .nth(2)
                    .is_some_and(|path| format!("{path}/").starts_with(&below))
            })
        };
        let called = || text(&format!("/proc/{pid}/cmdline")).contains(&inside_of(dir));
        !ended && (inside() || called())
    };
    let own = std::process::id();
    let entries = std::fs::read_dir("/proc").expect("read /proc").flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers.filter(|pid| u32::try_from(*pid) != Ok(own) && ours(*pid)).collect()
}

/// What the paths of a test have in common, and those of no other test.
fn inside_of(dir: &Path) -> String {
    format!("{}/", dir.display())
}

fn text(file: &str) -> String {
    String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).replace('\0', " ")
}

fn mounts(dir: &Path) -> Vec<String> {
    let table = text("/proc/self/mountinfo");
    let ours = table.lines().filter(|line| line.contains(&inside_of(dir)));
    ours.map(str::to_owned).collect()
}

/// Every cgroup tree of this host.
fn trees() -> Vec<PathBuf> {
    let table = text("/proc/self/mounts");
    let cgroups = table.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (place, kind) = (fields.nth(1)?, fields.next()?);
        kind.starts_with("cgroup").then(|| PathBuf::from(place))
    });
    cgroups.collect()
}

/// The groups at and below `cgroup` in every tree, children first.
fn groups(cgroup: &str) -> Vec<PathBuf> {
    fn below(group: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                below(&entry.path(), found);
            }
        }
        found.push(group.to_owned());
    }
    let mut found = Vec::new();
    for tree in trees() {
        let group = tree.join(cgroup.trim_start_matches('/'));
        if group.is_dir() {
            below(&group, &mut found);
        }
    }
    found
}

/// Containers in the state root, writable layers, half-written files.
fn files(dir: &Path) -> Vec<String> {
    let names = |dir: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let in_state = names(&dir.join("state"));
    let bundles = names(dir).into_iter().filter(|path| path.join("config.json").exists());
    let hidden = bundles.flat_map(|bundle| names(&bundle)).filter(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
    });
    in_state.into_iter().chain(hidden).map(|path| format!("file {}", path.display())).collect()
}

/// Removes all of it.
pub(crate) fn remove(dir: &Path, cgroup: &str) {
    for pid in processes(dir, cgroup) {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    thaw(cgroup);
    wait_until(|| processes(dir, cgroup).is_empty());
    remove_groups(cgroup);
    for line in mounts(dir) {
        if let Some(place) = line.split(' ').nth(4) {
            let _ = rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH);
        }
    }
    drop(std::fs::remove_dir_all(dir));
}

/// A frozen process of cgroup v1 does not die before it is thawed.
fn thaw(cgroup: &str) {
    for group in groups(cgroup) {
        let file = group.join("freezer.state");
        if file.exists() {
            drop(std::fs::write(file, "THAWED"));
        }
    }
}

/// Removes the groups at and below `cgroup`.
pub(crate) fn remove_groups(cgroup: &str) {
    for group in groups(cgroup) {
        drop(std::fs::remove_dir(group));
    }
}
