//! The bundle of one instance: the user's config.json with what the supervisor adds.
//!
//! Pure: text in, text out. What is added is little and visible: the root file system's absolute
//! path, the command and environment asked for, a network namespace of its own, the cgroup's
//! name, the memory limit, and the slot's name for the application to know itself by.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use minisup_core::name::InstanceId;
use serde_json::{Map, Value, json};

use crate::model::ServiceSpec;
use crate::settings::object;

/// The namespaces every supervised container has of its own.
const NAMESPACES: [&str; 5] = ["pid", "network", "ipc", "uts", "mount"];

/// The annotation that says where the writable layer of an overlay root lives.
const UPPER: &str = "org.minirun.overlay.upper";
/// The annotation that names the layers of an overlay root.
const LOWER: &str = "org.minirun.overlay.lowerdirs";

/// Whose bundle it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) project: &'a str,
    pub(crate) instance: &'a InstanceId,
    /// The directory of its writable layer, if it has one.
    pub(crate) writable: &'a Path,
    /// The namespaces of others that it joins, by the names of config.json.
    pub(crate) joined: &'a BTreeMap<String, PathBuf>,
}

/// Makes an instance's config.json from the bundle's.
///
/// # Errors
/// The text is not a config.json with a process.
pub(crate) fn config(text: &str, spec: &ServiceSpec, place: &Place<'_>) -> Result<String> {
    let Place { project, instance, writable, joined } = *place;
    let mut config: Value = serde_json::from_str(text).context("config.json is not JSON")?;
    let top = config.as_object_mut().context("config.json is not an object")?;
    let root = object(top, "root");
    let path = root.get("path").and_then(Value::as_str).unwrap_or("rootfs");
    let path = spec.bundle.join(path);
    root.insert("path".into(), json!(path));
    // A bundle of an image has the name that all of them have; one made by hand means its own.
    if object(top, "annotations").contains_key(LOWER) || !top.contains_key("hostname") {
        top.insert("hostname".into(), json!(instance.slot.to_string()));
    }
    spec.settings.write(top)?;
    if spec.settings.terminal {
        terminals(top);
    }
    let process = object(top, "process");
    process.insert("terminal".into(), json!(spec.settings.terminal));
    if let Some(command) = &spec.command {
        process.insert("args".into(), json!(command));
    }
    if process.get("args").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        bail!("the bundle has no command (process.args), and none was given");
    }
    let slot = format!("MINISUP_SLOT={}", instance.slot);
    set_environment(process, spec.env.iter().chain([&slot]));
    let annotations = object(top, "annotations");
    if annotations.contains_key(LOWER) {
        annotations.insert(UPPER.into(), json!(writable));
    }
    let linux = object(top, "linux");
    linux.insert("cgroupsPath".into(), json!(cgroup(spec, project, instance)));
    join_namespaces(linux, joined);
    own_namespaces(linux, spec);
    limit(linux, spec);
    spec.settings.write_init(top)?;
    Ok(serde_json::to_string_pretty(&config)?)
}

/// Mounts a devpts of the container's own, in which its terminal is made, unless one is there.
fn terminals(config: &mut Map<String, Value>) {
    let mounts = config.entry("mounts").or_insert_with(|| json!([]));
    let Value::Array(mounts) = mounts else { return };
    if mounts.iter().all(|mount| mount["destination"] != "/dev/pts") {
        mounts.push(json!({
            "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        }));
    }
}

/// Whether the container joins a network namespace that exists.
pub(crate) fn joins_network(config: &str) -> bool {
    let config: Value = serde_json::from_str(config).unwrap_or_default();
    let list = config["linux"]["namespaces"].as_array();
    list.into_iter().flatten().any(|entry| entry["type"] == "network" && entry["path"].is_string())
}

/// Shows a file to the container at a place in `/etc`, if it has an `/etc` and nothing of its own
/// is mounted there.
pub(crate) fn with_file(config: &str, file: &Path, target: &str) -> Result<String> {
    let mut config: Value = serde_json::from_str(config)?;
    let root = config["root"]["path"].as_str().unwrap_or_default();
    // The root of an image is put together from layers, and images have an /etc.
    let layered = config["annotations"].get("org.minirun.overlay.lowerdirs").is_some();
    let has_place = layered || Path::new(root).join("etc").is_dir();
    let mounts = config["mounts"].as_array();
    let taken = mounts.into_iter().flatten().any(|mount| mount["destination"] == target);
    if has_place && !taken {
        let mount = json!({
            "destination": target, "type": "bind", "source": file,
            "options": ["bind", "ro", "nosuid", "nodev", "noexec"],
        });
        match &mut config["mounts"] {
            Value::Array(mounts) => mounts.push(mount),
            none => *none = json!([mount]),
        }
    }
    Ok(serde_json::to_string_pretty(&config)?)
}

/// The text of a container's `/etc/hosts`.
pub(crate) fn hosts(config: &str, more: &BTreeMap<String, Vec<IpAddr>>) -> Result<String> {
    let config: Value = serde_json::from_str(config)?;
    let own = config["hostname"].as_str().unwrap_or_default();
    let mut text = format!("127.0.0.1\tlocalhost {own}\n::1\tlocalhost ip6-localhost\n");
    for (name, addresses) in more {
        text.extend(addresses.iter().map(|address| format!("{address}\t{name}\n")));
    }
    Ok(text)
}

/// Writes the limits that were given; those of the bundle stay otherwise.
fn limit(linux: &mut Map<String, Value>, spec: &ServiceSpec) {
    /// The usual period over which CPU time is counted, in microseconds.
    const PERIOD: u64 = 100_000;
    if let Some(bytes) = spec.memory_bytes {
        object(object(linux, "resources"), "memory").insert("limit".into(), json!(bytes));
    }
    if let Some(pids) = spec.pids {
        object(object(linux, "resources"), "pids").insert("limit".into(), json!(pids));
    }
    if let Some(millis) = spec.cpu_millis {
        let cpu = object(object(linux, "resources"), "cpu");
        cpu.insert("period".into(), json!(PERIOD));
        cpu.insert("quota".into(), json!(millis * PERIOD / 1000));
    }
}

/// The cgroup of an instance, from the root of the hierarchy. In a parent that the file names
/// nothing but the instance's own group is made, which goes with it.
fn cgroup(spec: &ServiceSpec, project: &str, instance: &InstanceId) -> String {
    match &spec.settings.cgroup_parent {
        None => format!("/minisup/{project}/{instance}"),
        Some(parent) => format!("{parent}/minisup-{project}-{instance}"),
    }
}

/// Reads the text of a bundle's config.json.
pub(crate) fn read(bundle: &Path) -> Result<String> {
    let file = bundle.join("config.json");
    std::fs::read_to_string(&file).with_context(|| {
        format!(
            "{} cannot be read; a bundle is a directory with config.json and a root file system",
            file.display()
        )
    })
}

/// Adds variables, each replacing one of the same name.
fn set_environment<'a>(
    process: &mut Map<String, Value>,
    variables: impl Iterator<Item = &'a String>,
) {
    let mut environment: Vec<String> = process
        .get("env")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|value| value.as_str().map(str::to_string))
        .collect();
    for variable in variables {
        let name = variable.split('=').next().unwrap_or_default();
        environment.retain(|old| old.split('=').next() != Some(name));
        environment.push(variable.clone());
    }
    process.insert("env".into(), json!(environment));
}

/// Puts the container into namespaces that are there.
fn join_namespaces(linux: &mut Map<String, Value>, joined: &BTreeMap<String, PathBuf>) {
    let list = linux.entry("namespaces").or_insert_with(|| json!([]));
    let Value::Array(list) = list else { return };
    for (kind, path) in joined {
        list.retain(|entry| entry["type"] != json!(kind));
        list.push(json!({"type": kind, "path": path}));
    }
}

/// Gives the container new namespaces where it would share the host's. A namespace that the
/// bundle joins by path stays as it is.
fn own_namespaces(linux: &mut Map<String, Value>, spec: &ServiceSpec) {
    let list = linux.entry("namespaces").or_insert_with(|| json!([]));
    let Value::Array(list) = list else { return };
    for kind in NAMESPACES.into_iter().filter(|kind| !spec.settings.of_host.contains(*kind)) {
        if !list.iter().any(|entry| entry.get("type").and_then(Value::as_str) == Some(kind)) {
            list.push(json!({"type": kind}));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minisup_core::name::ServiceName;

    fn made(text: &str, change: impl FnOnce(&mut ServiceSpec)) -> Result<Value> {
        let mut spec: ServiceSpec = serde_json::from_value(json!({
            "bundle": "/b", "replicas": 1, "command": null, "env": [], "memory_bytes": null,
            "reserved_bytes": null, "cpu_millis": null, "reserved_cpu_millis": 0, "pids": null,
            "needs": {},
            "publish": [], "health": null, "stop_signal": "TERM", "stop_grace_ms": 1,
            "drain_ms": 1, "restart": minisup_core::restart::RestartPolicy::default(),
            "order": "start-first", "parallelism": 1
        }))?;
        change(&mut spec);
        let instance = ServiceName::from("web").slot(2).instance(7);
        let writable = Path::new("/w/web.2.7");
        let joined = BTreeMap::from([("ipc".to_string(), PathBuf::from("/proc/7/fd/8"))]);
        let place = Place { project: "shop", instance: &instance, writable, joined: &joined };
        Ok(serde_json::from_str(&config(text, &spec, &place)?)?)
    }

    const BUNDLE: &str = r#"{"root":{"path":"rootfs","readonly":true},
        "process":{"terminal":true,"args":["/app"],"env":["A=1","PATH=/bin"]},
        "linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/x"}]}}"#;

    #[test]
    fn the_bundle_is_completed_and_otherwise_left_alone() {
        let made = made(BUNDLE, |spec| {
            spec.env = vec!["A=2".into()];
            spec.memory_bytes = Some(1 << 20);
            spec.cpu_millis = Some(1500);
        })
        .unwrap();
        assert_eq!(made["root"], json!({"path": "/b/rootfs", "readonly": true}));
        assert_eq!(made["process"]["args"], json!(["/app"]));
        assert_eq!(made["process"]["terminal"], json!(false));
        assert_eq!(made["process"]["env"], json!(["PATH=/bin", "A=2", "MINISUP_SLOT=web.2"]));
        assert_eq!(made["linux"]["cgroupsPath"], "/minisup/shop/web.2.7");
        assert_eq!(made["linux"]["resources"]["memory"]["limit"], 1 << 20);
        let cpu = &made["linux"]["resources"]["cpu"];
        assert_eq!(*cpu, json!({"period": 100_000, "quota": 150_000}));
        let namespaces = made["linux"]["namespaces"].as_array().unwrap();
        assert_eq!(namespaces.len(), 5, "{namespaces:?}");
        assert_eq!(namespaces[1], json!({"type": "network", "path": "/x"}), "joined, not new");
        assert_eq!(namespaces[2], json!({"type": "ipc", "path": "/proc/7/fd/8"}));
    }

    #[test]
    fn its_cgroup_may_have_another_parent() {
        let parent = |spec: &mut ServiceSpec| spec.settings.cgroup_parent = Some("/apps".into());
        let made = made(BUNDLE, parent).unwrap();
        assert_eq!(made["linux"]["cgroupsPath"], "/apps/minisup-shop-web.2.7");
    }

    #[test]
    fn a_resolver_is_mounted_where_there_is_a_place_for_it() {
        let mounts = |config: &str| -> Vec<Value> {
            let made = with_file(config, Path::new("/b/resolv.conf"), "/etc/resolv.conf").unwrap();
            let made: Value = serde_json::from_str(&made).unwrap();
            made["mounts"].as_array().cloned().unwrap_or_default()
        };
        let placed = mounts(r#"{"root":{"path":"/"}}"#);
        assert_eq!(placed[0]["source"], "/b/resolv.conf");
        assert_eq!(placed[0]["destination"], "/etc/resolv.conf");
        assert!(mounts(r#"{"root":{"path":"/proc"}}"#).is_empty(), "no /etc there");
        let own = r#"{"root":{"path":"/"},"mounts":[{"destination":"/etc/resolv.conf"}]}"#;
        assert_eq!(mounts(own).len(), 1, "the bundle's own stays");
        assert!(joins_network(BUNDLE) && !joins_network("{}"));
    }

    #[test]
    fn hosts_are_found_by_name() {
        let more = BTreeMap::from([("db".to_string(), vec!["10.0.0.7".parse().unwrap()])]);
        let text = hosts(r#"{"hostname":"web"}"#, &more).unwrap();
        assert!(text.starts_with("127.0.0.1\tlocalhost web\n"), "{text}");
        assert!(text.ends_with("10.0.0.7\tdb\n"), "{text}");
    }

    #[test]
    fn a_layered_root_gets_a_writable_layer_of_the_instance() {
        let layered = r#"{"process":{"args":["/x"]},
            "annotations":{"org.minirun.overlay.lowerdirs":"[\"/a\"]"}}"#;
        let upper = |text| made(text, |_| ()).unwrap()["annotations"][UPPER].clone();
        assert_eq!(upper(layered), "/w/web.2.7");
        assert_eq!(upper(BUNDLE), Value::Null);
    }

    #[test]
    fn a_bundle_without_a_command_needs_one() {
        assert!(made("{}", |_| ()).is_err());
        assert!(made("{}", |spec| spec.command = Some(vec!["/x".into()])).is_ok());
        assert!(made("[]", |_| ()).is_err());
    }
}
