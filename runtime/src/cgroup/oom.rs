//! Whether the kernel killed for memory, and how much there was.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use linux::poll::{self, Ready};
use linux::{Errno, OFlag, counter, fd, path};

use super::Error;
use super::group::Cgroup;
use super::host::{Controller, Version};
use super::processes::event;

/// What the memory controller says about a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OomReport {
    /// How many of its processes the kernel has killed because the group was at its limit.
    pub kills: u64,
    /// The limit, in bytes; `None` when there is none.
    pub limit_bytes: Option<u64>,
    /// The most that the group has used, in bytes; `None` where the kernel does not keep it
    /// (version 2 before Linux 5.19).
    pub peak_bytes: Option<u64>,
}

/// Version 1 shows "no limit" as the largest number of whole pages.
const V1_UNLIMITED: u64 = 0x7fff_ffff_ffff_0000;

impl Cgroup {
    /// What the group had of memory. All zero and `None` without a memory controller.
    pub fn oom(&self) -> OomReport {
        let number = |file: &str| self.memory_file(file)?.trim().parse::<u64>().ok();
        let (limit_bytes, peak_bytes) = match self.member_of(Controller::Memory).version {
            Version::V2 => (number("memory.max"), number("memory.peak")),
            Version::V1 => (
                number("memory.limit_in_bytes").filter(|limit| *limit < V1_UNLIMITED),
                number("memory.max_usage_in_bytes"),
            ),
        };
        OomReport { kills: self.oom_kills(), limit_bytes, peak_bytes }
    }

    /// The same if the kernel has killed for lack of memory, which it rarely has.
    pub fn oom_if_any(&self) -> Option<OomReport> {
        (self.oom_kills() > 0).then(|| self.oom())
    }

    fn oom_kills(&self) -> u64 {
        let text = self.memory_file(match self.member_of(Controller::Memory).version {
            Version::V2 => "memory.events",
            Version::V1 => "memory.oom_control",
        });
        text.and_then(|text| event(&text, "oom_kill")?.parse().ok()).unwrap_or(0)
    }

    fn memory_file(&self, name: &str) -> Option<String> {
        let dir = self.member_of(Controller::Memory).dir.as_fd();
        fd::read_record_at(dir, Path::new(name)).ok()
    }
}

/// Something to wait for until the group runs out of memory, for `minirun events`.
///
/// Put it into a poll(2) with what it is to be waited for ([`interest`](Self::interest)); when that
/// has happened, [`take`](Self::take). It also wakes up when the group is removed.
#[derive(Debug)]
pub struct OomWatch {
    /// Version 2: `memory.events`. Version 1: a counter that the kernel increments.
    woken_by: OwnedFd,
    /// The file that tells how often. It stays open, as version 1 wants it.
    file: OwnedFd,
    version: Version,
    seen: u64,
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.woken_by.as_fd()
    }
}

impl Cgroup {
    /// Starts to watch for deaths by lack of memory.
    pub fn watch_oom(&self) -> Result<OomWatch, Error> {
        let member = self.member_of(Controller::Memory);
        let failed = |cause| member.failed("watch the memory of", cause);
        let open = |name: &str| path::open_at(member.dir.as_fd(), Path::new(name), OFlag::O_RDONLY);
        let mut watch = match member.version {
            Version::V2 => {
                let file = open("memory.events").map_err(failed)?;
                let woken_by = file.try_clone().map_err(|error| {
                    let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
                    failed(linux::Error::new("dup", "memory.events", errno))
                })?;
                OomWatch { woken_by, file, version: Version::V2, seen: 0 }
            }
            Version::V1 => {
                let file = open("memory.oom_control").map_err(failed)?;
                let woken_by = counter::new().map_err(failed)?;
                let registration = format!("{} {}", woken_by.as_raw_fd(), file.as_raw_fd());
                let control = Path::new("cgroup.event_control");
                fd::write_file_at(member.dir.as_fd(), control, registration.as_bytes())
                    .map_err(failed)?;
                OomWatch { woken_by, file, version: Version::V1, seen: 0 }
            }
        };
        watch.take();
        Ok(watch)
    }
}

impl OomWatch {
    /// What to wait for: a file of version 2 is always readable, and reports a change as an error
    /// condition ("hung up"), which needs no asking.
    pub fn interest(&self) -> Ready {
        Ready { readable: self.version == Version::V1, ..Ready::default() }
    }

    /// Waits until something has happened; `false` when `limit` passed first.
    pub fn wait(&self, limit: Option<Duration>) -> Result<bool, Error> {
        let ready = poll::wait(&[(self.as_fd(), self.interest())], limit)
            .map_err(|cause| Error::kernel("watch the memory of a cgroup", cause))?;
        Ok(ready.iter().any(|ready| ready.hung_up || ready.readable))
    }

    /// How many processes were killed since the last call; `None` when the group is gone.
    pub fn take(&mut self) -> Option<u64> {
        if self.version == Version::V1 {
            return self.take_notices();
        }
        let mut text = [0; 512];
        let length = fd::read_at(self.file.as_fd(), &mut text, 0).ok()?;
        let text = String::from_utf8_lossy(&text[..length]);
        let now: u64 = event(&text, "oom_kill")?.parse().ok()?;
        let new = now.saturating_sub(self.seen);
        self.seen = now;
        Some(new)
    }

    /// Version 1 gives notice *before* it kills, so that the count of deaths comes too late for it:
    /// each notice is a death that is certain. A group that is gone is no notice.
    fn take_notices(&mut self) -> Option<u64> {
        let mut text = [0; 512];
        let length = fd::read_at(self.file.as_fd(), &mut text, 0).ok()?;
        let text = String::from_utf8_lossy(&text[..length]);
        let deaths: u64 = event(&text, "oom_kill").and_then(|n| n.parse().ok()).unwrap_or(0);
        let notices = counter::take(&self.woken_by).unwrap_or(0);
        let new = notices.max(deaths.saturating_sub(self.seen));
        self.seen += new;
        Some(new)
    }
}
