//! `[[IP:]HOST:]CONTAINER[/PROTOCOL]`, with ranges, to one long entry per container port.

use crate::findings::Findings;
use crate::limits;
use crate::yaml::{Node, Value};

const FORM: &str = "write `[[IP:]HOST:]CONTAINER[/PROTOCOL]`, as in `8080:3000`, \
                    `127.0.0.1:8000-8003:80-83` or `53:53/udp`";

pub(super) fn expand(item: Node, path: &str, findings: &mut Findings) -> Vec<Node> {
    let Some(scalar) = item.as_scalar().filter(|scalar| !scalar.is_null()) else {
        return vec![item];
    };
    if findings.ports > limits::PORTS {
        // Said once; the rest is not even split, for that is what takes the time.
        return Vec::new();
    }
    match split(&scalar.text) {
        Ok(ports) if findings.ports + ports.len() > limits::PORTS => {
            let message = format!("the project has more than {} ports", limits::PORTS);
            findings.error(item.span, path, message, "publish fewer, or use the host's network");
            findings.ports = usize::MAX;
            Vec::new()
        }
        Ok(ports) => {
            findings.ports += ports.len();
            ports.into_iter().map(|port| port.into_node(&item)).collect()
        }
        Err(message) => {
            findings.error(item.span, path, message, FORM);
            Vec::new()
        }
    }
}

/// One container port and what is published for it.
#[derive(Debug, PartialEq, Eq)]
struct Short {
    host_ip: Option<String>,
    published: Option<String>,
    target: u16,
    protocol: String,
}

impl Short {
    fn into_node(self, item: &Node) -> Node {
        let mut node = super::mapping(
            item,
            [
                ("target", item.text_here(self.target.to_string())),
                ("protocol", item.text_here(self.protocol)),
                ("mode", item.text_here("ingress")),
            ],
        );
        if let Value::Mapping(map) = &mut node.value {
            let optional = [("host_ip", self.host_ip), ("published", self.published)];
            for (key, text) in optional.into_iter().filter_map(|(k, v)| Some((k, v?))) {
                let node = item.text_here(text);
                map.insert(key.to_owned(), crate::yaml::Entry { key: item.span, node });
            }
        }
        node
    }
}

fn split(text: &str) -> Result<Vec<Short>, String> {
    let (text, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (rest, target) = match text.rsplit_once(':') {
        Some((rest, target)) => (Some(rest), target),
        None => (None, text),
    };
    let (host_ip, published) = match rest {
        None => (None, ""),
        Some(rest) => match rest.rsplit_once(':') {
            Some((ip, published)) => (Some(unbracket(ip)?.to_owned()), published),
            None => (None, rest),
        },
    };
    let targets = range(target)?;
    let published = if published.is_empty() { None } else { Some(range(published)?) };
    let short = |target, published: Option<String>| Short {
        host_ip: host_ip.clone(),
        published,
        target,
        protocol: protocol.to_owned(),
    };
    let count = |(first, last): (u16, u16)| last - first;
    match published {
        None => Ok((targets.0..=targets.1).map(|target| short(target, None)).collect()),
        Some(host) if count(host) == count(targets) => Ok((targets.0..=targets.1)
            .zip(host.0..=host.1)
            .map(|(target, host)| short(target, Some(host.to_string())))
            .collect()),
        // One free port of the range is taken.
        Some(host) if count(targets) == 0 => {
            Ok(vec![short(targets.0, Some(format!("{}-{}", host.0, host.1)))])
        }
        Some(host) => Err(format!(
            "{} host ports cannot be given to {} container ports",
            u32::from(count(host)) + 1,
            u32::from(count(targets)) + 1
        )),
    }
}

fn unbracket(ip: &str) -> Result<&str, String> {
    let inner = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
    let ip = inner.unwrap_or(ip);
    match ip.parse::<std::net::IpAddr>() {
        Ok(address) if address.is_ipv6() && inner.is_none() => {
            Err(format!("the IPv6 address `{ip}` must be in brackets"))
        }
        Ok(_) => Ok(ip),
        Err(_) => Err(format!("`{ip}` is not an IP address")),
    }
}

/// `80` or `80-89`.
pub(crate) fn range(text: &str) -> Result<(u16, u16), String> {
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 && !text.starts_with('+') => Ok(port),
        _ => Err(format!("`{text}` is not a port from 1 to 65535")),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if last < first {
        return Err(format!("the range `{text}` ends before it begins"));
    }
    if last - first >= limits::PORT_RANGE {
        return Err(format!("the range `{text}` has more than {} ports", limits::PORT_RANGE));
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        let show = |p: Short| {
            let ip = p.host_ip.map_or(String::new(), |ip| format!("{ip}|"));
            format!("{ip}{}>{}/{}", p.published.unwrap_or_default(), p.target, p.protocol)
        };
        match split(text) {
            Ok(ports) => ports.into_iter().map(show).collect::<Vec<_>>().join(" "),
            Err(message) => message,
        }
    }

    #[test]
    fn every_form() {
        let cases = [
            ("3000", ">3000/tcp"),
            ("3000-3002", ">3000/tcp >3001/tcp >3002/tcp"),
            ("8080:80", "8080>80/tcp"),
            ("8080-8081:80-81/udp", "8080>80/udp 8081>81/udp"),
            ("8000-8009:80", "8000-8009>80/tcp"),
            ("127.0.0.1:8080:80", "127.0.0.1|8080>80/tcp"),
            ("127.0.0.1::80", "127.0.0.1|>80/tcp"),
            ("[::1]:8080:80", "::1|8080>80/tcp"),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("x", "`x` is not a port"),
            ("0", "`0` is not a port"),
            ("65536:1", "`65536` is not a port"),
            ("+80", "`+80` is not a port"),
            ("::1:80:80", "must be in brackets"),
            ("host:80:80", "`host` is not an IP address"),
            ("9-8:80", "ends before"),
            ("1-65535", "more than 1000 ports"),
            ("80-82:80-81", "3 host ports cannot be given to 2"),
            ("", "`` is not a port"),
        ];
        for (text, expected) in cases {
            assert!(read(text).contains(expected), "{text}: {}", read(text));
        }
    }
}
