//! The Linux kernel as containers see it: typed, small, one file per idea.
//!
//! This crate is the only place of the project with `unsafe` code, and the only one that names a
//! syscall. It holds no policy, knows nothing about OCI, and never logs. Every call goes through
//! [`trace::observe`], which gives it two properties for free:
//!
//! * an [`Error`] prints like a line of `strace`: the call, its arguments, the errno;
//! * when tracing is on ([`trace::start`]), every call is recorded, and that is all that
//!   `minirun run --explain` needs to show the real syscalls with their real arguments.
//!
//! Baseline: Linux 5.15. Where a newer kernel offers a better way, the fallback hides inside the
//! one function that offers the operation, never at its callers.

#[cfg(not(target_os = "linux"))]
compile_error!("this project drives the Linux kernel: build it on Linux, or use the Vagrantfile");

pub mod bpf;
pub mod capability;
pub mod child;
pub mod clock;
pub mod clone;
pub mod counter;
pub mod credentials;
pub mod datagram;
pub mod device;
pub mod directory;
pub mod entry;
pub mod epoll;
mod error;
pub mod fd;
pub mod inet;
pub mod keyring;
pub mod landlock;
pub mod metadata;
pub mod mount;
pub mod namespace;
pub mod netdev;
pub mod netlink;
pub mod overlay;
pub mod path;
pub mod pidfd;
pub mod poll;
pub mod prctl;
pub mod proc;
pub mod program;
pub mod rlimit;
pub mod sched;
pub mod seal;
pub mod seccomp;
pub mod shared;
pub mod signal;
pub mod socket;
pub mod tap;
pub mod terminal;
pub mod timer;
pub mod trace;
pub mod verity;
pub mod xattr;

pub use error::{Error, Result};
pub use nix::errno::Errno;
pub use nix::fcntl::OFlag;
pub use nix::unistd::Pid;
