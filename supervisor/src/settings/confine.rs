//! What a container may do: capabilities, the filter of system calls, what is hidden from it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Settings, array, devices, object};

/// The filter of system calls, where it is not the bundle's.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Filter {
    /// That of the bundle.
    #[default]
    Given,
    /// None.
    Unconfined,
    /// This one: `linux.seccomp` of a configuration.
    Profile(Value),
}

impl Settings {
    /// Writes what the container may do into a configuration.
    pub(super) fn write_confinement(&self, config: &mut Map<String, Value>) {
        let process = object(config, "process");
        if let Some(forbidden) = self.no_new_privileges {
            process.insert("noNewPrivileges".into(), json!(forbidden));
        }
        match self.apparmor.as_deref() {
            None => {}
            Some("unconfined") => drop(process.remove("apparmorProfile")),
            Some(profile) => drop(process.insert("apparmorProfile".into(), json!(profile))),
        }
        self.write_capabilities(process);
        let linux = object(config, "linux");
        match &self.filter {
            Filter::Given => {}
            Filter::Unconfined => drop(linux.remove("seccomp")),
            Filter::Profile(profile) => drop(linux.insert("seccomp".into(), profile.clone())),
        }
        if self.unhidden {
            linux.remove("maskedPaths");
            linux.remove("readonlyPaths");
        }
        if self.privileged {
            lift(config);
        }
    }

    fn write_capabilities(&self, process: &mut Map<String, Value>) {
        if !self.privileged && self.cap_add.is_empty() && self.cap_drop.is_empty() {
            return;
        }
        let sets = object(process, "capabilities");
        for set in ["bounding", "effective", "permitted"] {
            self.change_capabilities(array(sets, set));
        }
    }

    /// Takes first, then gives; `ALL` means every one that there is.
    fn change_capabilities(&self, set: &mut Vec<Value>) {
        let is = |name: &str, entry: &Value| entry.as_str() == Some(name);
        let all = |list: &[String]| list.iter().any(|name| name == "ALL");
        if self.privileged {
            *set = every_capability().into_iter().map(Value::from).collect();
        }
        if all(&self.cap_drop) {
            set.clear();
        }
        if all(&self.cap_add) {
            *set = every_capability().into_iter().map(Value::from).collect();
        }
        set.retain(|entry| !self.cap_drop.iter().any(|name| is(name, entry)));
        for name in self.cap_add.iter().filter(|name| *name != "ALL") {
            if !set.iter().any(|entry| is(name, entry)) {
                set.push(json!(name));
            }
        }
    }
}

/// Every capability that can be given: what we do not hold ourselves, nobody gets from us.
pub(crate) fn every_capability() -> Vec<String> {
    let held = linux::capability::effective();
    held.map_or_else(|_| linux::capability::all_names(), linux::capability::Set::names)
}

/// Lifts every confinement but the namespaces: what `privileged` means.
fn lift(config: &mut Map<String, Value>) {
    for mount in array(config, "mounts") {
        let of_kernel = ["sysfs", "cgroup", "cgroup2"].iter().any(|kind| mount["type"] == *kind);
        if of_kernel && let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| option != "ro");
        }
    }
    object(config, "process").remove("apparmorProfile");
    let linux = object(config, "linux");
    for key in ["seccomp", "maskedPaths", "readonlyPaths"] {
        linux.remove(key);
    }
    devices::add_all(linux);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the tests' process has it to give.
    fn is_held(name: &str) -> bool {
        every_capability().iter().any(|held| held == name)
    }

    fn written(settings: &Settings) -> Value {
        let mut config = json!({
            "process": {"capabilities": {"bounding": ["CAP_KILL", "CAP_CHOWN"]},
                        "apparmorProfile": "docker-default"},
            "mounts": [{"destination": "/sys", "type": "sysfs", "options": ["nosuid", "ro"]}],
            "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}, "maskedPaths": ["/proc/kcore"]}
        });
        let Value::Object(map) = &mut config else { unreachable!("it is an object") };
        settings.write_confinement(map);
        config
    }

    #[test]
    fn capabilities_are_taken_before_they_are_given() {
        let bounding = |add: &[&str], drop: &[&str]| {
            let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
            let settings =
                Settings { cap_add: texts(add), cap_drop: texts(drop), ..Settings::default() };
            written(&settings)["process"]["capabilities"]["bounding"].clone()
        };
        assert_eq!(bounding(&["CAP_NET_RAW"], &["ALL"]), json!(["CAP_NET_RAW"]));
        assert_eq!(bounding(&["CAP_KILL"], &["CAP_CHOWN"]), json!(["CAP_KILL"]));
        let nearly = bounding(&["ALL"], &["CAP_SYS_ADMIN"]);
        let nearly = nearly.as_array().unwrap();
        let name = "CAP_NET_ADMIN";
        assert_eq!(nearly.contains(&json!(name)), is_held(name), "ALL is a list: {nearly:?}");
        assert!(!nearly.contains(&json!("CAP_SYS_ADMIN")) && !nearly.contains(&json!("ALL")));
    }

    #[test]
    fn options_change_what_they_name_and_nothing_else() {
        let untouched = written(&Settings::default());
        assert_eq!(untouched["process"]["apparmorProfile"], "docker-default");
        assert_eq!(untouched["linux"]["maskedPaths"][0], "/proc/kcore");
        let open = written(&Settings {
            filter: Filter::Unconfined,
            apparmor: Some("unconfined".into()),
            unhidden: true,
            ..Settings::default()
        });
        assert_eq!(open["linux"]["seccomp"], Value::Null);
        assert_eq!(open["process"]["apparmorProfile"], Value::Null);
        assert_eq!(open["linux"]["maskedPaths"], Value::Null);
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW"});
        let own = Settings { filter: Filter::Profile(profile.clone()), ..Settings::default() };
        assert_eq!(written(&own)["linux"]["seccomp"], profile);
    }

    #[test]
    fn privileged_lifts_everything_but_namespaces() {
        let made = written(&Settings { privileged: true, ..Settings::default() });
        let bounding = made["process"]["capabilities"]["bounding"].as_array().unwrap();
        assert_eq!(bounding.contains(&json!("CAP_SYS_ADMIN")), is_held("CAP_SYS_ADMIN"));
        assert_eq!(made["mounts"][0]["options"], json!(["nosuid"]));
        assert_eq!(made["linux"]["seccomp"], Value::Null);
        let rules = made["linux"]["resources"]["devices"].as_array().unwrap();
        assert_eq!(rules.last(), Some(&json!({"allow": true, "access": "rwm"})));
        let null = |entry: &Value| entry["path"] == "/dev/null";
        assert!(made["linux"]["devices"].as_array().unwrap().iter().any(null));
    }
}
