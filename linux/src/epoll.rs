//! Waiting for many descriptors, epoll(7).

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::poll::Ready;
use crate::trace::observe;
use crate::{Error, Result};

/// How many events one wait gives at most.
const EVENTS: usize = 256;

/// A set of descriptors, each under a number that its owner chooses.
///
/// Level-triggered: what is ready is told until it is not any more, so that nothing is lost by
/// reading only a part.
#[derive(Debug)]
pub struct Interest(Epoll);

impl Interest {
    /// An empty set.
    pub fn new() -> Result<Self> {
        let result = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC);
        let seen = result.as_ref().map(|_| 0_i32).map_err(|errno| *errno);
        observe("epoll_create1", || "EPOLL_CLOEXEC".into(), seen)?;
        result.map(Self).map_err(|errno| Error::new("epoll_create1", "EPOLL_CLOEXEC", errno))
    }

    /// Adds a descriptor.
    pub fn add(&self, fd: impl AsFd, number: u64, want: Ready) -> Result<()> {
        let fd = fd.as_fd();
        let result = self.0.add(fd, EpollEvent::new(flags(want), number));
        result.map_err(|errno| Error::new("epoll_ctl", format!("ADD {}", fd.as_raw_fd()), errno))
    }

    /// Changes what a descriptor is waited for. Closing it takes it out.
    pub fn change(&self, fd: impl AsFd, number: u64, want: Ready) -> Result<()> {
        let fd = fd.as_fd();
        let result = self.0.modify(fd, &mut EpollEvent::new(flags(want), number));
        result.map_err(|errno| Error::new("epoll_ctl", format!("MOD {}", fd.as_raw_fd()), errno))
    }

    /// Takes a descriptor out.
    pub fn remove(&self, fd: impl AsFd) -> Result<()> {
        let fd = fd.as_fd();
        let result = self.0.delete(fd);
        result.map_err(|errno| Error::new("epoll_ctl", format!("DEL {}", fd.as_raw_fd()), errno))
    }

    /// Waits until something is ready, at most for `limit`; empty when the time is over.
    pub fn wait(&self, limit: Option<Duration>) -> Result<Vec<(u64, Ready)>> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let timeout = limit.map_or(EpollTimeout::NONE, |limit| {
            EpollTimeout::try_from(limit).unwrap_or(EpollTimeout::MAX)
        });
        let count = loop {
            match self.0.wait(&mut events, timeout) {
                Err(Errno::EINTR) => {}
                other => break other.map_err(|e| Error::new("epoll_wait", "", e))?,
            }
        };
        Ok(events.iter().take(count).map(|event| (event.data(), ready(event.events()))).collect())
    }
}

fn flags(want: Ready) -> EpollFlags {
    let mut flags = EpollFlags::empty();
    flags.set(EpollFlags::EPOLLIN, want.readable);
    flags.set(EpollFlags::EPOLLOUT, want.writable);
    flags
}

fn ready(flags: EpollFlags) -> Ready {
    Ready {
        readable: flags.contains(EpollFlags::EPOLLIN),
        writable: flags.contains(EpollFlags::EPOLLOUT),
        hung_up: flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_under_the_chosen_number() {
        let (left, right) = crate::socket::pair().unwrap();
        let interest = Interest::new().unwrap();
        let readable = Ready { readable: true, ..Ready::default() };
        interest.add(&left, 7, readable).unwrap();
        assert_eq!(interest.wait(Some(Duration::ZERO)).unwrap(), []);
        crate::socket::send(&right, b"x", &[]).unwrap();
        assert_eq!(interest.wait(None).unwrap(), [(7, readable)]);
        interest.change(&left, 8, Ready::default()).unwrap();
        assert_eq!(interest.wait(Some(Duration::ZERO)).unwrap(), []);
        interest.remove(&left).unwrap();
        drop(right);
        assert_eq!(interest.wait(Some(Duration::ZERO)).unwrap(), []);
        interest.add(&left, 8, Ready::default()).unwrap();
        let (number, ready) = interest.wait(None).unwrap()[0];
        assert!(number == 8 && ready.hung_up);
    }
}
