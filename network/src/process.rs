//! Processes by number and start time: a number alone can be given again.

use std::os::fd::OwnedFd;
use std::time::Duration;

use linux::{Errno, pidfd, poll};
use serde::{Deserialize, Serialize};

use crate::error::{During, Result};

/// Those who are ended leave nothing behind, and may have other signals blocked.
const SIGKILL: i32 = 9;
/// How long the kernel may take to end a process that it has been told to kill.
const PATIENCE: Duration = Duration::from_secs(10);

/// A process of this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it began, in clock ticks since boot, proc_pid_stat(5).
    pub start: u64,
}

impl Process {
    /// This process.
    pub fn current() -> Self {
        let pid = std::process::id();
        Self { pid, start: start_of(pid).unwrap_or(0) }
    }

    /// The process of that number, if there is one.
    pub fn of(pid: u32) -> Option<Self> {
        start_of(pid).map(|start| Self { pid, start })
    }

    /// Whether it still runs.
    pub fn is_alive(self) -> bool {
        start_of(self.pid) == Some(self.start)
    }

    /// A descriptor for it (a pidfd), if it still runs.
    pub fn open(self) -> Option<OwnedFd> {
        let pid = i32::try_from(self.pid).ok()?;
        let opened = pidfd::open(linux::Pid::from_raw(pid)).ok()?;
        // Asked after the descriptor was opened: from here on the number cannot be somebody else's.
        self.is_alive().then_some(opened)
    }

    /// Kills it, unless it has ended already.
    pub fn kill(self) -> Result<()> {
        self.open().map_or(Ok(()), |process| self.kill_behind(&process))
    }

    /// Kills it, and waits until all its descriptors are closed.
    pub(crate) fn kill_and_wait(self) -> Result<()> {
        let Some(process) = self.open() else { return Ok(()) };
        self.kill_behind(&process)?;
        poll::wait_readable(&process, Some(PATIENCE)).map(drop).during(|| self.step())
    }

    fn kill_behind(self, process: &OwnedFd) -> Result<()> {
        match pidfd::signal(process, SIGKILL) {
            Err(error) if error.errno == Errno::ESRCH => Ok(()),
            other => other.during(|| self.step()),
        }
    }

    fn step(self) -> String {
        format!("ending process {}", self.pid)
    }
}

fn start_of(pid: u32) -> Option<u64> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The start time in a line of `/proc/PID/stat`; nothing for a process that has ended and only
/// waits for its parent. The name in it may hold spaces and parentheses, so count from its end.
fn parse_stat(line: &str) -> Option<u64> {
    let mut fields = line.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    (state != "Z" && state != "X").then(|| fields.nth(18)?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_itself_and_no_other() {
        let own = Process::current();
        assert!(own.is_alive() && own.start > 0);
        assert!(!Process { start: own.start + 1, ..own }.is_alive());
        assert!(!Process { pid: u32::MAX, start: 1 }.is_alive());
    }

    #[test]
    fn names_cannot_confuse_the_start_time_and_the_dead_are_not_alive() {
        let tail = "1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        assert_eq!(parse_stat(&format!("7 (a) R 9) S {tail}")), Some(4711));
        assert_eq!(parse_stat(&format!("7 (a) Z {tail}")), None);
        assert_eq!(parse_stat("7 (a"), None);
    }
}
