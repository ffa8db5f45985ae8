//! The suites, one file each.

mod bad_input;
mod budgets;
mod concurrency;
mod crash;
mod exec;
mod hostile;
mod identity;
mod images;
mod lessons;
mod lifecycle;
mod limits;
mod minisup;
mod minisup_commands;
mod mounts;
mod namespaces;
mod races;
mod rootless;
mod run;
mod terminal;
mod tidy;

use crate::Test;

/// Every suite by its name.
pub(crate) fn all() -> Vec<(&'static str, Vec<Test>)> {
    vec![
        ("tidy", tidy::tests()),
        ("budgets", budgets::tests()),
        ("run", run::tests()),
        ("limits", limits::tests()),
        ("namespaces", namespaces::tests()),
        ("mounts", mounts::tests()),
        ("identity", identity::tests()),
        ("terminal", terminal::tests()),
        ("lifecycle", lifecycle::tests()),
        ("exec", exec::tests()),
        ("concurrency", concurrency::tests()),
        ("rootless", rootless::tests()),
        ("images", images::tests()),
        ("bad_input", bad_input::tests()),
        ("hostile", hostile::tests()),
        ("races", races::tests()),
        ("crash", crash::tests()),
        ("lessons", lessons::tests()),
        ("minisup", minisup::tests()),
        ("minisup_commands", minisup_commands::tests()),
    ]
}
