//! `ports`: what the balancer publishes on the host.

use std::net::IpAddr;

use serde::{Serialize, Serializer};

use super::unset;
use crate::field::{Field, Fields};
use crate::findings::Findings;
use crate::short::port_range;

/// One container port and where it is published.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PublishedPort {
    /// The port in the container.
    pub target: u16,
    /// The port of the host; one free port of a range; `None` is any free port.
    #[serde(skip_serializing_if = "unset")]
    pub published: Option<PortRange>,
    /// The address of the host; `None` is every one.
    #[serde(skip_serializing_if = "unset")]
    pub host_ip: Option<IpAddr>,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Through the balancer, or straight to the one replica.
    pub mode: PortMode,
    /// A name for people and for SRV records.
    #[serde(skip_serializing_if = "unset")]
    pub name: Option<String>,
    /// What is spoken on it, as `http`: the balancer's protocol for this port.
    #[serde(skip_serializing_if = "unset")]
    pub app_protocol: Option<String>,
}

/// Ports from `first` to `last`, often one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest; not below the first.
    pub last: u16,
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.first == self.last {
            serializer.collect_str(&self.first)
        } else {
            serializer.collect_str(&format_args!("{}-{}", self.first, self.last))
        }
    }
}

/// `protocol` of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

/// `mode` of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PortMode {
    /// The balancer listens and chooses a replica.
    Ingress,
    /// The port belongs to one replica.
    Host,
}

/// An entry of `expose`: a port that other services use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExposedPort {
    /// The port or ports in the container.
    pub range: PortRange,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl Serialize for ExposedPort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let PortRange { first, last } = self.range;
        let protocol = if self.protocol == Protocol::Tcp { "tcp" } else { "udp" };
        if first == last {
            serializer.collect_str(&format_args!("{first}/{protocol}"))
        } else {
            serializer.collect_str(&format_args!("{first}-{last}/{protocol}"))
        }
    }
}

impl ExposedPort {
    pub(crate) fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        field.parsed(cx, "a port or a range, as in `3000`, `8000-8010` or `53/udp`", |text| {
            let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
            let protocol = match protocol {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                _ => return None,
            };
            let (first, last) = port_range(range).ok()?;
            Some(Self { range: PortRange { first, last }, protocol })
        })
    }
}

impl PublishedPort {
    /// Whether both would listen on the same port of the host. A range is never in the way: a free
    /// port of it is taken.
    #[must_use]
    pub fn collides(&self, other: &Self) -> bool {
        let address = |port: &Self| port.host_ip.filter(|ip| !ip.is_unspecified());
        let meet = match (address(self), address(other)) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        let one = |port: &Self| port.published.filter(|range| range.first == range.last);
        meet && self.protocol == other.protocol && one(self).is_some() && one(self) == one(other)
    }

    pub(crate) fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let target = f.get("target", cx, |x, cx| x.number::<u16>(cx, 1, u16::MAX));
        let modes = [("ingress", PortMode::Ingress), ("host", PortMode::Host)];
        let port = Self {
            target: target.unwrap_or(0),
            published: f.get("published", cx, read_range),
            host_ip: f.get("host_ip", cx, read_ip),
            protocol: f.get("protocol", cx, read_protocol).unwrap_or(Protocol::Tcp),
            mode: f.get("mode", cx, |x, cx| x.one_of(cx, &modes)).unwrap_or(PortMode::Ingress),
            name: f.get("name", cx, Field::word),
            app_protocol: f.get("app_protocol", cx, Field::word),
        };
        let absent = field.node.as_map().is_some_and(|map| !map.contains_key("target"));
        f.close(cx);
        if absent {
            field.error(cx, "`target` is missing", "add `target:` with the port in the container");
        }
        target.map(|_| port)
    }
}

fn read_range(field: &Field<'_>, cx: &mut Findings) -> Option<PortRange> {
    let text = field.any_text(cx)?;
    // An empty text is what `"${PORT:-}:80"` leaves: any free port.
    if text.is_empty() {
        return None;
    }
    match port_range(&text) {
        Ok((first, last)) => Some(PortRange { first, last }),
        Err(message) => {
            field.error(
                cx,
                message,
                "write a port from 1 to 65535, or a range such as `8000-8009`",
            );
            None
        }
    }
}

pub(super) fn read_ip(field: &Field<'_>, cx: &mut Findings) -> Option<IpAddr> {
    field.parsed(cx, "an IP address, as in `127.0.0.1` or `::1`", |text| text.parse().ok())
}

fn read_protocol(field: &Field<'_>, cx: &mut Findings) -> Option<Protocol> {
    if field.node.as_scalar().is_some_and(|scalar| scalar.text == "sctp") {
        field.error(
            cx,
            "SCTP is not balanced here",
            "write `tcp` or `udp`, or use `network_mode: host`",
        );
        return None;
    }
    field.one_of(cx, &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)])
}
