//! `minirun features`: what this program can do, from the tables that it works with.

use clap::ArgMatches;
use linux::namespace::Kind;
use linux::sched::{MEMORY_POLICIES, MEMORY_POLICY_FLAGS};
use serde_json::{Value, json};

use super::answer::print_json;
use super::verb::{Global, Verb};
use crate::cgroup::Controller;
use crate::container::group::{MANAGERS, Manager};
use crate::error::Result;
use crate::plan::{CORE_ANNOTATION, LANDLOCK_ANNOTATION, MOMENTS, namespace_name};
use crate::{seccomp, spec};

pub(super) const VERB: Verb = Verb {
    name: "features",
    about: "Print what this runtime supports as JSON",
    arguments: |command| command,
    run,
    enters_containers: false,
    failure_status: 1,
};

fn run(_: &Global, _: &ArgMatches) -> Result<i32> {
    print_json(&document())?;
    Ok(0)
}

/// Every list is the table that the work itself is done with, runtime-spec features.md and
/// features-linux.md.
fn document() -> Value {
    json!({
        "ociVersionMin": spec::OLDEST,
        "ociVersionMax": spec::VERSION,
        "hooks": MOMENTS.map(|(name, _)| name),
        "mountOptions": spec::mount_options::names().collect::<Vec<_>>(),
        "linux": linux_features(),
        "annotations": annotations(),
        "potentiallyUnsafeConfigAnnotations": ["org.minirun."],
    })
}

fn linux_features() -> Value {
    let mut namespaces = Kind::ALL.map(namespace_name);
    namespaces.sort_unstable();
    let can_map = spec::mount_options::names().any(|name| name == "idmap");
    json!({
        "namespaces": namespaces,
        "capabilities": linux::capability::all_names(),
        "cgroup": cgroup_features(),
        "seccomp": {
            "enabled": true,
            "actions": seccomp::action_names(),
            "operators": seccomp::operator_names(),
            "archs": seccomp::architecture_names(),
            "knownFlags": seccomp::flag_names(),
            "supportedFlags": seccomp::supported_flag_names(),
        },
        "apparmor": {"enabled": true},
        "selinux": {"enabled": true},
        "intelRdt": {"enabled": true, "schemata": true, "monitoring": true},
        "mountExtensions": {"idmap": {"enabled": can_map}},
        "netDevices": {"enabled": true},
        "memoryPolicy": {
            "modes": MEMORY_POLICIES.map(|(name, _)| name),
            "flags": MEMORY_POLICY_FLAGS.map(|(name, _)| name),
        },
    })
}

fn cgroup_features() -> Value {
    let by_systemd = MANAGERS.iter().any(|(_, manager)| *manager == Manager::Systemd);
    json!({
        "v1": true,
        "v2": true,
        "systemd": by_systemd,
        "systemdUser": by_systemd,
        "rdma": Controller::V2.contains(&Controller::Rdma),
    })
}

fn annotations() -> Value {
    let landlock = linux::landlock::version()
        .map_or_else(|_| "not in this kernel".into(), |version| format!("version {version}"));
    json!({
        "org.minirun.version": env!("CARGO_PKG_VERSION"),
        "org.minirun.checkpoint": "criu",
        CORE_ANNOTATION: "true, false",
        LANDLOCK_ANNOTATION: landlock,
    })
}

#[cfg(test)]
mod tests {
    //! Each name that is answered is given to the code that is to know it; and what that code
    //! knows is in the answer.

    use std::path::Path;

    use oci_spec::runtime::Spec;

    use super::*;
    use crate::plan::{Circumstances, Plan};

    /// What a configuration comes to that holds this beside the least there can be.
    fn decided(more: Value) -> Result<Plan> {
        let mut config = json!({
            "ociVersion": spec::VERSION,
            "root": {"path": "/usr"},
            "process": {"args": ["/x"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
            "linux": {"namespaces": [{"type": "mount"}, {"type": "network"}]},
        });
        merge(&mut config, more);
        let text = config.to_string();
        let (spec, _): (Spec, _) = spec::parse(text.as_bytes(), Path::new("config.json"))?;
        let at = Circumstances { id: "c", bundle: Path::new("/"), user: 0, privileged: true };
        Plan::decide(&spec, &at)
    }

    fn merge(into: &mut Value, more: Value) {
        match (into, more) {
            (Value::Object(into), Value::Object(more)) => {
                for (key, value) in more {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, more) => *into = more,
        }
    }

    fn names(pointer: &str) -> Vec<String> {
        let document = document();
        let list = document.pointer(pointer).and_then(Value::as_array).expect(pointer);
        list.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
    }

    #[test]
    fn every_hook_is_run() {
        let hooks = names("/hooks");
        for name in &hooks {
            let plan = decided(json!({"hooks": {name: [{"path": "/bin/true"}]}})).unwrap();
            assert_eq!(plan.hooks_of(name).len(), 1, "{name}");
        }
        // Whatever the parser has beside them would be read, and never run.
        let all = serde_json::to_value(filled_hooks(&hooks)).unwrap();
        assert_eq!(all.as_object().unwrap().len(), hooks.len());
    }

    fn filled_hooks(names: &[String]) -> oci_spec::runtime::Hooks {
        let list = names.iter().map(|name| (name.clone(), json!([{"path": "/x"}])));
        serde_json::from_value(Value::Object(list.collect())).unwrap()
    }

    #[test]
    fn every_namespace_and_no_other_is_made() {
        let listed = names("/linux/namespaces");
        for name in &listed {
            let mut linux = json!({"namespaces": [{"type": name}]});
            if name == "user" {
                let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
                merge(&mut linux, json!({"uidMappings": map, "gidMappings": map}));
            }
            let plan = decided(json!({"linux": linux, "mounts": []}));
            let plan = plan.unwrap_or_else(|error| panic!("{name}: {error}"));
            let made: Vec<_> = plan.namespaces.new.iter().map(namespace_name).collect();
            assert_eq!(made, [name]);
        }
        assert_eq!(listed.len(), Kind::ALL.len());
        assert!(decided(json!({"linux": {"namespaces": [{"type": "moon"}]}})).is_err());
    }

    #[test]
    fn every_mount_option_is_accepted() {
        for option in names("/mountOptions") {
            let source = json!({"destination": "/x", "type": "tmpfs", "options": [option]});
            let bind = json!({"destination": "/x", "type": "bind", "source": "/",
                "options": [option]});
            let accepted = [source, bind].map(|mount| {
                decided(json!({"mounts": [mount], "linux": {
                    "namespaces": [{"type": "mount"}, {"type": "user"}],
                    "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}],
                    "gidMappings": [{"containerID": 0, "hostID": 0, "size": 1}],
                }}))
            });
            assert!(accepted.iter().any(Result::is_ok), "{option}: {accepted:?}");
        }
    }

    #[test]
    fn every_capability_is_known() {
        let sets = json!({"bounding": names("/linux/capabilities")});
        let plan = decided(json!({"process": {"capabilities": sets}})).unwrap();
        let kept = plan.process.capabilities.unwrap().bounding.names();
        assert_eq!(kept, names("/linux/capabilities"));
    }

    #[test]
    fn every_word_of_a_filter_compiles() {
        let compiled = |profile: Value| decided(json!({"linux": {"seccomp": profile}}));
        for action in names("/linux/seccomp/actions") {
            let rule = json!({"names": ["getpid"], "action": action});
            let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule],
                "listenerPath": "/x"});
            compiled(profile).unwrap_or_else(|error| panic!("{action}: {error}"));
        }
        for operator in names("/linux/seccomp/operators") {
            let rule = json!({"names": ["getpid"], "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": 1, "op": operator}]});
            let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]});
            compiled(profile).unwrap_or_else(|error| panic!("{operator}: {error}"));
        }
        for arch in names("/linux/seccomp/archs") {
            let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": [arch]});
            let plan = compiled(profile).unwrap_or_else(|error| panic!("{arch}: {error}"));
            let filter = plan.process.filter.expect("a filter");
            assert!(filter.unreachable.is_empty(), "{arch} has no effect here");
        }
        for flag in names("/linux/seccomp/knownFlags") {
            let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": [flag]});
            compiled(profile).unwrap_or_else(|error| panic!("{flag}: {error}"));
        }
        let known = names("/linux/seccomp/knownFlags");
        assert!(names("/linux/seccomp/supportedFlags").iter().all(|flag| known.contains(flag)));
    }

    #[test]
    fn every_memory_policy_is_decided() {
        for mode in names("/linux/memoryPolicy/modes") {
            let nodes =
                if ["MPOL_DEFAULT", "MPOL_LOCAL"].contains(&mode.as_str()) { "" } else { "0" };
            let policy = json!({"mode": mode, "nodes": nodes});
            let plan = decided(json!({"linux": {"memoryPolicy": policy}}));
            let plan = plan.unwrap_or_else(|error| panic!("{mode}: {error}"));
            assert_eq!(plan.process.scheduling.memory.unwrap().name, mode);
        }
        for flag in names("/linux/memoryPolicy/flags") {
            let policy = json!({"mode": "MPOL_BIND", "nodes": "0", "flags": [flag]});
            decided(json!({"linux": {"memoryPolicy": policy}}))
                .unwrap_or_else(|error| panic!("{flag}: {error}"));
        }
    }

    #[test]
    fn what_is_enabled_is_planned() {
        let linux = document()["linux"].clone();
        let rdt = json!({"closID": "a", "schemata": ["L3:0=f"], "enableMonitoring": true});
        let plan = decided(json!({"linux": {"intelRdt": rdt}})).unwrap();
        let asked = plan.resctrl.expect("a group");
        let expected = json!({"enabled": true, "schemata": !asked.schemata.is_empty(),
            "monitoring": asked.monitoring});
        assert_eq!(linux["intelRdt"], expected);
        let plan = decided(json!({"linux": {"netDevices": {"eth0": {}}}})).unwrap();
        assert_eq!(linux["netDevices"]["enabled"], !plan.net_devices.is_empty());
        let label = json!({"process": {"apparmorProfile": "p", "selinuxLabel": "l"}});
        let process = decided(label).unwrap().process;
        assert_eq!(linux["apparmor"]["enabled"], process.apparmor.is_some());
        assert_eq!(linux["selinux"]["enabled"], process.selinux.is_some());
    }

    #[test]
    fn every_version_between_is_read() {
        for version in [document()["ociVersionMin"].clone(), document()["ociVersionMax"].clone()] {
            decided(json!({"ociVersion": version})).unwrap();
        }
    }
}
