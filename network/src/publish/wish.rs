//! `-p [IP:][HOST:]CONTAINER[/tcp|udp]`, with ranges: what people write and what it means.

use std::net::IpAddr;

use linux::inet::Transport;

use crate::error::{Error, Result};

/// A port of the host that shall lead to a port of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publication {
    /// The host's address; all of them when absent.
    pub ip: Option<IpAddr>,
    /// The host's port.
    pub host: HostPort,
    /// The container's port.
    pub container: u16,
    /// TCP or UDP.
    pub transport: Transport,
}

/// The host's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPort {
    /// One that the kernel chooses.
    Any,
    /// This one.
    Exactly(u16),
    /// The first of these that is free.
    FirstFree(u16, u16),
}

/// Reads one `-p`. A range of the host and one of the container of the same length are joined pair
/// by pair; a range of the host for one port of the container means "one of these".
pub fn parse(text: &str) -> Result<Vec<Publication>> {
    let wrong = |why: &str| Error::invalid("published port", text, why);
    let (ports, transport) = match text.rsplit_once('/') {
        None => (text, Transport::Tcp),
        Some((ports, "tcp")) => (ports, Transport::Tcp),
        Some((ports, "udp")) => (ports, Transport::Udp),
        Some((_, other)) => {
            return Err(wrong(&format!("protocol {other:?} is not supported; use tcp or udp")));
        }
    };
    let (ip, ports) = split_address(ports).map_err(wrong)?;
    let (host, container) = match ports.split_once(':') {
        Some((host, container)) => (host, container),
        None if ip.is_some() => {
            return Err(wrong("an address is followed by two ports: IP:HOST:CONTAINER"));
        }
        None => ("", ports),
    };
    let container = range(container).map_err(wrong)?;
    let length = container.1 - container.0;
    let publication =
        |offset, host| Publication { ip, host, container: container.0 + offset, transport };
    if host.is_empty() || host == "0" {
        return Ok((0..=length).map(|offset| publication(offset, HostPort::Any)).collect());
    }
    let host = range(host).map_err(wrong)?;
    match host.1 - host.0 {
        0 if length == 0 => Ok(vec![publication(0, HostPort::Exactly(host.0))]),
        same if same == length => Ok((0..=length)
            .map(|offset| publication(offset, HostPort::Exactly(host.0 + offset)))
            .collect()),
        _ if length == 0 => Ok(vec![publication(0, HostPort::FirstFree(host.0, host.1))]),
        _ => Err(wrong("the two ranges have different lengths")),
    }
}

/// The address in front, and what follows its colon.
fn split_address(text: &str) -> std::result::Result<(Option<IpAddr>, &str), &'static str> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, ports) = rest.split_once("]:").ok_or("'[' without ']:'")?;
        let address: std::net::Ipv6Addr =
            address.parse().map_err(|_| "what is in brackets is no IPv6 address")?;
        return Ok((Some(address.into()), ports));
    }
    match text.matches(':').count() {
        0 | 1 => Ok((None, text)),
        2 => {
            let (address, ports) = text.split_once(':').unwrap_or(("", text));
            if address.is_empty() {
                return Ok((None, ports));
            }
            let address = address.parse().map_err(|_| "what comes first is no IP address")?;
            Ok((Some(IpAddr::V4(address)), ports))
        }
        _ => Err("too many colons; an IPv6 address is written in brackets"),
    }
}

fn range(text: &str) -> std::result::Result<(u16, u16), &'static str> {
    const WHY: &str = "a port is a number from 1 to 65535, a range is FIRST-LAST";
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        _ => Err(WHY),
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    if first > last { Err("the range is backwards") } else { Ok((first, last)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use HostPort::{Any, Exactly, FirstFree};

    fn one(ip: Option<&str>, host: HostPort, container: u16) -> Publication {
        let ip = ip.map(|ip| ip.parse().unwrap());
        Publication { ip, host, container, transport: Transport::Tcp }
    }

    #[test]
    fn every_form_is_understood() {
        let udp = |publication| Publication { transport: Transport::Udp, ..publication };
        for (text, expected) in [
            ("8080:3000", vec![one(None, Exactly(8080), 3000)]),
            ("3000", vec![one(None, Any, 3000)]),
            ("0:3000", vec![one(None, Any, 3000)]),
            (":3000/udp", vec![udp(one(None, Any, 3000))]),
            ("127.0.0.1:80:81/tcp", vec![one(Some("127.0.0.1"), Exactly(80), 81)]),
            ("127.0.0.1::81", vec![one(Some("127.0.0.1"), Any, 81)]),
            ("[::1]:80:81", vec![one(Some("::1"), Exactly(80), 81)]),
            ("80-81:90-91", vec![one(None, Exactly(80), 90), one(None, Exactly(81), 91)]),
            ("80-89:90", vec![one(None, FirstFree(80, 89), 90)]),
            ("90-91", vec![one(None, Any, 90), one(None, Any, 91)]),
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_its_text() {
        for text in [
            "",
            ":",
            "0",
            "65536:1",
            "80:+80",
            "81-80:1",
            "80-82:90-91",
            "x:80",
            "80:80/sctp",
            "::1:80:80",
            "[::1]80:80",
            "[1.2.3.4]:80:80",
            "1.2.3.4.5:80:80",
            "[::1]:80",
        ] {
            match parse(text) {
                Err(Error::Invalid { value, .. }) => assert_eq!(value, text),
                other => panic!("{text:?} gave {other:?}"),
            }
        }
    }
}
