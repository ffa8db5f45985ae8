//! The suites, one file each.

mod bad_input;
mod lifecycle;
mod run;

use crate::Test;

/// Every suite by its name.
pub(crate) fn all() -> Vec<(&'static str, Vec<Test>)> {
    vec![
        ("run", run::tests()),
        ("lifecycle", lifecycle::tests()),
        ("bad_input", bad_input::tests()),
    ]
}
