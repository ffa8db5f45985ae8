//! `minirun features`: what this program can do, from the tables that it works with.

use clap::ArgMatches;
use linux::namespace::Kind;
use serde_json::json;

use super::{Verb, print_json};
use crate::cli::Global;
use crate::error::Result;
use crate::plan::namespace_name;
use crate::seccomp::Architecture;
use crate::spec;

pub(super) const VERB: Verb = Verb {
    name: "features",
    about: "Print what this runtime supports as JSON",
    arguments: |command| command,
    run,
    enters_containers: false,
    failure_status: 1,
};

/// The hooks that are run.
const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// The seccomp actions, operators and flags of the specification; all are compiled.
const ACTIONS: [&str; 8] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];
const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];
const FLAGS: [&str; 3] =
    ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"];

fn run(_: &Global, _: &ArgMatches) -> Result<i32> {
    let mut namespaces = Kind::ALL.map(namespace_name);
    namespaces.sort_unstable();
    let options: Vec<_> = spec::mount_options::names().collect();
    let architectures: Vec<_> =
        Architecture::NATIVE.family().iter().map(|architecture| architecture.oci()).collect();
    print_json(&json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": spec::VERSION,
        "hooks": HOOKS,
        "mountOptions": options,
        "linux": {
            "namespaces": namespaces,
            "capabilities": linux::capability::all_names(),
            "cgroup": {"v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": ACTIONS,
                "operators": OPERATORS,
                "archs": architectures,
                "knownFlags": FLAGS,
                "supportedFlags": FLAGS,
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": false}},
            "netDevices": {"enabled": false},
        },
        "annotations": {
            "org.minirun.version": env!("CARGO_PKG_VERSION"),
        },
        "potentiallyUnsafeConfigAnnotations": ["org.minirun."],
    }))?;
    Ok(0)
}
