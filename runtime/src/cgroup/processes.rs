//! The processes of a group: all of them, stopped, killed, waited for.
//!
//! Version 2 does each of these to the whole group at once, and also on hosts whose limits are in
//! version 1: no list is read that a fork could outrun, no number is used that could be reused.
//!
//! `cgroup.freeze` holds what was asked for; whether it is so stands in `cgroup.events`, which
//! poll(2) can wait for.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use linux::directory::directories;
use linux::poll::Ready;
use linux::{Errno, OFlag, Pid, fd, path, pidfd};

use super::Error;
use super::group::Cgroup;

/// How long the kernel may take for what it does by itself: to end what was killed, to freeze.
pub const PATIENCE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// The numbers of all processes in the group and below it, sorted, as this process sees them.
    pub fn processes(&self) -> Result<Vec<i32>, Error> {
        let mut all = Vec::new();
        collect(self.birth_fd(), &mut all).map_err(|cause| self.failed("list processes", cause))?;
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// Kills every process of the group and below it, with SIGKILL, also those that are being
    /// forked or are frozen. Does not wait. In a group that the container only meant to make
    /// ([`Record::made`](super::Record)) it kills nobody.
    pub fn kill_all(&self) -> Result<(), Error> {
        if !self.record().made {
            return Ok(());
        }
        match fd::write_file_at(self.birth_fd(), Path::new("cgroup.kill"), b"1") {
            // Removed meanwhile, so nobody is in it.
            Err(cause) if is_gone(&cause) && !self.path().exists() => Ok(()),
            // Linux 5.13 and older.
            Err(cause) if cause.errno == Errno::ENOENT => self.kill_frozen(),
            result => result.map_err(|cause| self.failed("kill all processes", cause)),
        }
    }

    /// Without `cgroup.kill`: nothing forks while it is frozen, so one pass over the list is
    /// enough, and a signal is delivered to the frozen all the same.
    fn kill_frozen(&self) -> Result<(), Error> {
        let was_frozen = self.is_frozen()?;
        self.freeze()?;
        let mut errors = Vec::new();
        for number in self.processes()? {
            let killed =
                pidfd::open(Pid::from_raw(number)).and_then(|process| pidfd::signal(process, 9));
            match killed {
                Err(cause) if cause.errno != Errno::ESRCH => {
                    errors.push(self.failed("kill a process", cause));
                }
                _ => {}
            }
        }
        if !was_frozen {
            errors.extend(self.thaw().err());
        }
        Error::of_many(errors)
    }

    /// Stops every process of the group where it stands, and waits until all of them do.
    pub fn freeze(&self) -> Result<(), Error> {
        self.set_frozen("1", "frozen")
    }

    /// Lets them go on.
    pub fn thaw(&self) -> Result<(), Error> {
        self.set_frozen("0", "thawed")
    }

    fn set_frozen(&self, wish: &str, wanted: &'static str) -> Result<(), Error> {
        fd::write_file_at(self.birth_fd(), Path::new("cgroup.freeze"), wish.as_bytes())
            .map_err(|cause| self.failed("freeze or thaw", cause))?;
        if self.wait_for("frozen", wish, PATIENCE)? {
            return Ok(());
        }
        let path = self.path().to_path_buf();
        Err(Error::NotFrozen { path, wanted, seconds: PATIENCE.as_secs() })
    }

    /// Whether all processes of the group are stopped.
    pub fn is_frozen(&self) -> Result<bool, Error> {
        Ok(event(&self.events()?, "frozen") == Some("1"))
    }

    /// Whether no process is in the group or below it. Zombies do not count.
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(event(&self.events()?, "populated") == Some("0"))
    }

    /// Waits until no process is left; `false` when `limit` passed first.
    pub fn wait_empty(&self, limit: Duration) -> Result<bool, Error> {
        self.wait_for("populated", "0", limit)
    }

    /// Waits until no process is left; who is, stands in the error.
    pub(super) fn wait_until_empty(&self, limit: Duration) -> Result<(), Error> {
        if self.wait_empty(limit)? {
            return Ok(());
        }
        let left = self.processes()?;
        let pids: Vec<String> = left.iter().map(ToString::to_string).collect();
        Err(Error::StillPopulated {
            path: self.path().to_path_buf(),
            count: left.len(),
            seconds: limit.as_secs(),
            pids: pids.join(" "),
        })
    }

    fn events(&self) -> Result<String, Error> {
        match fd::read_file_at(self.birth_fd(), Path::new("cgroup.events")) {
            // Somebody has removed the group meanwhile (systemd does, with an empty scope): nothing
            // is in it.
            Err(cause) if is_gone(&cause) => Ok("populated 0\nfrozen 0\n".into()),
            events => events.map_err(|cause| self.failed("read the events", cause)),
        }
    }

    /// Waits until `key` of `cgroup.events` is `value`. The kernel reports each change of the file
    /// as an error condition to whoever polls it.
    fn wait_for(&self, key: &str, value: &str, limit: Duration) -> Result<bool, Error> {
        let failed = |cause| self.failed("wait for a change", cause);
        let opened = path::open_at(self.birth_fd(), Path::new("cgroup.events"), OFlag::O_RDONLY);
        let file = match opened {
            Err(cause) if is_gone(&cause) => return Ok(true),
            file => file.map_err(failed)?,
        };
        let end = Instant::now() + limit;
        let mut text = [0; 256];
        loop {
            // What is read is what poll compares with, so no change between the two is lost.
            let length = match fd::read_at(file.as_fd(), &mut text, 0) {
                // The group has been removed, so nothing is in it.
                Err(cause) if is_gone(&cause) => return Ok(true),
                length => length.map_err(failed)?,
            };
            let now = String::from_utf8_lossy(&text[..length]);
            if event(&now, key) == Some(value) {
                return Ok(true);
            }
            let left = end.saturating_duration_since(Instant::now());
            let ready = linux::poll::wait(&[(file.as_fd(), Ready::default())], Some(left))
                .map_err(failed)?;
            if !ready.iter().any(|ready| ready.hung_up) && left.is_zero() {
                return Ok(false);
            }
        }
    }

    fn failed(&self, step: &str, cause: linux::Error) -> Error {
        Error::kernel(format!("{step} of cgroup {}", self.path().display()), cause)
    }
}

/// What the kernel answers about a file of a group that has been removed while it was open.
fn is_gone(cause: &linux::Error) -> bool {
    matches!(cause.errno, Errno::ENODEV | Errno::ENOENT)
}

/// The value of `key` in a file of lines `key value`.
pub(super) fn event<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).map(str::trim)
}

fn collect(dir: BorrowedFd<'_>, all: &mut Vec<i32>) -> linux::Result<()> {
    match fd::read_file_at(dir, Path::new("cgroup.procs")) {
        Ok(text) => all.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
        // A group for threads: its processes are listed by the group above.
        Err(error) if error.errno == Errno::EOPNOTSUPP => {}
        // Removed while we looked: then nothing is in it.
        Err(error) if matches!(error.errno, Errno::ENOENT | Errno::ENODEV) => return Ok(()),
        Err(error) => return Err(error),
    }
    for name in directories(dir)? {
        match path::open_at(dir, Path::new(&name), OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
            Ok(child) => collect(child.as_fd(), all)?,
            Err(error) if error.errno == Errno::ENOENT => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_whole_words() {
        let text = "low 1\noom 2\noom_kill 3\noom_group_kill 4\n";
        assert_eq!(event(text, "oom_kill"), Some("3"));
        assert_eq!(event(text, "oom"), Some("2"));
        assert_eq!(event(text, "kill"), None);
    }
}
