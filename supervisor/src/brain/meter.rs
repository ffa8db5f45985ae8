//! What containers use, measured every ten seconds, every second while somebody looks, and kept
//! for some minutes.
//!
//! A question about use is answered at once from what is there; two samples a second apart make a
//! rate. The same samples are what [`super::autopsy`] has of an instance that has died, and they
//! show what no exit status tells: that the kernel killed a *child* for memory while the container
//! went on.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use linux::fd::read_kernel_file;
use minisup_core::input::Input;
use minisup_core::name::InstanceId;
use minisup_core::restart::{ExitCause, OomScope};
use minisup_core::time::Span;
use serde::{Deserialize, Serialize};

use super::cgroup::Group;
use super::engine::Brain;
use crate::clock;

/// The time between two samples of an instance.
pub(crate) const EVERY: Duration = Duration::from_secs(1);
/// The same in seconds, while nobody asks for them: a sample reads eleven files, which costs as
/// much as a probe.
const UNASKED: usize = 10;
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
        let group = Group::of(&text)?;
        let net = has_network.then(|| PathBuf::from(format!("/proc/{pid}/net/dev")));
        let since_ms = clock::now().ms();
        let mut meter = Meter { group, net, samples: VecDeque::new(), since_ms, told_kills: 0 };
        meter.told_kills = meter.group.kills();
        Some(meter)
    }

    /// Measures now; whether the kernel has killed for memory and nobody has been told yet.
    pub(crate) fn sample(&mut self) -> bool {
        if self.samples.len() == KEPT {
            self.samples.pop_front();
        }
        let net = self.net.as_ref().and_then(|file| read_kernel_file(file).ok());
        let net = net.unwrap_or_default();
        let (received_bytes, sent_bytes) = network(&net);
        let (mut sample, kills) = self.group.read();
        // Of an ended process there is no network any more: what it had moved stays.
        let last = self.samples.back();
        sample.received_bytes = received_bytes.max(last.map_or(0, |last| last.received_bytes));
        sample.sent_bytes = sent_bytes.max(last.map_or(0, |last| last.sent_bytes));
        self.samples.push_back(sample);
        kills > self.told_kills
    }

    /// Whether the kernel has killed for memory since the last time that was asked.
    fn has_new_kills(&mut self) -> bool {
        let kills = self.group.kills();
        let more = kills > self.told_kills;
        self.told_kills = kills;
        more
    }

    /// How it ended, refined by what its cgroup says. To be asked before the cgroup is deleted. A
    /// kill that was told as a child's is not taken for the end of the first process as well.
    pub(crate) fn refine(&self, cause: ExitCause) -> ExitCause {
        match cause {
            ExitCause::Signal(9) if self.group.kills() > self.told_kills => {
                let scope =
                    if self.group.has_hit_limit() { OomScope::Limit } else { OomScope::Host };
                ExitCause::OutOfMemory(scope)
            }
            other => other,
        }
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
            if at % turns == self.turn && meter.sample() {
                hurt.push(id);
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

/// Bytes received and sent by all devices but loopback, as `/proc/PID/net/dev` has them.
fn network(text: &str) -> (u64, u64) {
    let mut sums = (0, 0);
    for line in text.lines() {
        let Some((device, counts)) = line.split_once(':') else { continue };
        let counts: Vec<u64> =
            counts.split_whitespace().map(|count| count.parse().unwrap_or(0)).collect();
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
    fn loopback_is_no_traffic() {
        let dev = "Inter-|   Receive\n    lo: 9 9 9 9 9 9 9 9 9\n  eth0: 10 1 0 0 0 0 0 0 20 1 0\n";
        assert_eq!(network(dev), (10, 20));
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
