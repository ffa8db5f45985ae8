//! What a container gets beside its image: identity, files, limits, as config.json will say it.
//!
//! Data, and one pure function that writes it into a configuration. What is not set leaves the
//! bundle's own value alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

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
    /// Capabilities added, with `CAP_`; `ALL` is all that the bundle's sets can hold.
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
    /// Memory below which it is not reclaimed from, if possible.
    pub(crate) oom_score_adj: Option<i16>,
    /// Run in the container before it is stopped, one after the other.
    pub(crate) pre_stop: Vec<Vec<String>>,
}

/// One mount.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// The path on the host; `None` is an empty directory in memory.
    pub(crate) source: Option<PathBuf>,
    /// The path in the container.
    pub(crate) target: String,
    /// Options of mount(8).
    pub(crate) options: Vec<String>,
    /// Whether the source is relative to what belongs to the slot.
    #[serde(default)]
    pub(crate) of_slot: bool,
}

impl Mount {
    /// An empty directory in memory.
    pub(crate) fn tmpfs(target: &str, options: Vec<String>) -> Mount {
        Mount { source: None, target: target.to_string(), options, of_slot: false }
    }

    /// A path of the host.
    pub(crate) fn bind(source: PathBuf, target: &str, is_read_only: bool) -> Mount {
        let access = if is_read_only { "ro" } else { "rw" };
        let options = ["rbind", "rprivate", access].map(String::from).to_vec();
        Mount { source: Some(source), target: target.to_string(), options, of_slot: false }
    }

    fn entry(&self) -> Value {
        match &self.source {
            Some(source) => json!({"destination": self.target, "type": "bind", "source": source,
                                   "options": self.options}),
            None => json!({"destination": self.target, "type": "tmpfs", "source": "tmpfs",
                           "options": self.options}),
        }
    }
}

impl Settings {
    /// Gives what belongs to the slot its place below `dir`; the directories that must be there.
    pub(crate) fn place(&mut self, dir: &Path) -> Vec<PathBuf> {
        let mut made = Vec::new();
        for mount in self.mounts.iter_mut().filter(|mount| mount.of_slot) {
            let source = dir.join(mount.source.as_deref().unwrap_or(Path::new("")));
            made.push(source.clone());
            mount.source = Some(source);
        }
        made
    }

    /// Writes what is set into a configuration.
    pub(crate) fn write(&self, config: &mut Map<String, Value>) {
        if self.read_only {
            object(config, "root").insert("readonly".into(), json!(true));
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
        self.write_linux(object(config, "linux"));
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
        if let Some(forbidden) = self.no_new_privileges {
            process.insert("noNewPrivileges".into(), json!(forbidden));
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
        if !self.cap_add.is_empty() || !self.cap_drop.is_empty() {
            let sets = object(process, "capabilities");
            for set in ["bounding", "effective", "permitted"] {
                self.change_capabilities(array(sets, set));
            }
        }
    }

    fn change_capabilities(&self, set: &mut Vec<Value>) {
        let is = |name: &str, entry: &Value| entry.as_str() == Some(name);
        match self.cap_drop.iter().any(|name| name == "ALL") {
            true => set.clear(),
            false => set.retain(|entry| !self.cap_drop.iter().any(|name| is(name, entry))),
        }
        for name in &self.cap_add {
            if !set.iter().any(|entry| is(name, entry)) {
                set.push(json!(name));
            }
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
        for mount in &self.mounts {
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
        if let Some(bytes) = self.swap_bytes {
            object(resources, "memory").insert("swap".into(), json!(bytes));
        }
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
        settings.write(map);
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
    fn capabilities_are_taken_before_they_are_given() {
        let bounding = |add: &[&str], drop: &[&str]| {
            let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
            let settings =
                Settings { cap_add: texts(add), cap_drop: texts(drop), ..Settings::default() };
            written(settings)["process"]["capabilities"]["bounding"].clone()
        };
        assert_eq!(bounding(&["CAP_NET_RAW"], &["ALL"]), json!(["CAP_NET_RAW"]));
        assert_eq!(bounding(&["CAP_KILL"], &["CAP_CHOWN"]), json!(["CAP_KILL"]));
    }

    #[test]
    fn what_belongs_to_the_slot_is_below_its_directory() {
        let nameless = Mount { of_slot: true, ..Mount::bind("data".into(), "/data", false) };
        let named = Mount::bind("/v/db".into(), "/db", false);
        let mut settings = Settings { mounts: vec![nameless, named], ..Settings::default() };
        assert_eq!(settings.place(Path::new("/slot")), [Path::new("/slot/data")]);
        assert_eq!(settings.mounts[0].source.as_deref(), Some(Path::new("/slot/data")));
        assert_eq!(settings.mounts[1].source.as_deref(), Some(Path::new("/v/db")));
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
}
