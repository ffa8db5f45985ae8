//! `minirun features`: what this program can do, from the tables that it works with.

use clap::ArgMatches;
use linux::namespace::Kind;
use linux::sched::{MEMORY_POLICIES, MEMORY_POLICY_FLAGS};
use serde_json::json;

use super::{Verb, print_json};
use crate::cli::Global;
use crate::error::Result;
use crate::plan::{CORE_ANNOTATION, LANDLOCK_ANNOTATION, namespace_name};
use crate::{seccomp, spec};

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

fn run(_: &Global, _: &ArgMatches) -> Result<i32> {
    let mut namespaces = Kind::ALL.map(namespace_name);
    namespaces.sort_unstable();
    let options: Vec<_> = spec::mount_options::names().collect();
    let actions = seccomp::action_names();
    let landlock = linux::landlock::version()
        .map_or_else(|_| "not in this kernel".into(), |version| format!("version {version}"));
    print_json(&json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": spec::VERSION,
        "hooks": HOOKS,
        "mountOptions": options,
        "linux": {
            "namespaces": namespaces,
            "capabilities": linux::capability::all_names(),
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": actions,
                "operators": seccomp::operator_names(),
                "archs": seccomp::architecture_names(),
                "knownFlags": seccomp::flag_names(),
                "supportedFlags": seccomp::supported_flag_names(),
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": true, "schemata": true, "monitoring": true},
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true},
            "memoryPolicy": {
                "modes": MEMORY_POLICIES.map(|(name, _)| name),
                "flags": MEMORY_POLICY_FLAGS.map(|(name, _)| name),
            },
        },
        "annotations": {
            "org.minirun.version": env!("CARGO_PKG_VERSION"),
            "org.minirun.checkpoint": "criu",
            CORE_ANNOTATION: "true, false",
            LANDLOCK_ANNOTATION: landlock,
        },
        "potentiallyUnsafeConfigAnnotations": ["org.minirun."],
    }))?;
    Ok(0)
}
