//! # What the kernel offers
//! A seccomp filter is a small program that the kernel runs at every system call of a process, and
//! of all processes that come from it. It decides by number and arguments: allow, fail, kill, ask.
//!
//! # What we do
//! The profile is compiled to a tree of ranges while the container is planned, and loaded as the very
//! last thing: with `no_new_privs` anybody may load one; without it, loading needs a capability, so
//! that it comes just before those are given up.
//!
//! # What goes wrong without it
//! Every one of the kernel's four hundred calls is a door, and most programs use sixty. Holes that
//! needed no privilege at all have been in keyctl, userfaultfd, io_uring, bpf.
//!
//! # By hand
//! ```sh
//! grep Seccomp: /proc/self/status
//! setpriv --no-new-privs grep NoNewPrivs /proc/self/status | grep 1
//! ```
//! See seccomp(2), the kernel's seccomp_filter documentation.

use std::os::fd::OwnedFd;

use linux::seccomp;

use crate::error::Cause;
use crate::seccomp::Compiled;

/// Loads the filter. Gives the descriptor that its agent needs, where it has one.
pub(crate) fn load(filter: &Compiled) -> Result<Option<OwnedFd>, Cause> {
    seccomp::load(&filter.program.instructions, filter.program.flags).map_err(Cause::from)
}
