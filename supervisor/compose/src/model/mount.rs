//! What a container sees beside its image: volumes, host paths, tmpfs, secrets, configs, devices.

use std::path::PathBuf;

use serde::Serialize;

use super::unset;
use crate::field::{Field, Fields};
use crate::findings::Findings;
use crate::quantity::{Bytes, FileMode};

/// An entry of `volumes` of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// What is mounted.
    #[serde(flatten)]
    pub kind: MountKind,
    /// Where in the container; absolute.
    pub target: String,
    /// Without writing.
    #[serde(skip_serializing_if = "unset")]
    pub read_only: bool,
}

/// `type` of a mount, and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum MountKind {
    /// A path of the host.
    Bind {
        /// Absolute.
        source: PathBuf,
        /// How.
        bind: BindOptions,
    },
    /// A volume.
    Volume {
        /// Its key in the top-level `volumes`; `None` is a nameless one that lives as long as the
        /// replica.
        #[serde(skip_serializing_if = "unset")]
        source: Option<String>,
        /// How.
        #[serde(skip_serializing_if = "unset")]
        volume: VolumeOptions,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// How.
        #[serde(skip_serializing_if = "unset")]
        tmpfs: TmpfsOptions,
    },
}

/// `bind` of a mount.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct BindOptions {
    /// Make the directory on the host when it is missing. The short form does, the long asks.
    pub create_host_path: bool,
    /// Which mounts pass between host and container. Default `rprivate`.
    #[serde(skip_serializing_if = "unset")]
    pub propagation: Option<Propagation>,
    /// Whether mounts below the path come along.
    #[serde(skip_serializing_if = "unset")]
    pub recursive: Recursive,
}

/// Mount propagation, mount_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names of mount_namespaces(7)")]
pub enum Propagation {
    Shared,
    Slave,
    Private,
    Rshared,
    Rslave,
    Rprivate,
}

/// `bind.recursive`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Recursive {
    /// Mounts below come along; a read-only mount makes them read-only where the kernel can.
    #[default]
    Enabled,
    /// Mounts below stay away.
    Disabled,
    /// Mounts below come along and stay writable.
    Writable,
    /// Mounts below come along and must be read-only.
    Readonly,
}

/// `volume` of a mount.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct VolumeOptions {
    /// Do not fill a new volume with what the image has at the target.
    #[serde(skip_serializing_if = "unset")]
    pub nocopy: bool,
    /// Mount this directory of the volume; relative.
    #[serde(skip_serializing_if = "unset")]
    pub subpath: Option<String>,
}

/// `tmpfs` of a mount.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct TmpfsOptions {
    /// Most bytes; `None` is half of the host's memory, as the kernel has it.
    #[serde(skip_serializing_if = "unset")]
    pub size: Option<Bytes>,
    /// Permissions of its root.
    #[serde(skip_serializing_if = "unset")]
    pub mode: Option<FileMode>,
}

/// An entry of `tmpfs` of a service: `/run:size=64m,mode=1777`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// Where in the container; absolute.
    pub target: String,
    /// Options of tmpfs(5) and flags of mount(8), checked.
    pub options: Vec<String>,
}

/// A secret or config that a service gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Grant {
    /// Its key in the top-level `secrets` or `configs`.
    pub source: String,
    /// The file in the container; absolute.
    pub target: String,
    /// Owner of the file.
    #[serde(skip_serializing_if = "unset")]
    pub uid: Option<String>,
    /// Group of the file.
    #[serde(skip_serializing_if = "unset")]
    pub gid: Option<String>,
    /// Permissions of the file.
    #[serde(skip_serializing_if = "unset")]
    pub mode: Option<FileMode>,
}

/// A device file of the host in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// On the host; absolute.
    pub source: PathBuf,
    /// In the container; absolute.
    pub target: String,
    /// Some of `r`, `w` and `m`.
    pub permissions: String,
}

impl Serialize for Tmpfs {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.options.is_empty() {
            serializer.serialize_str(&self.target)
        } else {
            serializer.collect_str(&format_args!("{}:{}", self.target, self.options.join(",")))
        }
    }
}

/// A path in the container.
fn absolute(field: &Field<'_>, cx: &mut Findings) -> Option<String> {
    let path = field.word(cx)?;
    if path.starts_with('/') {
        return Some(path);
    }
    let remedy = "write a path in the container that begins with `/`";
    field.error(cx, format!("`{path}` is not an absolute path"), remedy);
    None
}

/// A path of the host, relative to the directory of its file; `~` is the home directory.
pub(super) fn host_path(field: &Field<'_>, cx: &mut Findings) -> Option<PathBuf> {
    let text = field.word(cx)?;
    let file = field.node.span.file;
    if text == "~" || text.starts_with("~/") {
        let Some(home) = cx.sources.get(file).variables.get("HOME") else {
            field.error(
                cx,
                "`~` is not known: the variable HOME is not set",
                "write the whole path",
            );
            return None;
        };
        return Some(crate::source::join(
            home.as_ref(),
            text[1..].trim_start_matches('/').as_ref(),
        ));
    }
    Some(cx.sources.resolve(file, &text))
}

impl Mount {
    pub(crate) fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let kind = f.take("type", cx);
        let source = f.take("source", cx);
        let target = f.take("target", cx);
        let read_only = f.get("read_only", cx, Field::boolean).unwrap_or(false);
        let bind = f.get("bind", cx, read_bind);
        let volume = f.get("volume", cx, read_volume);
        let tmpfs = f.get("tmpfs", cx, read_tmpfs);
        let form = "write `type: bind`, `volume` or `tmpfs`, `target:`, and for a bind `source:`";
        let word = kind.as_ref().and_then(|kind| kind.text(cx));
        let kind = match (word.as_deref(), &source) {
            (Some("bind"), Some(source)) => host_path(source, cx)
                .map(|source| MountKind::Bind { source, bind: bind.clone().unwrap_or_default() }),
            (Some("volume"), source) => Some(MountKind::Volume {
                source: source.as_ref().and_then(|source| source.word(cx)),
                volume: volume.clone().unwrap_or_default(),
            }),
            (Some("tmpfs"), None) => {
                Some(MountKind::Tmpfs { tmpfs: tmpfs.clone().unwrap_or_default() })
            }
            (Some("bind"), None) => {
                field.error(cx, "a bind mount needs its `source`", form);
                None
            }
            (Some("tmpfs"), Some(source)) => {
                source.error(cx, "a tmpfs has no source", "remove it");
                None
            }
            (Some(other), _) => {
                if let Some(kind) = &kind {
                    let message = format!("mounts of type `{other}` are not supported");
                    kind.error(cx, message, form);
                }
                None
            }
            (None, _) => {
                if kind.is_none() {
                    field.error(cx, "`type` is missing", form);
                }
                None
            }
        };
        if target.is_none() {
            field.error(cx, "`target` is missing", form);
        }
        let given =
            [("bind", bind.is_some()), ("volume", volume.is_some()), ("tmpfs", tmpfs.is_some())];
        for (name, _) in given.iter().filter(|(name, set)| *set && word.as_deref() != Some(name)) {
            field.error(
                cx,
                format!("`{name}` belongs to `type: {name}`"),
                "remove it, or change the type",
            );
        }
        f.close(cx);
        let target = target.and_then(|target| absolute(&target, cx));
        Some(Self { kind: kind?, target: target?, read_only })
    }
}

fn read_bind(field: &Field<'_>, cx: &mut Findings) -> Option<BindOptions> {
    let mut f = Fields::open(field, cx);
    let propagations = [
        ("shared", Propagation::Shared),
        ("slave", Propagation::Slave),
        ("private", Propagation::Private),
        ("rshared", Propagation::Rshared),
        ("rslave", Propagation::Rslave),
        ("rprivate", Propagation::Rprivate),
    ];
    let recursives = [
        ("enabled", Recursive::Enabled),
        ("disabled", Recursive::Disabled),
        ("writable", Recursive::Writable),
        ("readonly", Recursive::Readonly),
    ];
    let options = BindOptions {
        create_host_path: f.get("create_host_path", cx, Field::boolean).unwrap_or(false),
        propagation: f.get("propagation", cx, |x, cx| x.one_of(cx, &propagations)),
        recursive: f.get("recursive", cx, |x, cx| x.one_of(cx, &recursives)).unwrap_or_default(),
    };
    f.close(cx);
    Some(options)
}

fn read_volume(field: &Field<'_>, cx: &mut Findings) -> Option<VolumeOptions> {
    let mut f = Fields::open(field, cx);
    let subpath = |field: &Field<'_>, cx: &mut Findings| {
        let path = field.word(cx)?;
        if path.starts_with('/') || path.split('/').any(|part| part == "..") {
            field.error(cx, "must stay inside the volume", "write a relative path without `..`");
            return None;
        }
        Some(path)
    };
    let options = VolumeOptions {
        nocopy: f.get("nocopy", cx, Field::boolean).unwrap_or(false),
        subpath: f.get("subpath", cx, subpath),
    };
    f.close(cx);
    Some(options)
}

fn read_tmpfs(field: &Field<'_>, cx: &mut Findings) -> Option<TmpfsOptions> {
    let mut f = Fields::open(field, cx);
    let options = TmpfsOptions {
        size: f.get("size", cx, Field::bytes),
        mode: f.get("mode", cx, Field::mode),
    };
    f.close(cx);
    Some(options)
}

impl Tmpfs {
    pub(crate) fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let text = field.word(cx)?;
        let (target, options) = text.split_once(':').unwrap_or((&text, ""));
        if !target.starts_with('/') {
            let remedy = "write `PATH[:OPTIONS]`, as in `/run:size=64m,mode=1777`";
            field.error(cx, format!("`{target}` is not an absolute path"), remedy);
            return None;
        }
        let mut checked = Vec::new();
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let good = match name {
                "size" => Bytes::parse(value).is_some() || is_share(value),
                "mode" => FileMode::parse(value).is_some(),
                "uid" | "gid" | "nr_inodes" | "nr_blocks" => value.parse::<u64>().is_ok(),
                "ro" | "rw" | "exec" | "noexec" | "suid" | "nosuid" | "dev" | "nodev" | "sync"
                | "async" | "atime" | "noatime" => value.is_empty(),
                _ => false,
            };
            if good {
                checked.push(option.to_owned());
            } else {
                let remedy =
                    "known are size=, mode=, uid=, gid=, nr_inodes=, ro, noexec, nosuid, nodev";
                field.error(cx, format!("`{option}` is not an option of a tmpfs"), remedy);
            }
        }
        Some(Self { target: target.to_owned(), options: checked })
    }
}

fn is_share(text: &str) -> bool {
    text.strip_suffix('%').and_then(|n| n.parse::<u8>().ok()).is_some_and(|n| n <= 100)
}

impl Grant {
    /// `below` is the directory that a relative target is in.
    pub(crate) fn read(field: &Field<'_>, cx: &mut Findings, below: &str) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let source = f.get("source", cx, Field::word);
        let target = f.get("target", cx, Field::word);
        let id = |field: &Field<'_>, cx: &mut Findings| {
            field.parsed(cx, "a number, as in `\"1000\"`", |text| {
                text.parse::<u32>().ok().map(|id| id.to_string())
            })
        };
        let (uid, gid) = (f.get("uid", cx, id), f.get("gid", cx, id));
        let mode = f.get("mode", cx, Field::mode);
        f.close(cx);
        let Some(source) = source else {
            if field.node.get("source").is_none() {
                field.error(cx, "`source` is missing", "write the name of the secret or config");
            }
            return None;
        };
        let target = target.unwrap_or_else(|| source.clone());
        let target = if target.starts_with('/') { target } else { format!("{below}/{target}") };
        Some(Self { source, target, uid, gid, mode })
    }
}

impl Device {
    pub(crate) fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let source = f.take("source", cx);
        let target = f.get("target", cx, absolute);
        let access = |field: &Field<'_>, cx: &mut Findings| {
            field.parsed(cx, "some of `r`, `w` and `m`, as in `rw`", access_letters)
        };
        let permissions = f.get("permissions", cx, access).unwrap_or_else(|| "rwm".into());
        f.close(cx);
        let Some(source) = source else {
            field.error(cx, "`source` is missing", "write the device file of the host");
            return None;
        };
        let text = source.word(cx)?;
        if !text.starts_with('/') {
            let remedy =
                "write a device file, as in `/dev/ttyUSB0`; named devices (CDI) are not known here";
            source.error(cx, format!("`{text}` is not an absolute path"), remedy);
            return None;
        }
        let target = target.unwrap_or_else(|| text.clone());
        Some(Self { source: text.into(), target, permissions })
    }
}

/// Letters of `rwm`, each once, in this order.
pub(super) fn access_letters(text: &str) -> Option<String> {
    let sorted: String = "rwm".chars().filter(|c| text.contains(*c)).collect();
    (!text.is_empty() && sorted.len() == text.len()).then_some(sorted)
}
