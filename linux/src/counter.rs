//! A number that can be waited for, eventfd(2).

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::trace::observe;
use crate::{Result, fd};

/// Makes a counter that starts at zero; it is readable when it is not zero.
pub fn new() -> Result<OwnedFd> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let result = EventFd::from_value_and_flags(0, flags).map(OwnedFd::from);
    observe("eventfd2", || "0, EFD_CLOEXEC|EFD_NONBLOCK".into(), result)
}

/// Takes what the counter has reached, and sets it to zero. Does not wait.
pub fn take(counter: impl AsFd) -> Result<u64> {
    let mut bytes = [0; 8];
    match fd::read(counter.as_fd(), &mut bytes) {
        Err(error) if error.errno == Errno::EAGAIN => Ok(0),
        result => result.map(|_| u64::from_ne_bytes(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_gone() {
        let counter = new().unwrap();
        assert_eq!(take(&counter).unwrap(), 0);
        fd::write_at_once(counter.as_fd(), &3_u64.to_ne_bytes()).unwrap();
        fd::write_at_once(counter.as_fd(), &4_u64.to_ne_bytes()).unwrap();
        assert_eq!(take(&counter).unwrap(), 7);
        assert_eq!(take(&counter).unwrap(), 0);
    }
}
