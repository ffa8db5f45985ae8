//! Waiting for descriptors, poll(2).

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};

use crate::{Error, Result};

/// What a descriptor is waited for, and what happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ready {
    /// There is something to read, or the end of it.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// The other side is gone.
    pub hung_up: bool,
}

/// Waits until one of `fds` is ready for what is asked of it, at most for `limit`.
///
/// Every descriptor reports a hang-up, whatever it was waited for. All answers are "not ready"
/// when the time is over.
pub fn wait(fds: &[(BorrowedFd<'_>, Ready)], limit: Option<Duration>) -> Result<Vec<Ready>> {
    let mut polled: Vec<PollFd<'_>> = fds
        .iter()
        .map(|(fd, want)| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, want.readable);
            flags.set(PollFlags::POLLOUT, want.writable);
            PollFd::new(*fd, flags)
        })
        .collect();
    let timeout = limit.map_or(PollTimeout::NONE, |limit| {
        PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX)
    });
    loop {
        match nix::poll::poll(&mut polled, timeout) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::new("poll", format!("{} fds", fds.len()), errno)),
        }
    }
    Ok(polled.iter().map(|fd| answer(fd.revents().unwrap_or(PollFlags::empty()))).collect())
}

/// Waits until `fd` is readable or at its end; `false` when `limit` passed first.
pub fn wait_readable(fd: impl AsFd, limit: Option<Duration>) -> Result<bool> {
    let want = Ready { readable: true, ..Ready::default() };
    let ready = wait(&[(fd.as_fd(), want)], limit)?;
    Ok(ready.iter().any(|ready| ready.readable || ready.hung_up))
}

fn answer(flags: PollFlags) -> Ready {
    Ready {
        readable: flags.contains(PollFlags::POLLIN),
        writable: flags.contains(PollFlags::POLLOUT),
        hung_up: flags.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL),
    }
}
