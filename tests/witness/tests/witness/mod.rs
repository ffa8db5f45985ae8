//! The tests, and the groups that they need.

use std::path::{Path, PathBuf};

use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::cpuset::CpuSetController;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;
use cgroups_rs::fs::{Cgroup as Seen, MaxValue, hierarchies};
use linux::clone::{Birth, spawn};
use minirun::cgroup::{Cgroup, Controller, Host, Layout, Place};

pub(crate) const TESTS: [(&str, fn()); 3] = [
    ("what_minirun_sets_is_what_cgroups_rs_reads", read_back),
    ("both_write_the_same_into_the_same_files", same_files),
    ("a_process_of_minirun_is_found_by_cgroups_rs", found),
];

const LIMITS: &str = r#"{
    "memory": {"limit": 67108864, "reservation": 33554432},
    "cpu": {"shares": 262144, "quota": 30000, "period": 60000, "cpus": "0", "mems": "0"},
    "pids": {"limit": 21}
}"#;

/// A group of minirun's, and the same group as `cgroups-rs` sees it.
struct Pair {
    host: Host,
    ours: Cgroup,
    path: PathBuf,
}

impl Pair {
    fn new(name: &str) -> Self {
        let host = Host::detect().unwrap().unwrap();
        let path = Path::new(&format!("minirun-witness-{}", std::process::id())).join(name);
        let place = Place::new(&host, Some(&Path::new("/").join(&path)), "unused");
        let ours = Cgroup::make(&host, &place.unwrap().unwrap()).unwrap();
        Self { host, ours, path }
    }

    fn seen(&self) -> Seen {
        Seen::load(hierarchies::auto(), &self.path)
    }

    fn is_v1(&self) -> bool {
        self.host.layout() != Layout::Unified
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = self.ours.kill_all();
        let _ = self.ours.remove();
        for mount in self.ours.record().trees.values() {
            let _ = std::fs::remove_dir(mount.join(self.path.parent().unwrap()));
        }
    }
}

fn read_back() {
    let pair = Pair::new("read");
    pair.ours.apply(&serde_json::from_str(LIMITS).unwrap()).unwrap();
    let seen = pair.seen();
    let memory = seen.controller_of::<MemController>().unwrap().memory_stat();
    assert_eq!(memory.limit_in_bytes, 67_108_864);
    assert_eq!(memory.soft_limit_in_bytes, 33_554_432);
    let cpu = seen.controller_of::<CpuController>().unwrap();
    assert_eq!(cpu.shares().unwrap(), if pair.is_v1() { 262_144 } else { 10_000 });
    assert_eq!(cpu.cfs_quota().unwrap(), 30_000);
    assert_eq!(cpu.cfs_period().unwrap(), 60_000);
    let set = seen.controller_of::<CpuSetController>().unwrap().cpuset();
    assert_eq!((set.cpus, set.mems), (vec![(0, 0)], vec![(0, 0)]));
    let pids = seen.controller_of::<PidController>().unwrap();
    assert!(matches!(pids.get_pid_max().unwrap(), MaxValue::Value(21)));
}

/// The files that both write, in the tree of their controller.
const FILES: [(Controller, &[&str]); 4] = [
    (
        Controller::Memory,
        &["memory.max", "memory.low", "memory.limit_in_bytes", "memory.soft_limit_in_bytes"],
    ),
    (
        Controller::Cpu,
        &["cpu.max", "cpu.weight", "cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us"],
    ),
    (Controller::Cpuset, &["cpuset.cpus", "cpuset.mems"]),
    (Controller::Pids, &["pids.max"]),
];

fn same_files() {
    let (ours, theirs) = (Pair::new("ours"), Pair::new("theirs"));
    ours.ours.apply(&serde_json::from_str(LIMITS).unwrap()).unwrap();
    let other = theirs.seen();
    let memory = other.controller_of::<MemController>().unwrap();
    memory.set_limit(67_108_864).unwrap();
    memory.set_soft_limit(33_554_432).unwrap();
    let cpu = other.controller_of::<CpuController>().unwrap();
    cpu.set_shares(if ours.is_v1() { 262_144 } else { 10_000 }).unwrap();
    cpu.set_cfs_quota_and_period(Some(30_000), Some(60_000)).unwrap();
    let set = other.controller_of::<CpuSetController>().unwrap();
    set.set_cpus("0").unwrap();
    set.set_mems("0").unwrap();
    other.controller_of::<PidController>().unwrap().set_pid_max(MaxValue::Value(21)).unwrap();
    let mut compared = 0;
    for (controller, files) in FILES {
        for file in files {
            let [ours, theirs] = [&ours, &theirs].map(|pair| content(pair, controller, file));
            assert_eq!(ours, theirs, "{file}");
            compared += usize::from(ours.is_some());
        }
    }
    assert!(compared >= 7, "only {compared} files were there to compare");
}

/// A file of the group in the tree that has `controller`; `None` where it is not.
fn content(pair: &Pair, controller: Controller, file: &str) -> Option<String> {
    let trees = &pair.ours.record().trees;
    let is_its = |name: &str| name.split(',').any(|part| part == controller.v1_name());
    let (_, mount) = trees
        .iter()
        .find(|(name, _)| is_its(name))
        .or_else(|| trees.get_key_value("unified"))
        .unwrap();
    std::fs::read_to_string(mount.join(&pair.path).join(file)).ok()
}

fn found() {
    let pair = Pair::new("found");
    let files = pair.ours.join_files().unwrap();
    let (ours, theirs) = linux::socket::pair().unwrap();
    let birth = Birth { cgroup: Some(pair.ours.birth_fd()), ..Birth::default() };
    let child = spawn(birth, || {
        minirun::cgroup::join(&files).unwrap();
        linux::socket::send(&theirs, b"here", &[]).unwrap();
        std::thread::sleep(std::time::Duration::from_secs(100));
        0
    })
    .unwrap();
    linux::socket::receive(&ours, &mut [0; 8]).unwrap();
    let seen: Vec<u64> = pair.seen().procs().iter().map(|process| process.pid).collect();
    assert_eq!(seen, [u64::try_from(child.pid.as_raw()).unwrap()]);
    pair.ours.kill_all().unwrap();
    linux::pidfd::wait(&child.pidfd).unwrap();
    assert!(pair.seen().procs().is_empty());
}
