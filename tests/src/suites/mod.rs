//! The suites, one file each.

mod agents;
mod bad_input;
mod budgets;
mod callers;
mod checkpoint;
mod clients;
mod concurrency;
mod confinement;
mod crash;
mod differential;
mod events;
mod exec;
mod hooks;
mod hostile;
mod hostile_proc;
mod identity;
mod image_owners;
mod images;
mod lessons;
mod lifecycle;
mod limits;
mod minisup;
mod minisup_commands;
mod minisup_datagrams;
mod minisup_joined;
mod minisup_keys;
mod minisup_networks;
mod minisup_protocols;
mod mount_options;
mod mounts;
mod namespaces;
mod network;
mod network_crash;
mod network_faults;
mod owners;
mod races;
mod resources;
mod rootless;
mod run;
mod scheduling;
mod services;
mod systemd;
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
        ("resources", resources::tests()),
        ("namespaces", namespaces::tests()),
        ("network", network::tests()),
        ("mounts", mounts::tests()),
        ("mount_options", mount_options::tests()),
        ("owners", owners::tests()),
        ("agents", agents::tests()),
        ("identity", identity::tests()),
        ("terminal", terminal::tests()),
        ("lifecycle", lifecycle::tests()),
        ("hooks", hooks::tests()),
        ("callers", callers::tests()),
        ("confinement", confinement::tests()),
        ("exec", exec::tests()),
        ("events", events::tests()),
        ("checkpoint", checkpoint::tests()),
        ("scheduling", scheduling::tests()),
        ("concurrency", concurrency::tests()),
        ("systemd", systemd::tests()),
        ("clients", clients::tests()),
        ("services", services::tests()),
        ("differential", differential::tests()),
        ("rootless", rootless::tests()),
        ("images", images::tests()),
        ("image_owners", image_owners::tests()),
        ("bad_input", bad_input::tests()),
        ("hostile", hostile::tests()),
        ("hostile_proc", hostile_proc::tests()),
        ("races", races::tests()),
        ("crash", crash::tests()),
        ("network_crash", network_crash::tests()),
        ("network_faults", network_faults::tests()),
        ("lessons", lessons::tests()),
        ("minisup", minisup::tests()),
        ("minisup_commands", minisup_commands::tests()),
        ("minisup_datagrams", minisup_datagrams::tests()),
        ("minisup_joined", minisup_joined::tests()),
        ("minisup_keys", minisup_keys::tests()),
        ("minisup_networks", minisup_networks::tests()),
        ("minisup_protocols", minisup_protocols::tests()),
    ]
}
