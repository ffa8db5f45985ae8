//! One container, from its first file to its last.

pub(crate) mod agent;
mod birth;
pub(crate) mod blocked;
pub(crate) mod checkpoint;
pub(crate) mod cleanup;
pub(crate) mod create;
pub(crate) mod exec;
pub(crate) mod foreground;
pub(crate) mod group;
pub(crate) mod handshake;
pub(crate) mod hotplug;
pub(crate) mod inside;
pub(crate) mod oci_state;
pub(crate) mod readiness;
pub(crate) mod receivers;
pub(crate) mod resctrl_use;
pub(crate) mod restore;
pub(crate) mod signal;
pub(crate) mod start;
pub mod state;
mod state_place;
pub(crate) mod streams;
mod take_off;

use crate::cgroup::{Cgroup, Host, Record};

/// The cgroup that was written down, if it is still there.
pub(crate) fn open_cgroup(record: Option<&Record>) -> Option<Cgroup> {
    Cgroup::open(Host::get().ok()??, record?).ok()
}
