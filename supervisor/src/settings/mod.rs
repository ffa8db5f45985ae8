//! What a container gets beside its image: identity, files, limits, as config.json will say it.
//!
//! Data, and one pure function that writes it into a configuration. What is not set leaves the
//! bundle's own value alone.

mod attached;
mod confine;
mod devices;
mod mounts;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub(crate) use attached::Attached;
pub(crate) use confine::{Filter, every_capability};
pub(crate) use devices::{DeviceFile, Devices, Rule};
pub(crate) use mounts::{Mount, Part};

use crate::init;

/// The settings of a service's containers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    /// User and group of the process.
    pub(crate) user: Option<(u32, u32)>,
    /// Groups of the process beside its own.
    pub(crate) groups: Vec<u32>,
    /// Where the process starts.
    pub(crate) working_dir: Option<String>,
    /// The host's name within; the slot's if unset.
    pub(crate) hostname: Option<String>,
    /// The NIS domain's name.
    pub(crate) domainname: Option<String>,
    /// Whether nothing can be written over the image.
    pub(crate) read_only: bool,
    /// Annotations of the configuration; labels are such.
    pub(crate) annotations: BTreeMap<String, String>,
    /// Mounted over the image, in this order.
    pub(crate) mounts: Vec<Mount>,
    /// Capabilities added, with `CAP_`; `ALL` is every one that there is.
    pub(crate) cap_add: Vec<String>,
    /// Capabilities taken away, before any is added.
    pub(crate) cap_drop: Vec<String>,
    /// Whether programs may not gain rights.
    pub(crate) no_new_privileges: Option<bool>,
    /// Kernel parameters of its namespaces.
    pub(crate) sysctls: BTreeMap<String, String>,
    /// Limits of the process, soft and hard, by their names without `RLIMIT_`.
    pub(crate) ulimits: BTreeMap<String, (i64, i64)>,
    /// The size of `/dev/shm` in bytes.
    pub(crate) shm_bytes: Option<u64>,
    /// CPUs it may run on.
    pub(crate) cpuset: Option<String>,
    /// Its share of CPU time.
    pub(crate) cpu_shares: Option<u64>,
    /// Memory and swap together in bytes; -1 is without limit.
    pub(crate) swap_bytes: Option<i64>,
    /// How readily the kernel kills it when memory is short.
    pub(crate) oom_score_adj: Option<i16>,
    /// The group in which its cgroup is, from the root of the hierarchy; minisup's own if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cgroup_parent: Option<String>,
    /// Without a limit of time the kernel's share of CPU time: microseconds of every period.
    pub(crate) cpu_quota: Option<(i64, u64)>,
    /// How willingly its memory is swapped out, 0 to 100; cgroup v1 only.
    pub(crate) swappiness: Option<u8>,
    /// No OOM killer; cgroup v1 only.
    pub(crate) oom_kill_disable: bool,
    /// All capabilities and devices, nothing hidden.
    pub(crate) privileged: bool,
    /// The filter of system calls.
    pub(crate) filter: Filter,
    /// The name of an AppArmor profile, or `unconfined`.
    pub(crate) apparmor: Option<String>,
    /// Nothing of /proc and /sys is hidden.
    pub(crate) unhidden: bool,
    /// Devices of the host.
    pub(crate) devices: Devices,
    /// Namespaces of the host, by the names of config.json.
    pub(crate) of_host: BTreeSet<String>,
    /// Namespaces of its own beyond the usual ones.
    pub(crate) own: BTreeSet<String>,
    /// Namespaces of other services, by the names of config.json, and whose they are.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) joins: BTreeMap<String, String>,
    /// Its `/dev/shm` is shown to those that join its IPC namespace.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) shares_memory: bool,
    /// No `/dev/shm`.
    pub(crate) without_shm: bool,
    /// Whether it has networks.
    pub(crate) network: Network,
    /// Those of the project that it is in, `eth0` first; none are the default network alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) networks: Vec<Attached>,
    /// Lines of /etc/hosts.
    pub(crate) hosts: BTreeMap<String, Vec<IpAddr>>,
    /// Names in /etc/hosts that lead to the host, at whatever address it has for the container.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) host_names: BTreeSet<String>,
    /// How it asks for names.
    pub(crate) resolver: Resolver,
    /// More names of the service, in all of its networks.
    pub(crate) aliases: BTreeSet<String>,
    /// Its name leads to its replicas, not to the service's address.
    pub(crate) direct: bool,
    /// A small first process before the program.
    pub(crate) init: bool,
    /// An open standard input, in which nothing ever comes.
    pub(crate) stdin_open: bool,
    /// A terminal instead of three pipes. Nobody types on it; what is shown on it is logged.
    pub(crate) terminal: bool,
    /// What is kept of its output.
    pub(crate) log: LogRules,
    /// Run in the container when it has started, one after the other.
    pub(crate) post_start: Vec<Hook>,
    /// Run in the container before it is stopped, one after the other.
    pub(crate) pre_stop: Vec<Hook>,
}

/// A container's network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Network {
    /// Those of the project.
    #[default]
    Project,
    /// That of the host.
    Host,
    /// Nothing but its own loopback.
    None,
    /// Those of another service.
    Joined,
}

/// How a container asks for names.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Resolver {
    /// Who is asked for names that are not of the project; empty is whom the host asks.
    pub(crate) servers: Vec<IpAddr>,
    /// Options of resolv.conf(5).
    pub(crate) options: Vec<String>,
    /// Domains in which short names are looked for, beside the project's.
    pub(crate) search: Vec<String>,
}

/// What is kept of a container's output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LogRules {
    /// Nothing, if not.
    pub(crate) keep: bool,
    /// A file is rotated when it is this long, in bytes.
    pub(crate) longest: u64,
    /// Files per instance.
    pub(crate) files: u32,
    /// Whether all but the one that is written to are compressed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) compress: bool,
}

impl Default for LogRules {
    fn default() -> LogRules {
        LogRules { keep: true, longest: 10 << 20, files: 3, compress: false }
    }
}

/// A command that is run in a container.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Hook {
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
    /// User and group; none are those of the container.
    pub(crate) user: Option<(u32, u32)>,
    /// Where it starts; none is where the container did.
    pub(crate) working_dir: Option<String>,
    /// Variables beside the container's, `NAME=value`.
    pub(crate) env: Vec<String>,
    /// With every capability.
    pub(crate) privileged: bool,
}

impl Settings {
    /// Writes what is set into a configuration.
    ///
    /// # Errors
    /// A device is not there.
    pub(crate) fn write(&self, config: &mut Map<String, Value>) -> Result<()> {
        if self.read_only {
            object(config, "root").insert("readonly".into(), json!(true));
        }
        if self.of_host.contains("uts") {
            config.remove("hostname"); // it is the host's to have one
        }
        for (key, value) in [("hostname", &self.hostname), ("domainname", &self.domainname)] {
            if let Some(value) = value {
                config.insert(key.into(), json!(value));
            }
        }
        for (key, value) in &self.annotations {
            object(config, "annotations").insert(key.clone(), json!(value));
        }
        self.write_process(object(config, "process"));
        self.write_mounts(config);
        self.write_confinement(config);
        self.write_linux(object(config, "linux"));
        self.devices.write(object(config, "linux"))
    }

    /// Puts the small first process before the program. To be called when that is known.
    pub(crate) fn write_init(&self, config: &mut Map<String, Value>) -> Result<()> {
        if self.init {
            let own = std::env::current_exe()?;
            array(config, "mounts").push(Mount::bind(own, init::PLACE, true).entry());
            let words = [init::PLACE, "init", "--"].map(Value::from);
            array(object(config, "process"), "args").splice(0..0, words);
        }
        Ok(())
    }

    fn write_process(&self, process: &mut Map<String, Value>) {
        if let Some((user, group)) = self.user {
            let known = object(process, "user");
            known.insert("uid".into(), json!(user));
            known.insert("gid".into(), json!(group));
        }
        if !self.groups.is_empty() {
            object(process, "user").insert("additionalGids".into(), json!(self.groups));
        }
        if let Some(dir) = &self.working_dir {
            process.insert("cwd".into(), json!(dir));
        }
        if let Some(score) = self.oom_score_adj {
            process.insert("oomScoreAdj".into(), json!(score));
        }
        for (name, (soft, hard)) in &self.ulimits {
            let kind = format!("RLIMIT_{}", name.to_uppercase());
            let list = array(process, "rlimits");
            list.retain(|entry| entry["type"] != json!(kind));
            // Without limit is the greatest number, as setrlimit(2) has it.
            let number = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
            list.push(json!({"type": kind, "soft": number(*soft), "hard": number(*hard)}));
        }
    }

    fn write_mounts(&self, config: &mut Map<String, Value>) {
        let list = array(config, "mounts");
        if let Some(bytes) = self.shm_bytes {
            list.retain(|entry| entry["destination"] != "/dev/shm");
            let options = ["nosuid", "noexec", "nodev", "mode=1777"].map(String::from);
            let options: Vec<String> =
                options.into_iter().chain([format!("size={bytes}")]).collect();
            list.push(Mount::tmpfs("/dev/shm", options).entry());
        }
        if self.without_shm || self.of_host.contains("ipc") {
            list.retain(|entry| entry["destination"] != "/dev/shm");
        }
        if self.of_host.contains("ipc") {
            list.push(Mount::bind("/dev/shm".into(), "/dev/shm", false).entry());
        }
        // What is above comes first, or it would cover what is below.
        let mut mounts: Vec<&Mount> = self.mounts.iter().collect();
        mounts.sort_by_key(|mount| Path::new(&mount.target).components().count());
        for mount in mounts {
            list.retain(|entry| entry["destination"] != json!(mount.target));
            list.push(mount.entry());
        }
    }

    fn write_linux(&self, linux: &mut Map<String, Value>) {
        for (name, value) in &self.sysctls {
            object(linux, "sysctl").insert(name.clone(), json!(value));
        }
        let resources = object(linux, "resources");
        if let Some(cpus) = &self.cpuset {
            object(resources, "cpu").insert("cpus".into(), json!(cpus));
        }
        if let Some(shares) = self.cpu_shares {
            object(resources, "cpu").insert("shares".into(), json!(shares));
        }
        if let Some((quota, period)) = self.cpu_quota {
            object(resources, "cpu").insert("quota".into(), json!(quota));
            object(resources, "cpu").insert("period".into(), json!(period));
        }
        if let Some(bytes) = self.swap_bytes {
            object(resources, "memory").insert("swap".into(), json!(bytes));
        }
        if let Some(swappiness) = self.swappiness {
            object(resources, "memory").insert("swappiness".into(), json!(swappiness));
        }
        if self.oom_kill_disable {
            object(resources, "memory").insert("disableOOMKiller".into(), json!(true));
        }
        let list = array(linux, "namespaces");
        for kind in &self.own {
            if !list.iter().any(|entry| entry["type"] == json!(kind)) {
                list.push(json!({"type": kind}));
            }
        }
        list.retain(|entry| !self.of_host.iter().any(|kind| entry["type"] == json!(kind)));
    }
}

/// The object at `key`, made if it is not there.
pub(crate) fn object<'a>(
    parent: &'a mut Map<String, Value>,
    key: &str,
) -> &'a mut Map<String, Value> {
    let value = parent.entry(key).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it was made an object above"),
    }
}

/// The list at `key`, made if it is not there.
fn array<'a>(parent: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let value = parent.entry(key).or_insert_with(|| json!([]));
    if !value.is_array() {
        *value = json!([]);
    }
    match value {
        Value::Array(list) => list,
        _ => unreachable!("it was made a list above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(settings: Settings) -> Value {
        let mut config = json!({
            "process": {"capabilities": {"bounding": ["CAP_KILL", "CAP_CHOWN"]}},
            "mounts": [{"destination": "/dev/shm", "type": "tmpfs"}]
        });
        let Value::Object(map) = &mut config else { unreachable!("it is an object") };
        settings.write(map).unwrap();
        config
    }

    #[test]
    fn nothing_set_changes_nothing_that_counts() {
        let made = written(Settings::default());
        assert_eq!(made["mounts"], json!([{"destination": "/dev/shm", "type": "tmpfs"}]));
        assert_eq!(made["process"]["capabilities"]["bounding"], json!(["CAP_KILL", "CAP_CHOWN"]));
        assert_eq!(made["root"], Value::Null);
    }

    #[test]
    fn a_mount_covers_none_below_it() {
        let mounts = ["/a/b", "/a", "/c", "/a/b/c"].map(|target| Mount::tmpfs(target, vec![]));
        let made = written(Settings { mounts: mounts.into(), ..Settings::default() });
        let order: Vec<_> = made["mounts"].as_array().unwrap()[1..]
            .iter()
            .map(|mount| mount["destination"].as_str().unwrap())
            .collect();
        assert_eq!(order, ["/a", "/c", "/a/b", "/a/b/c"]);
    }

    #[test]
    fn mounts_limits_and_identity_are_written() {
        let made = written(Settings {
            user: Some((1000, 100)),
            shm_bytes: Some(4096),
            ulimits: BTreeMap::from([("nofile".into(), (1024, -1))]),
            mounts: vec![Mount::bind("/srv/data".into(), "/data", true)],
            swap_bytes: Some(-1),
            ..Settings::default()
        });
        assert_eq!(made["process"]["user"], json!({"uid": 1000, "gid": 100}));
        assert_eq!(made["process"]["rlimits"][0]["hard"], u64::MAX);
        assert_eq!(made["mounts"][0]["options"][4], "size=4096");
        let data = json!({"destination": "/data", "type": "bind", "source": "/srv/data",
                          "options": ["rbind", "rprivate", "ro"]});
        assert_eq!(made["mounts"][1], data);
        assert_eq!(made["linux"]["resources"]["memory"]["swap"], -1);
    }

    #[test]
    fn namespaces_are_shared_or_owned_as_asked() {
        let of_host = BTreeSet::from(["ipc".to_string(), "uts".to_string()]);
        let own = BTreeSet::from(["cgroup".to_string(), "uts".to_string()]);
        let made = written(Settings { of_host, own, ..Settings::default() });
        assert_eq!(made["linux"]["namespaces"], json!([{"type": "cgroup"}]));
        assert_eq!(made["mounts"][0]["source"], "/dev/shm", "the host's, with its messages");
        let none = written(Settings { without_shm: true, ..Settings::default() });
        assert_eq!(none["mounts"], json!([]));
    }

    #[test]
    fn the_first_process_is_shown_and_put_before_the_program() {
        let mut config = Map::new();
        object(&mut config, "process").insert("args".into(), json!(["/app", "-x"]));
        let settings = Settings { init: true, ..Settings::default() };
        settings.write_init(&mut config).unwrap();
        let words = json!(["/dev/minisup-init", "init", "--", "/app", "-x"]);
        assert_eq!(config["process"]["args"], words);
        assert_eq!(config["mounts"][0]["destination"], "/dev/minisup-init");
    }
}
