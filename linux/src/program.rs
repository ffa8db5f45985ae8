//! How a program begins, without what the standard library does before `main`.
//!
//! # What the kernel offers
//! A new process is ready at once. The standard library then looks up the bounds of its stack in
//! `/proc/self/maps` and installs handlers that tell a stack overflow from other faults: seventeen
//! system calls at each start, for a message that a program which never recurses deeply does not
//! need. What it does for safety is done here as well.
//!
//! # What goes wrong without it
//! A program that is started four times for one container makes these calls four times.

use std::io::Write;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigHandler, Signal, signal};

use crate::path;

/// Runs `main` as the program's first function; its answer is the exit status. See [`begin!`].
pub fn run(main: fn() -> u8) -> i32 {
    if !streams_are_open() {
        return 1;
    }
    // A reader that has gone away is an error of write(2), as in every Rust program.
    // SAFETY: ignoring a signal installs no function.
    #[expect(unsafe_code, reason = "nix marks every change of a disposition as unsafe")]
    let ignored = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
    let status = if ignored.is_ok() { main() } else { 1 };
    drop(std::io::stdout().flush());
    status.into()
}

/// Puts `/dev/null` where a standard stream is closed: the next file that is opened would take its
/// number, and get what is meant for people.
fn streams_are_open() -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::BorrowedFd;
    // SAFETY: poll answers POLLNVAL for a number that is not open, and does nothing with it.
    #[expect(unsafe_code, reason = "the question is whether these numbers are open")]
    let streams = [0, 1, 2].map(|number| unsafe { BorrowedFd::borrow_raw(number) });
    let mut asked = streams.map(|stream| PollFd::new(stream, PollFlags::empty()));
    while let Err(errno) = poll(&mut asked, PollTimeout::ZERO) {
        if errno != Errno::EINTR {
            return false;
        }
    }
    let is_closed =
        |one: &PollFd<'_>| one.revents().is_some_and(|events| events.contains(PollFlags::POLLNVAL));
    asked.iter().filter(|one| is_closed(one)).all(|_| {
        // The lowest free number: that of the stream, as they are gone through in order.
        let null = path::open(Path::new("/dev/null"), OFlag::O_RDWR);
        null.map(std::mem::forget).is_ok()
    })
}

/// Makes a function (`fn() -> u8`) the program's first, in the place of `main`. The file needs
/// `#![no_main]`.
#[macro_export]
macro_rules! begin {
    ($main:path) => {
        /// What the C library calls.
        #[unsafe(no_mangle)]
        extern "C" fn main() -> i32 {
            $crate::program::run($main)
        }
    };
}
