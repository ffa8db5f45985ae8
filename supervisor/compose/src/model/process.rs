//! Limits and surroundings of the container's process.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use super::mount::access_letters;
use super::unset;
use crate::field::{Field, Fields};
use crate::findings::Findings;
use crate::quantity::Bytes;
use crate::suggest;

/// A limit of setrlimit(2); -1 is without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ulimit {
    /// What is enforced.
    pub soft: i64,
    /// How far the process may raise it.
    pub hard: i64,
}

const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

pub(super) fn read_ulimits(field: &Field<'_>, cx: &mut Findings) -> BTreeMap<String, Ulimit> {
    let mut ulimits = BTreeMap::new();
    for (name, field) in field.named(cx) {
        if !ULIMITS.contains(&name) {
            let remedy = suggest::remedy(name, ULIMITS.into_iter(), "known are");
            field.error(cx, format!("`{name}` is not a limit"), remedy);
            continue;
        }
        let mut f = Fields::open(&field, cx);
        let soft = f.get("soft", cx, |x, cx| x.number(cx, -1, i64::MAX));
        let hard = f.get("hard", cx, |x, cx| x.number(cx, -1, i64::MAX));
        let missing = ["soft", "hard"].into_iter().find(|key| f.map_keys(&[key]).is_none());
        f.close(cx);
        if let Some(key) = missing {
            field.error(
                cx,
                format!("`{key}` is missing"),
                "write `soft` and `hard`, or one number for both",
            );
        }
        let (Some(soft), Some(hard)) = (soft, hard) else { continue };
        if hard != -1 && (soft == -1 || soft > hard) {
            let message = "the soft limit is above the hard one";
            field.error(cx, message, "lower `soft`, or raise `hard`");
        }
        ulimits.insert(name.to_owned(), Ulimit { soft, hard });
    }
    ulimits
}

/// `memswap_limit`: memory and swap together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// -1: as much as the host has.
    Unlimited,
    /// So much in all.
    Limit(Bytes),
}

impl Serialize for Swap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unlimited => serializer.serialize_str("-1"),
            Self::Limit(bytes) => serializer.collect_str(bytes),
        }
    }
}

impl Swap {
    pub(crate) fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        field.parsed(cx, "bytes of memory and swap together, or -1", |text| match text {
            "-1" => Some(Self::Unlimited),
            _ => Bytes::parse(text).map(Self::Limit),
        })
    }
}

/// An entry of `device_cgroup_rules`: `c 1:* rwm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// `a`, `b` or `c`.
    pub kind: char,
    /// `None` is every number.
    pub major: Option<u32>,
    /// `None` is every number.
    pub minor: Option<u32>,
    /// Some of `r`, `w` and `m`.
    pub access: String,
}

impl Serialize for DeviceRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        let (major, minor) = (number(self.major), number(self.minor));
        serializer.collect_str(&format_args!("{} {major}:{minor} {}", self.kind, self.access))
    }
}

impl DeviceRule {
    pub(crate) fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        field.parsed(cx, "`TYPE MAJOR:MINOR ACCESS`, as in `c 1:3 rwm` or `b 8:* r`", |text| {
            let mut words = text.split(' ').filter(|word| !word.is_empty());
            let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
            let kind = kind.chars().next().filter(|c| kind.len() == 1 && "abc".contains(*c))?;
            let number = |text: &str| match text {
                "*" => Some(None),
                _ => text.parse::<u32>().ok().map(Some),
            };
            let (major, minor) = numbers.split_once(':')?;
            let rule = Self {
                kind,
                major: number(major)?,
                minor: number(minor)?,
                access: access_letters(access)?,
            };
            words.next().is_none().then_some(rule)
        })
    }
}

/// An address in `extra_hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostAddress {
    /// Fixed.
    Ip(IpAddr),
    /// `host-gateway`: the host, as the container reaches it.
    Gateway,
}

impl Serialize for HostAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Ip(ip) => serializer.collect_str(ip),
            Self::Gateway => serializer.serialize_str("host-gateway"),
        }
    }
}

pub(super) fn read_hosts(
    field: &Field<'_>,
    cx: &mut Findings,
) -> BTreeMap<String, Vec<HostAddress>> {
    let mut hosts = BTreeMap::new();
    for (name, field) in field.named(cx) {
        let address = |item: &Field<'_>, cx: &mut Findings| {
            item.parsed(cx, "an IP address, or `host-gateway`", |text| {
                let ip = text.trim_start_matches('[').trim_end_matches(']');
                match text {
                    "host-gateway" => Some(HostAddress::Gateway),
                    _ => ip.parse().ok().map(HostAddress::Ip),
                }
            })
        };
        let addresses = field.items(cx).iter().filter_map(|item| address(item, cx)).collect();
        hosts.insert(name.to_owned(), addresses);
    }
    hosts
}

/// An entry of `post_start` or `pre_stop`: a command run in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hook {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// `None` is the user of the service.
    #[serde(skip_serializing_if = "unset")]
    pub user: Option<String>,
    /// With all capabilities.
    #[serde(skip_serializing_if = "unset")]
    pub privileged: bool,
    /// `None` is that of the service.
    #[serde(skip_serializing_if = "unset")]
    pub working_dir: Option<String>,
    /// Added to that of the service.
    #[serde(skip_serializing_if = "unset")]
    pub environment: BTreeMap<String, String>,
}

impl Hook {
    pub(crate) fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let hook = Self {
            command: f.list("command", cx, Field::texts),
            user: f.get("user", cx, Field::word),
            privileged: f.get("privileged", cx, Field::boolean).unwrap_or(false),
            working_dir: f.get("working_dir", cx, Field::word),
            environment: f.list("environment", cx, Field::pairs),
        };
        f.close(cx);
        if hook.command.is_empty() {
            field.error(cx, "the hook has no command", "write `command: [PROGRAM, …]`");
            return None;
        }
        Some(hook)
    }
}

/// `blkio_config`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct BlkioConfig {
    /// Share of the bandwidth, 10 to 1000.
    #[serde(skip_serializing_if = "unset")]
    pub weight: Option<u16>,
    /// The same for one device.
    #[serde(skip_serializing_if = "unset")]
    pub weight_device: Vec<BlkioWeight>,
    /// Bytes read in a second.
    #[serde(skip_serializing_if = "unset")]
    pub device_read_bps: Vec<BlkioRate>,
    /// Reads in a second.
    #[serde(skip_serializing_if = "unset")]
    pub device_read_iops: Vec<BlkioRate>,
    /// Bytes written in a second.
    #[serde(skip_serializing_if = "unset")]
    pub device_write_bps: Vec<BlkioRate>,
    /// Writes in a second.
    #[serde(skip_serializing_if = "unset")]
    pub device_write_iops: Vec<BlkioRate>,
}

/// A rate for one block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlkioRate {
    /// The device file on the host.
    pub path: PathBuf,
    /// Bytes or operations in a second.
    pub rate: u64,
}

/// A share for one block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlkioWeight {
    /// The device file on the host.
    pub path: PathBuf,
    /// 10 to 1000.
    pub weight: u16,
}

impl BlkioConfig {
    pub(crate) fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let bps =
            |x: &Field<'_>, cx: &mut Findings| read_rates(x, cx, |x, cx| Some(x.bytes(cx)?.0));
        let iops =
            |x: &Field<'_>, cx: &mut Findings| read_rates(x, cx, |x, cx| x.number(cx, 1, u64::MAX));
        let config = Self {
            weight: f.get("weight", cx, |x, cx| x.number(cx, 10, 1000)),
            weight_device: f.list("weight_device", cx, |x, cx| {
                let entries = read_rates(x, cx, |x, cx| x.number(cx, 10, 1000));
                let weight = |entry: BlkioRate| BlkioWeight {
                    path: entry.path,
                    weight: u16::try_from(entry.rate).unwrap_or(1000),
                };
                entries.into_iter().map(weight).collect()
            }),
            device_read_bps: f.list("device_read_bps", cx, bps),
            device_read_iops: f.list("device_read_iops", cx, iops),
            device_write_bps: f.list("device_write_bps", cx, bps),
            device_write_iops: f.list("device_write_iops", cx, iops),
        };
        f.close(cx);
        Some(config)
    }
}

fn read_rates(
    field: &Field<'_>,
    cx: &mut Findings,
    read: impl Fn(&Field<'_>, &mut Findings) -> Option<u64>,
) -> Vec<BlkioRate> {
    let key = if field.path.pattern.ends_with("weight_device") { "weight" } else { "rate" };
    let mut rates = Vec::new();
    for item in field.items(cx) {
        let mut f = Fields::open(&item, cx);
        let path = f.get("path", cx, Field::word);
        let rate = f.get(key, cx, &read);
        if f.map_keys(&["path"]).is_none() || f.map_keys(&[key]).is_none() {
            item.error(
                cx,
                format!("`path` or `{key}` is missing"),
                format!("write `path: /dev/sda` and `{key}:`"),
            );
        }
        f.close(cx);
        if let (Some(path), Some(rate)) = (path, rate) {
            rates.push(BlkioRate { path: path.into(), rate });
        }
    }
    rates
}

/// The signals of signal(7) by name.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// A signal by name or number, as `SIGTERM`, `term`, `15`, `SIGRTMIN+3`.
pub(crate) fn read_signal(field: &Field<'_>, cx: &mut Findings) -> Option<String> {
    let text = field.any_text(cx)?;
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let realtime = name.strip_prefix("RTMIN").map(|rest| {
        rest.is_empty()
            || rest.strip_prefix('+').and_then(|n| n.parse::<u8>().ok()).is_some_and(|n| n <= 30)
    });
    if let Ok(number @ 1..=64) = text.parse::<usize>() {
        let name = SIGNALS.get(number - 1).map(|name| format!("SIG{name}"));
        return Some(name.unwrap_or_else(|| number.to_string()));
    }
    if SIGNALS.contains(&name) || realtime == Some(true) {
        return Some(format!("SIG{name}"));
    }
    let remedy = suggest::remedy(name, SIGNALS.into_iter(), "known are");
    field.error(cx, format!("`{text}` is not a signal"), remedy);
    None
}
