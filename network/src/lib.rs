//! A container that others can reach, and that leaves no trace.

pub mod allocate;
pub mod definition;
mod error;
pub mod fingerprint;
pub mod hardware;
pub mod lease;
pub mod netlink;
pub mod process;
pub mod store;

pub use error::{Error, Result, in_one_line};
