//! A time that can be waited for, timerfd_create(2): to the nanosecond, where epoll(7) waits in
//! milliseconds.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::trace::observe;
use crate::{Error, Result};

/// A timer; readable from its time on, until it is set again.
#[derive(Debug)]
pub struct Timer(TimerFd);

impl Timer {
    /// Makes one that is not set.
    pub fn new() -> Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let result = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags);
        let seen = result.as_ref().map(drop).map_err(|errno| *errno);
        observe("timerfd_create", || "CLOCK_MONOTONIC, TFD_CLOEXEC|TFD_NONBLOCK".into(), seen)?;
        result.map(Self).map_err(|errno| Error::new("timerfd_create", "CLOCK_MONOTONIC", errno))
    }

    /// Sets it to that time from now, or not at all. Either way it is not readable any more until
    /// then: nothing has to be read from it.
    pub fn set(&self, after: Option<Duration>) -> Result<()> {
        let result = match after {
            // Zero would switch it off.
            Some(after) => {
                let time = after.max(Duration::from_nanos(1)).into();
                self.0.set(Expiration::OneShot(time), TimerSetTimeFlags::empty())
            }
            None => self.0.unset(),
        };
        observe("timerfd_settime", || format!("{after:?}"), result)
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::wait_readable;

    #[test]
    fn it_is_readable_from_its_time_on_until_it_is_set_again() {
        let timer = Timer::new().unwrap();
        let is_over = || wait_readable(&timer, Some(Duration::ZERO)).unwrap();
        assert!(!is_over());
        timer.set(Some(Duration::ZERO)).unwrap();
        assert!(wait_readable(&timer, None).unwrap() && is_over());
        timer.set(Some(Duration::from_secs(3600))).unwrap();
        assert!(!is_over());
        timer.set(Some(Duration::ZERO)).unwrap();
        assert!(wait_readable(&timer, None).unwrap());
        timer.set(None).unwrap();
        assert!(!is_over());
    }
}
