//! A container that others can reach, and that leaves no trace.

pub mod hardware;
pub mod netlink;
