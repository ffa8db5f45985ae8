//! An OCI container runtime that you can read.
//!
//! Start with [`plan`] (what a configuration means), then read `container/create.rs` (the parent's
//! side) and `container/inside.rs` (the child's side): each is a table of contents. What a line of
//! theirs does is in `steps/`, one file per kernel idea, and each of those opens with its lesson.
//!
//! The library serves the binary `minirun` and, for its default configuration and the form of
//! [`ready`], rootfs-tools.

pub mod cgroup;
mod cli;
mod commands;
mod container;
mod criu;
mod error;
mod explain;
mod hints;
mod json;
pub mod plan;
pub mod ready;
mod report;
pub mod seccomp;
pub mod spec;
mod steps;

pub use cli::{command, main};
pub use container::state;
pub use error::{Cause, Error, Failure, Result};
pub use explain::{Actor, Record};
pub use steps::Step;
