//! The configuration that `minirun spec` writes: small, safe, and enough for most programs.

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};
use serde_json::{Value, json as literal};

use crate::error::{Error, Result};
use crate::json;

/// What a program in a container keeps of root's power: enough to own files, to change users and to
/// listen on low ports; nothing over the machine. (The engines' usual list without `CAP_NET_RAW`,
/// `CAP_SYS_CHROOT`, `CAP_MKNOD`, `CAP_AUDIT_WRITE`, `CAP_SETPCAP` and `CAP_SETFCAP`, which
/// programs hardly need and attackers like.)
const CAPABILITIES: [&str; 8] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETGID",
    "CAP_SETUID",
];

/// Files of the kernel that tell about the whole machine, or that its firmware acts on.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Files of the kernel that a container may read and not write.
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The default configuration: its root file system in `rootfs`, a shell as its program, new
/// namespaces of every kind but user and time, the default seccomp profile.
///
/// # Errors
/// None in practice: the text is checked by a test.
pub fn default_config() -> Spec {
    parsed(document())
}

/// The default configuration for a user without privileges: a user namespace in which the caller is
/// root, and nothing that needs more.
pub fn rootless_config(user: u32, group: u32) -> Spec {
    let mut document = document();
    if let Some(linux) = document.get_mut("linux").and_then(Value::as_object_mut) {
        linux.insert("uidMappings".into(), mapping(user));
        linux.insert("gidMappings".into(), mapping(group));
        if let Some(namespaces) = linux.get_mut("namespaces").and_then(Value::as_array_mut) {
            namespaces.push(literal!({"type": "user"}));
        }
        linux.remove("resources");
    }
    let mounts = document.get_mut("mounts").and_then(Value::as_array_mut);
    for mount in mounts.into_iter().flatten() {
        // Group 5 (tty) is not mapped, so it cannot own a terminal.
        if let Some(options) = mount.get_mut("options").and_then(Value::as_array_mut) {
            options.retain(|option| option != "gid=5");
        }
    }
    parsed(document)
}

/// A configuration as text: indented, every list in the same order each time.
///
/// The parser keeps capabilities in a hash set, which forgets their order; bundles would differ
/// from run to run.
pub fn to_text(config: &Spec) -> Result<String> {
    let failed = |error: serde_json::Error| Error::Config(format!("write config.json: {error}"));
    let mut value = json::untyped(config).map_err(failed)?;
    let sets = value.pointer_mut("/process/capabilities").and_then(Value::as_object_mut);
    for names in sets.into_iter().flatten().filter_map(|(_, names)| names.as_array_mut()) {
        names.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    }
    let text = serde_json::to_string_pretty(&value).map_err(failed)?;
    Ok(text + "\n")
}

/// Adds a user namespace in which the caller is root, where the configuration has none, and removes
/// what an unprivileged user cannot have. Gives whether anything was changed.
pub fn make_rootless(config: &mut Spec, user: u32, group: u32) -> bool {
    let Some(linux) = config.linux_mut() else { return false };
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    if namespaces.iter().any(|namespace| namespace.typ() == LinuxNamespaceType::User) {
        return false;
    }
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(LinuxNamespaceType::User);
    namespaces.push(namespace);
    linux.set_namespaces(Some(namespaces));
    linux.set_uid_mappings(json::typed(&mapping(user)).ok());
    linux.set_gid_mappings(json::typed(&mapping(group)).ok());
    if let Some(resources) = linux.resources_mut() {
        // Device rules need privileges; without any device node of its own the container has only
        // those that are bound into it.
        resources.set_devices(None);
    }
    if let Some(mounts) = config.mounts_mut() {
        for options in mounts.iter_mut().filter_map(|mount| mount.options_mut().as_mut()) {
            options.retain(|option| option != "gid=5");
        }
    }
    true
}

fn mapping(id: u32) -> Value {
    literal!([{"containerID": 0, "hostID": id, "size": 1}])
}

fn parsed(document: Value) -> Spec {
    // A document of our own, and a test parses it.
    let mut spec: Spec = json::typed(&document).unwrap_or_default();
    let seccomp = crate::seccomp::default_profile(&CAPABILITIES);
    if let Some(linux) = spec.linux_mut() {
        linux.set_seccomp(Some(seccomp));
    }
    spec
}

fn document() -> Value {
    literal!({
        "ociVersion": super::VERSION,
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": CAPABILITIES,
                "effective": CAPABILITIES,
                "permitted": CAPABILITIES,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "minirun",
        "mounts": mounts(),
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"},
                {"type": "network"},
                {"type": "ipc"},
                {"type": "uts"},
                {"type": "mount"},
                {"type": "cgroup"},
            ],
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    })
}

fn mounts() -> Value {
    let safe = ["nosuid", "noexec", "nodev"];
    literal!([
        {"destination": "/proc", "type": "proc", "source": "proc", "options": safe},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
         "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": safe},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs",
         "options": ["nosuid", "noexec", "nodev", "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
         "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_parse_and_say_what_they_should() {
        let spec = default_config();
        assert_eq!(spec.version(), super::super::VERSION);
        assert_eq!(spec.mounts().as_ref().unwrap().len(), 7);
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(linux.namespaces().as_ref().unwrap().len(), 6);
        assert!(linux.seccomp().is_some());
        let rootless = rootless_config(1000, 1000);
        let linux = rootless.linux().as_ref().unwrap();
        assert_eq!(linux.namespaces().as_ref().unwrap().len(), 7);
        assert_eq!(linux.uid_mappings().as_ref().unwrap()[0].host_id(), 1000);
        assert!(!format!("{:?}", rootless.mounts()).contains("gid=5"));
    }
}
