//! The suites, one file each.

mod bad_input;
mod identity;
mod lifecycle;
mod limits;
mod mounts;
mod namespaces;
mod run;

use crate::Test;

/// Every suite by its name.
pub(crate) fn all() -> Vec<(&'static str, Vec<Test>)> {
    vec![
        ("run", run::tests()),
        ("limits", limits::tests()),
        ("namespaces", namespaces::tests()),
        ("mounts", mounts::tests()),
        ("identity", identity::tests()),
        ("lifecycle", lifecycle::tests()),
        ("bad_input", bad_input::tests()),
    ]
}
