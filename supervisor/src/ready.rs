//! Waiting for descriptors that tokio has no type for: pidfds, SEQPACKET sockets.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor that stays open, under the same number, as long as it is held.
pub(crate) trait Steady: AsRawFd {}
impl Steady for OwnedFd {}
impl Steady for Arc<OwnedFd> {}

/// Lets tokio wait until the descriptor is readable.
pub(crate) fn readable<T: Steady>(fd: T) -> std::io::Result<AsyncFd<T>> {
    watched(fd, Interest::READABLE)
}

/// Lets tokio wait until the descriptor is readable, or has room.
pub(crate) fn both_ways<T: Steady>(fd: T) -> std::io::Result<AsyncFd<T>> {
    watched(fd, Interest::READABLE | Interest::WRITABLE)
}

#[expect(
    deprecated,
    reason = "the replacement is unsafe for types whose descriptor may change; Steady admits \
              only such as cannot"
)]
fn watched<T: Steady>(fd: T, interest: Interest) -> std::io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(fd, interest)
}
