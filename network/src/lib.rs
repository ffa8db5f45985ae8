//! A container that others can reach, and that leaves no trace.

pub mod allocate;
pub mod attach;
pub mod bridge;
pub mod by_default;
pub mod collect;
mod companion;
pub mod definition;
mod error;
pub mod files;
pub mod fingerprint;
pub mod firewall;
pub mod hardware;
pub mod host;
pub mod lease;
pub mod mode;
pub mod netlink;
pub mod networks;
pub mod pool;
pub mod process;
pub mod publish;
pub mod rootless;
pub mod rules;
pub mod store;
pub mod traffic;

pub use error::{Error, Result, in_one_line};
