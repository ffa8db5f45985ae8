//! `security_opt` and capabilities.

use std::path::PathBuf;

use serde::{Serialize, Serializer};

use crate::field::Field;
use crate::findings::Findings;
use crate::suggest;

/// An entry of `security_opt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecurityOption {
    /// `no-new-privileges`: no program gains rights by its file's bits.
    NoNewPrivileges(bool),
    /// `seccomp=…`: the filter of system calls.
    Seccomp(Seccomp),
    /// `apparmor=…`: the name of a profile the host has loaded, or `unconfined`.
    AppArmor(String),
    /// `systempaths=unconfined`: nothing of /proc and /sys is hidden.
    SystemPathsUnconfined,
}

/// A filter of system calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seccomp {
    /// None.
    Unconfined,
    /// The built-in one.
    Builtin,
    /// That of a file; absolute.
    File(PathBuf),
}

impl Serialize for SecurityOption {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::NoNewPrivileges(on) => {
                serializer.collect_str(&format_args!("no-new-privileges={on}"))
            }
            Self::Seccomp(Seccomp::Unconfined) => serializer.serialize_str("seccomp=unconfined"),
            Self::Seccomp(Seccomp::Builtin) => serializer.serialize_str("seccomp=builtin"),
            Self::Seccomp(Seccomp::File(path)) => {
                serializer.collect_str(&format_args!("seccomp={}", path.display()))
            }
            Self::AppArmor(name) => serializer.collect_str(&format_args!("apparmor={name}")),
            Self::SystemPathsUnconfined => serializer.serialize_str("systempaths=unconfined"),
        }
    }
}

impl SecurityOption {
    pub(crate) fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let text = field.word(cx)?;
        let (name, value) = text.split_once(['=', ':']).unwrap_or((&text, ""));
        match (name, value) {
            ("no-new-privileges", "" | "true") => Some(Self::NoNewPrivileges(true)),
            ("no-new-privileges", "false") => Some(Self::NoNewPrivileges(false)),
            ("seccomp", "unconfined") => Some(Self::Seccomp(Seccomp::Unconfined)),
            ("seccomp", "builtin") => Some(Self::Seccomp(Seccomp::Builtin)),
            ("seccomp", path) if !path.is_empty() => {
                let path = cx.sources.resolve(field.node.span.file, path);
                Some(Self::Seccomp(Seccomp::File(path)))
            }
            ("apparmor", profile) if !profile.is_empty() => {
                Some(Self::AppArmor(profile.to_owned()))
            }
            ("systempaths", "unconfined") => Some(Self::SystemPathsUnconfined),
            ("label", _) => {
                field.warn(cx, "has no effect: no SELinux labels are set", "remove it");
                None
            }
            _ => {
                let remedy = "known are no-new-privileges, seccomp=FILE|unconfined|builtin, \
                              apparmor=PROFILE, systempaths=unconfined";
                field.error(cx, format!("`{text}` is not a security option"), remedy);
                None
            }
        }
    }
}

/// capabilities(7) of Linux 6.12, without `CAP_`.
const CAPABILITIES: [&str; 42] = [
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "SYSLOG",
    "WAKE_ALARM",
];

/// `cap_add` or `cap_drop`: names without `CAP_`, in upper case.
pub(super) fn read_capabilities(field: &Field<'_>, cx: &mut Findings) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for item in field.items(cx) {
        let Some(text) = item.text(cx) else { continue };
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned();
        if !CAPABILITIES.contains(&name.as_str()) {
            let remedy = suggest::remedy(&name, CAPABILITIES.into_iter(), "known are");
            item.error(cx, format!("`{text}` is not a capability"), remedy);
        } else if names.contains(&name) {
            item.error(cx, format!("`{text}` is listed twice"), "keep one of the two");
        } else {
            names.push(name);
        }
    }
    names
}
