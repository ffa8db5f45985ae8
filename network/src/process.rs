//! Processes by number and start time: a number alone can be given again.

use serde::{Deserialize, Serialize};

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
