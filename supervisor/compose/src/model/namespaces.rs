//! Which namespaces a container has to itself, and which it shares.

use serde::{Serialize, Serializer};

use crate::field::Field;
use crate::findings::Findings;

/// `network_mode`, where it is not the list of `networks`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkMode {
    /// Loopback only.
    None,
    /// The network of the host.
    Host,
    /// That of the replica of another service: the one with the same number, or else the first.
    Service(String),
}

/// `ipc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IpcMode {
    /// Its own, which others may join.
    Shareable,
    /// Its own.
    Private,
    /// That of the host.
    Host,
    /// Its own, without `/dev/shm`.
    None,
    /// That of another service.
    Service(String),
}

/// `pid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PidMode {
    /// That of the host.
    Host,
    /// That of another service.
    Service(String),
}

/// `cgroup`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupMode {
    /// Sees the cgroups of the host.
    Host,
    /// Sees its own as the root.
    Private,
}

/// What one of these keys says.
enum Word {
    Known(usize),
    Service(String),
}

/// One of some words, or `service:NAME`.
fn read(field: &Field<'_>, cx: &mut Findings, words: &[&str]) -> Option<Word> {
    let text = field.text(cx)?;
    if let Some(index) = words.iter().position(|word| *word == text) {
        return Some(Word::Known(index));
    }
    match text.split_once(':') {
        Some(("service", name)) if !name.is_empty() => Some(Word::Service(name.to_owned())),
        Some(("container", _)) => {
            field.error(
                cx,
                "containers outside the project cannot be joined",
                "write `service:NAME`",
            );
            None
        }
        _ => {
            let known: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
            let remedy = format!("write {} or `service:NAME`", known.join(", "));
            field.error(cx, format!("`{text}` is not known here"), remedy);
            None
        }
    }
}

impl NetworkMode {
    /// `None` in the outer option is a mistake, in the inner one `bridge`: the usual networks.
    pub(crate) fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        match read(field, cx, &["none", "host", "bridge"])? {
            Word::Known(0) => Some(Self::None),
            Word::Known(1) => Some(Self::Host),
            Word::Known(_) => {
                let remedy = "remove it; for a network of your own use `networks`";
                field.warn(cx, "`bridge` is the project's default network here", remedy);
                None
            }
            Word::Service(name) => Some(Self::Service(name)),
        }
    }
}

impl IpcMode {
    pub(crate) fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        Some(match read(field, cx, &["shareable", "private", "host", "none"])? {
            Word::Known(0) => Self::Shareable,
            Word::Known(1) => Self::Private,
            Word::Known(2) => Self::Host,
            Word::Known(_) => Self::None,
            Word::Service(name) => Self::Service(name),
        })
    }
}

impl PidMode {
    pub(crate) fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        match read(field, cx, &["host"])? {
            Word::Known(_) => Some(Self::Host),
            Word::Service(name) => Some(Self::Service(name)),
        }
    }
}

impl Serialize for NetworkMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_str("none"),
            Self::Host => serializer.serialize_str("host"),
            Self::Service(name) => serializer.collect_str(&format_args!("service:{name}")),
        }
    }
}

impl Serialize for IpcMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Shareable => serializer.serialize_str("shareable"),
            Self::Private => serializer.serialize_str("private"),
            Self::Host => serializer.serialize_str("host"),
            Self::None => serializer.serialize_str("none"),
            Self::Service(name) => serializer.collect_str(&format_args!("service:{name}")),
        }
    }
}

impl Serialize for PidMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Host => serializer.serialize_str("host"),
            Self::Service(name) => serializer.collect_str(&format_args!("service:{name}")),
        }
    }
}
