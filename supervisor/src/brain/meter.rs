//! What containers use, measured every five seconds, every second while somebody looks, and kept
//! for some minutes.
//!
//! A question about use is answered at once from what is there; two samples a second apart make a
//! rate. The same samples are what [`super::autopsy`] has of an instance that has died, and they
//! show what no exit status tells: that the kernel killed a *child* for memory while the container
//! went on.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use linux::fd::{read_kernel_file, read_kernel_record};
use minisup_core::input::Input;
use minisup_core::name::InstanceId;
use minisup_core::restart::{ExitCause, OomScope};
use minisup_core::time::Span;
use serde::{Deserialize, Serialize};

use super::engine::Brain;
use crate::clock;

/// The time between two samples of an instance.
pub(crate) const EVERY: Duration = Duration::from_secs(1);
/// The same in seconds, while nobody asks for them: a sample reads fifteen files, which costs as
/// much as a probe.
const UNASKED: usize = 5;
/// Samples kept of an instance.
const KEPT: usize = 60;
/// Instances measured in one second; more take turns, so that the cost has a bound.
const AT_ONCE: usize = 100;
/// How long after a question about use everything is measured as often as can be.
const LOOKED_AT: Span = Span::from_secs(30);

/// What a container used at one moment.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Milliseconds since the host booted.
    pub(crate) at_ms: u64,
    /// CPU time since its start, in microseconds.
    pub(crate) cpu_us: u64,
    /// Memory without what can be dropped at once (inactive file cache), in bytes.
    pub(crate) memory_bytes: u64,
    /// Its limit, in bytes; `None` is without.
    pub(crate) limit_bytes: Option<u64>,
    /// Processes and threads.
    pub(crate) pids: u64,
    /// Bytes received by its network devices without loopback, since its start.
    pub(crate) received_bytes: u64,
    /// Bytes sent.
    pub(crate) sent_bytes: u64,
    /// Bytes read from block devices, since its start.
    pub(crate) read_bytes: u64,
    /// Bytes written to block devices.
    pub(crate) written_bytes: u64,
    /// Waiting for resources; `None` where the kernel does not tell (PSI).
    pub(crate) pressure: Option<Pressure>,
}

/// Shares of the last ten seconds in which some process waited, in percent (PSI, `some avg10`).
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Pressure {
    /// For a CPU.
    pub(crate) cpu: f64,
    /// For memory.
    pub(crate) memory: f64,
    /// For memory, all processes at once (`full avg10`): the container stands still.
    pub(crate) memory_full: f64,
    /// For a block device.
    pub(crate) io: f64,
}

/// The directories of a container's cgroup.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Group {
    /// One for all controllers.
    Unified(PathBuf),
    /// One tree for each; the unified one beside them, if any, has the pressure.
    Legacy { memory: PathBuf, cpu: PathBuf, pids: PathBuf, block: PathBuf, unified: PathBuf },
}

/// The measuring of one container.
#[derive(Debug)]
pub(crate) struct Meter {
    group: Group,
    net: Option<PathBuf>,
    pub(crate) samples: VecDeque<Sample>,
    /// Since when it is measured, in milliseconds since the host booted.
    pub(crate) since_ms: u64,
    /// Memory kills that have been told already.
    told_kills: u64,
}

impl Meter {
    /// For the container whose first process is `pid`; `None` if it has no cgroup that can be read.
    /// What goes through a network counts for whoever has it, not for those who share it.
    pub(crate) fn of(pid: i32, has_network: bool) -> Option<Meter> {
        let text = read_kernel_file(Path::new(&format!("/proc/{pid}/cgroup"))).ok()?;
        let group = group(&text)?;
        let net = has_network.then(|| PathBuf::from(format!("/proc/{pid}/net/dev")));
        let since_ms = clock::now().ms();
        let mut meter = Meter { group, net, samples: VecDeque::new(), since_ms, told_kills: 0 };
        meter.told_kills = meter.kills();
        Some(meter)
    }

    /// Measures now.
    pub(crate) fn sample(&mut self) {
        if self.samples.len() == KEPT {
            self.samples.pop_front();
        }
        let net = self.net.as_ref().and_then(|file| read_kernel_file(file).ok());
        let net = net.unwrap_or_default();
        let (received_bytes, sent_bytes) = network(&net);
        let mut sample = self.group.read();
        // Of an ended process there is no network any more: what it had moved stays.
        let last = self.samples.back();
        sample.received_bytes = received_bytes.max(last.map_or(0, |last| last.received_bytes));
        sample.sent_bytes = sent_bytes.max(last.map_or(0, |last| last.sent_bytes));
        self.samples.push_back(sample);
    }

    /// Whether the kernel has killed for memory since the last time that was asked.
    fn has_new_kills(&mut self) -> bool {
        let kills = self.kills();
        let more = kills > self.told_kills;
        self.told_kills = kills;
        more
    }

    /// How often the kernel has killed for memory in the container.
    fn kills(&self) -> u64 {
        match &self.group {
            Group::Unified(dir) => named(&read(dir, "memory.events"), "oom_kill"),
            Group::Legacy { memory, .. } => named(&read(memory, "memory.oom_control"), "oom_kill"),
        }
    }

    /// How it ended, refined by what its cgroup says. To be asked before the cgroup is deleted. A
    /// kill that was told as a child's is not taken for the end of the first process as well.
    pub(crate) fn refine(&self, cause: ExitCause) -> ExitCause {
        match cause {
            ExitCause::Signal(9) if self.kills() > self.told_kills => {
                let scope = if self.has_hit_limit() { OomScope::Limit } else { OomScope::Host };
                ExitCause::OutOfMemory(scope)
            }
            other => other,
        }
    }

    /// Whether the container's own limit was reached, and not only the host's memory.
    fn has_hit_limit(&self) -> bool {
        match &self.group {
            Group::Unified(dir) => named(&read(dir, "memory.events"), "oom") > 0,
            Group::Legacy { memory, .. } => number(&read(memory, "memory.failcnt")) > 0,
        }
    }

    /// Whether the kernel has killed for memory and nobody has been told yet.
    fn has_untold_kill(&self) -> bool {
        self.kills() > self.told_kills
    }

    /// CPU use over the latest two samples, in percent of one CPU.
    pub(crate) fn cpu_percent(&self) -> Option<f64> {
        let mut latest = self.samples.iter().rev();
        let (new, old) = (latest.next()?, latest.next()?);
        let passed_ms = new.at_ms.checked_sub(old.at_ms).filter(|ms| *ms > 0)?;
        Some(new.cpu_us.saturating_sub(old.cpu_us) as f64 / (passed_ms as f64 * 10.0))
    }
}

impl Brain {
    /// Measures everything that runs, and tells the core of children that were killed for memory.
    pub(crate) fn measure(&mut self) {
        let running: Vec<InstanceId> = self.running.keys().cloned().collect();
        self.meters.retain(|id, _| running.binary_search(id).is_ok());
        let looked_at = self.asked_for_use.is_some_and(|asked| clock::now() < asked + LOOKED_AT);
        let least = if looked_at { 1 } else { UNASKED };
        let turns = running.len().div_ceil(AT_ONCE).max(least);
        self.turn = (self.turn + 1) % turns;
        let mut hurt = Vec::new();
        for (at, id) in running.into_iter().enumerate() {
            let Some(meter) = self.meters.get_mut(&id) else { continue };
            if at % turns == self.turn {
                meter.sample();
                if meter.has_untold_kill() {
                    hurt.push(id);
                }
            }
        }
        for id in hurt {
            // The first process may be the victim: then its end is on the way, with the cause.
            let pidfd = self.running.get(&id).map(|running| running.pidfd.clone());
            let ended = pidfd.is_none_or(|pidfd| linux::pidfd::has_ended(&pidfd).unwrap_or(true));
            if !ended && self.meters.get_mut(&id).is_some_and(Meter::has_new_kills) {
                self.feed(&Input::ChildOutOfMemory { instance: id });
            }
        }
    }
}

impl Group {
    fn read(&self) -> Sample {
        let at_ms = clock::now().ms();
        match self {
            Group::Unified(dir) => {
                let io = read(dir, "io.stat");
                Sample {
                    at_ms,
                    cpu_us: named(&read(dir, "cpu.stat"), "usage_usec"),
                    memory_bytes: number(&read(dir, "memory.current"))
                        .saturating_sub(named(&read(dir, "memory.stat"), "inactive_file")),
                    limit_bytes: limit(&read(dir, "memory.max")),
                    pids: number(&read(dir, "pids.current")),
                    read_bytes: sum_of(&io, "rbytes="),
                    written_bytes: sum_of(&io, "wbytes="),
                    pressure: pressure(dir),
                    ..Sample::default()
                }
            }
            Group::Legacy { memory, cpu, pids, block, unified } => {
                let io = read(block, "blkio.throttle.io_service_bytes_recursive");
                Sample {
                    at_ms,
                    cpu_us: number(&read(cpu, "cpuacct.usage")) / 1000,
                    memory_bytes: number(&read(memory, "memory.usage_in_bytes"))
                        .saturating_sub(named(&read(memory, "memory.stat"), "total_inactive_file")),
                    limit_bytes: limit(&read(memory, "memory.limit_in_bytes")),
                    pids: number(&read(pids, "pids.current")),
                    read_bytes: sum_of(&io, "Read "),
                    written_bytes: sum_of(&io, "Write "),
                    pressure: pressure(unified),
                    ..Sample::default()
                }
            }
        }
    }
}

/// The directories of the group that `/proc/PID/cgroup` names.
fn group(text: &str) -> Option<Group> {
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

fn read(dir: &Path, file: &str) -> String {
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

fn pressure(dir: &Path) -> Option<Pressure> {
    let share = |file: &str, kind: &str| {
        let text = read_kernel_record(&dir.join(file)).ok()?;
        average(&text, kind)
    };
    Some(Pressure {
        cpu: share("cpu.pressure", "some")?,
        memory: share("memory.pressure", "some")?,
        memory_full: share("memory.pressure", "full").unwrap_or_default(),
        io: share("io.pressure", "some")?,
    })
}

/// `avg10` of the line that begins with `kind`.
fn average(text: &str, kind: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(kind))?;
    let word = line.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
    word.parse().ok()
}

/// Bytes received and sent by all devices but loopback, as `/proc/PID/net/dev` has them.
fn network(text: &str) -> (u64, u64) {
    let mut sums = (0, 0);
    for line in text.lines() {
        let Some((device, counts)) = line.split_once(':') else { continue };
        let counts: Vec<u64> = counts.split_whitespace().map(number).collect();
        if device.trim() != "lo" && counts.len() >= 9 {
            sums = (sums.0 + counts[0], sums.1 + counts[8]);
        }
    }
    sums
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
        let dev = "Inter-|   Receive\n    lo: 9 9 9 9 9 9 9 9 9\n  eth0: 10 1 0 0 0 0 0 0 20 1 0\n";
        assert_eq!(network(dev), (10, 20));
    }

    #[test]
    fn groups_are_found_on_both_kinds_of_hosts() {
        let unified = group("0::/minisup/shop/web.1.1\n").unwrap();
        assert_eq!(unified, Group::Unified("/sys/fs/cgroup/minisup/shop/web.1.1".into()));
        let text = "4:memory:/m\n3:cpu,cpuacct:/c\n2:pids:/p\n1:blkio:/b\n0::/u\n";
        let Some(Group::Legacy { memory, cpu, unified, .. }) = group(text) else { panic!() };
        assert_eq!(memory, Path::new("/sys/fs/cgroup/memory/m"));
        assert_eq!(cpu, Path::new("/sys/fs/cgroup/cpuacct/c"));
        assert_eq!(unified, Path::new("/sys/fs/cgroup/unified/u"));
        assert_eq!(group("nonsense"), None);
    }

    #[test]
    fn use_is_the_difference_of_two_samples() {
        let group = Group::Unified("/nowhere".into());
        let mut meter =
            Meter { group, net: None, samples: VecDeque::new(), since_ms: 0, told_kills: 0 };
        assert_eq!(meter.cpu_percent(), None);
        for (at_ms, cpu_us) in [(1000, 0), (2000, 500_000)] {
            meter.samples.push_back(Sample { at_ms, cpu_us, ..Sample::default() });
        }
        assert_eq!(meter.cpu_percent(), Some(50.0));
    }
}
