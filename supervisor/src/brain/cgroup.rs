//! What the cgroup of a container tells: use, limits, pressure, and kills for memory.
//!
//! A host asks this of many containers again and again, so a directory of which several files are
//! wanted is opened once: on the way to each file kernfs locks and checks every directory.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use linux::OFlag;
use linux::fd::{read_kernel_record, read_record_at};

use super::meter::{Pressure, Sample};
use crate::clock;

/// The directories of a container's cgroup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Group {
    /// One for all controllers.
    Unified(PathBuf),
    /// One tree for each; the unified one beside them, if any, has the pressure.
    Legacy { memory: PathBuf, cpu: PathBuf, pids: PathBuf, block: PathBuf, unified: PathBuf },
}

/// A directory of a group, as long as it is read. Of one that has gone every file is empty.
struct Opened(Option<OwnedFd>);

impl Group {
    /// The directories of the group that `/proc/PID/cgroup` names.
    pub(super) fn of(text: &str) -> Option<Group> {
        let root = Path::new("/sys/fs/cgroup");
        let path_of = |wanted: &str| {
            text.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':');
                let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
                let found = controllers.split(',').any(|name| name == wanted);
                found.then(|| path.trim_start_matches('/'))
            })
        };
        match path_of("memory") {
            None => Some(Group::Unified(root.join(path_of("")?))),
            Some(memory) => {
                let tree = |name: &str| root.join(name).join(path_of(name).unwrap_or_default());
                Some(Group::Legacy {
                    memory: root.join("memory").join(memory),
                    cpu: tree("cpuacct"),
                    pids: tree("pids"),
                    block: tree("blkio"),
                    unified: root.join("unified").join(path_of("").unwrap_or_default()),
                })
            }
        }
    }

    /// What it uses now (but for the network, of which it knows nothing), and how often the kernel
    /// has killed for memory in it.
    pub(super) fn read(&self) -> (Sample, u64) {
        let at_ms = clock::now().ms();
        match self {
            Group::Unified(dir) => {
                let dir = Opened::at(dir);
                let io = dir.read("io.stat");
                let sample = Sample {
                    at_ms,
                    cpu_us: named(&dir.read("cpu.stat"), "usage_usec"),
                    memory_bytes: number(&dir.read("memory.current"))
                        .saturating_sub(named(&dir.read("memory.stat"), "inactive_file")),
                    limit_bytes: limit(&dir.read("memory.max")),
                    pids: number(&dir.read("pids.current")),
                    read_bytes: sum_of(&io, "rbytes="),
                    written_bytes: sum_of(&io, "wbytes="),
                    pressure: dir.pressure(),
                    ..Sample::default()
                };
                (sample, dir.kills())
            }
            Group::Legacy { memory, cpu, pids, block, unified } => {
                let memory = Opened::at(memory);
                let io = only(block, "blkio.throttle.io_service_bytes_recursive");
                let sample = Sample {
                    at_ms,
                    cpu_us: number(&only(cpu, "cpuacct.usage")) / 1000,
                    memory_bytes: number(&memory.read("memory.usage_in_bytes"))
                        .saturating_sub(named(&memory.read("memory.stat"), "total_inactive_file")),
                    limit_bytes: limit(&memory.read("memory.limit_in_bytes")),
                    pids: number(&only(pids, "pids.current")),
                    read_bytes: sum_of(&io, "Read "),
                    written_bytes: sum_of(&io, "Write "),
                    pressure: Opened::at(unified).pressure(),
                    ..Sample::default()
                };
                (sample, memory.kills_of_legacy())
            }
        }
    }

    /// How often the kernel has killed for memory in the container.
    pub(super) fn kills(&self) -> u64 {
        match self {
            Group::Unified(dir) => Opened::at(dir).kills(),
            Group::Legacy { memory, .. } => Opened::at(memory).kills_of_legacy(),
        }
    }

    /// Whether the container's own limit was reached, and not only the host's memory.
    pub(super) fn has_hit_limit(&self) -> bool {
        match self {
            Group::Unified(dir) => named(&only(dir, "memory.events"), "oom") > 0,
            Group::Legacy { memory, .. } => number(&only(memory, "memory.failcnt")) > 0,
        }
    }
}

impl Opened {
    fn at(dir: &Path) -> Opened {
        Opened(linux::path::open(dir, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC).ok())
    }

    fn read(&self, file: &str) -> String {
        self.try_read(file).unwrap_or_default()
    }

    fn try_read(&self, file: &str) -> Option<String> {
        read_record_at(self.0.as_ref()?.as_fd(), Path::new(file)).ok()
    }

    fn kills(&self) -> u64 {
        named(&self.read("memory.events"), "oom_kill")
    }

    fn kills_of_legacy(&self) -> u64 {
        named(&self.read("memory.oom_control"), "oom_kill")
    }

    fn pressure(&self) -> Option<Pressure> {
        let memory = self.try_read("memory.pressure")?;
        Some(Pressure {
            cpu: average(&self.try_read("cpu.pressure")?, "some")?,
            memory: average(&memory, "some")?,
            memory_full: average(&memory, "full").unwrap_or_default(),
            io: average(&self.try_read("io.pressure")?, "some")?,
        })
    }
}

/// The only file that is wanted of a directory.
fn only(dir: &Path, file: &str) -> String {
    read_kernel_record(&dir.join(file)).unwrap_or_default()
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// The number behind a name at the beginning of a line.
fn named(text: &str, name: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value).unwrap_or(0)
}

/// The sum of the numbers right behind a word, over all lines and devices.
fn sum_of(text: &str, word: &str) -> u64 {
    let behind = text.split(word).skip(1);
    behind.map(|rest| rest.split_whitespace().next().map_or(0, number)).sum()
}

/// A limit; `max` and the huge numbers of v1 are none.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes < 1 << 62)
}

/// `avg10` of the line that begins with `kind`.
fn average(text: &str, kind: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(kind))?;
    let word = line.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
    word.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_both_kinds_of_hosts_are_read() {
        let v2 = "low 0\nhigh 0\nmax 4\noom 2\noom_kill 1\noom_group_kill 0\n";
        assert_eq!((named(v2, "oom"), named(v2, "oom_kill")), (2, 1));
        assert_eq!(named("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), 3);
        assert_eq!(sum_of("8:0 rbytes=5 wbytes=7\n8:16 rbytes=1 wbytes=0\n", "rbytes="), 6);
        assert_eq!(sum_of("8:0 Read 5\n8:0 Write 7\n8:0 Total 12\n", "Write "), 7);
        assert_eq!(
            (limit("max\n"), limit("4096\n"), limit("9223372036854771712")),
            (None, Some(4096), None)
        );
        let psi = "some avg10=1.50 avg60=0 avg300=0 total=9\nfull avg10=0.25 avg60=0 total=1\n";
        assert_eq!((average(psi, "some"), average(psi, "full")), (Some(1.5), Some(0.25)));
    }

    #[test]
    fn groups_are_found_on_both_kinds_of_hosts() {
        let unified = Group::of("0::/minisup/shop/web.1.1\n").unwrap();
        assert_eq!(unified, Group::Unified("/sys/fs/cgroup/minisup/shop/web.1.1".into()));
        let text = "4:memory:/m\n3:cpu,cpuacct:/c\n2:pids:/p\n1:blkio:/b\n0::/u\n";
        let Some(Group::Legacy { memory, cpu, unified, .. }) = Group::of(text) else { panic!() };
        assert_eq!(memory, Path::new("/sys/fs/cgroup/memory/m"));
        assert_eq!(cpu, Path::new("/sys/fs/cgroup/cpuacct/c"));
        assert_eq!(unified, Path::new("/sys/fs/cgroup/unified/u"));
        assert_eq!(Group::of("nonsense"), None);
    }

    #[test]
    fn a_group_that_has_gone_uses_nothing() {
        let (sample, kills) = Group::Unified("/nowhere".into()).read();
        assert_eq!(kills, 0);
        assert_eq!(sample, Sample { at_ms: sample.at_ms, ..Sample::default() });
    }
}
