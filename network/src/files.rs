//! `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` of a container, as pure functions.

use std::fmt::Write;
use std::net::IpAddr;

use crate::error::{Error, Result};

/// What `/etc/hosts` tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hosts<'a> {
    /// The container's host name.
    pub name: &'a str,
    /// Other names of it.
    pub aliases: &'a [String],
    /// Its addresses; loopback names it when there are none.
    pub addresses: &'a [IpAddr],
    /// Other hosts: `--add-host NAME:ADDRESS`.
    pub others: &'a [(String, IpAddr)],
}

/// The text of `/etc/hosts`, hosts(5).
pub fn hosts(wanted: &Hosts<'_>) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    for (name, address) in wanted.others {
        let _ = writeln!(text, "{address}\t{name}");
    }
    let names: Vec<&str> =
        std::iter::once(wanted.name).chain(wanted.aliases.iter().map(String::as_str)).collect();
    if wanted.addresses.is_empty() {
        let _ = writeln!(text, "127.0.1.1\t{}", names.join(" "));
    }
    for address in wanted.addresses {
        let _ = writeln!(text, "{address}\t{}", names.join(" "));
    }
    text
}

/// Reads `--add-host NAME:ADDRESS`; `host-gateway` stands for the address of the host.
pub fn parse_extra_host(text: &str, gateway: Option<IpAddr>) -> Result<(String, IpAddr)> {
    let wrong = |why| Error::invalid("extra host", text, why);
    let (name, address) = text.split_once(':').ok_or_else(|| wrong("is NAME:ADDRESS"))?;
    if !is_host_name(name) {
        return Err(wrong("begins with no host name"));
    }
    let address = match address {
        "host-gateway" => {
            gateway.ok_or_else(|| wrong("host-gateway needs a network with a gateway"))?
        }
        address => address.parse().map_err(|_| wrong("ends in no IP address"))?,
    };
    Ok((name.to_owned(), address))
}

/// What `/etc/resolv.conf` shall tell instead of what the host's does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Name servers; the host's when empty.
    pub servers: Vec<IpAddr>,
    /// Domains to search; the host's when empty.
    pub search: Vec<String>,
    /// Options; the host's when empty.
    pub options: Vec<String>,
}

/// The text of `/etc/resolv.conf`, resolv.conf(5), from the host's.
///
/// A name server at a loopback address (systemd-resolved's 127.0.0.53, a local dnsmasq) is one that
/// only the host reaches; `behind` is the file in which systemd-resolved names those that it asks
/// itself (`/run/systemd/resolve/resolv.conf`), and is used then. Without any reachable server the
/// text says so.
pub fn resolv_conf(host: &str, behind: Option<&str>, wanted: &Resolver) -> String {
    let own = read_resolver(host);
    let reachable = |servers: &[IpAddr]| -> Vec<IpAddr> {
        servers.iter().copied().filter(|server| !server.is_loopback()).collect()
    };
    let mut servers =
        if wanted.servers.is_empty() { reachable(&own.servers) } else { wanted.servers.clone() };
    if servers.is_empty() {
        servers = behind.map_or_else(Vec::new, |text| reachable(&read_resolver(text).servers));
    }
    let search = if wanted.search.is_empty() { &own.search } else { &wanted.search };
    let options = if wanted.options.is_empty() { &own.options } else { &wanted.options };
    let mut text = String::new();
    if servers.is_empty() {
        text.push_str("# the host names no server that a container reaches; use --dns ADDRESS\n");
    }
    for server in &servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    text
}

fn read_resolver(text: &str) -> Resolver {
    let mut resolver = Resolver::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or("");
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("nameserver") => {
                resolver.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()));
            }
            // The last of several counts.
            Some("search" | "domain") => resolver.search = words.map(String::from).collect(),
            Some("options") => resolver.options.extend(words.map(String::from)),
            _ => {}
        }
    }
    resolver
}

/// The text of `/etc/hostname`, hostname(5).
pub fn hostname(name: &str) -> String {
    format!("{name}\n")
}

/// RFC 1123, and what Linux takes: 1 to 64 letters, digits, '-' and '.', no '-' at an end.
pub fn is_host_name(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    name.len() <= 64 && name.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_knows_itself_and_others() {
        let addresses = ["10.1.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let others = [("db".to_owned(), "10.1.0.9".parse().unwrap())];
        let aliases = ["www".to_owned()];
        let wanted =
            Hosts { name: "web", aliases: &aliases, addresses: &addresses, others: &others };
        let text = hosts(&wanted);
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with("10.1.0.9\tdb\n10.1.0.2\tweb www\nfd00::2\tweb www\n"), "{text}");
        let alone = hosts(&Hosts { name: "web", ..Hosts::default() });
        assert!(alone.ends_with("127.0.1.1\tweb\n"), "{alone}");
    }

    #[test]
    fn servers_that_only_the_host_reaches_are_not_passed_on() {
        let stub = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan # home\n";
        let behind = "nameserver 192.0.2.53\nnameserver fd00::53\n";
        let text = resolv_conf(stub, Some(behind), &Resolver::default());
        assert_eq!(
            text,
            "nameserver 192.0.2.53\nnameserver fd00::53\nsearch lan\noptions edns0 trust-ad\n"
        );
        let none = resolv_conf(stub, None, &Resolver::default());
        assert!(none.starts_with("# the host names no server"), "{none}");
    }

    #[test]
    fn what_is_asked_for_replaces_the_hosts() {
        let host = "nameserver 192.0.2.1\nsearch a b\n";
        let wanted = Resolver {
            servers: vec!["10.0.0.53".parse().unwrap()],
            search: vec!["c".into()],
            options: vec!["ndots:1".into()],
        };
        assert_eq!(
            resolv_conf(host, None, &wanted),
            "nameserver 10.0.0.53\nsearch c\noptions ndots:1\n"
        );
        assert_eq!(
            resolv_conf(host, None, &Resolver::default()),
            "nameserver 192.0.2.1\nsearch a b\n"
        );
    }

    #[test]
    fn extra_hosts() {
        let gateway = "10.1.0.1".parse().ok();
        let read = |text| parse_extra_host(text, gateway);
        assert_eq!(read("db:fd00::9").unwrap(), ("db".into(), "fd00::9".parse().unwrap()));
        assert_eq!(read("host:host-gateway").unwrap().1, gateway.unwrap());
        for text in ["db", "db:", ":10.0.0.1", "a b:10.0.0.1", "-a:10.0.0.1", "db:x"] {
            assert!(read(text).is_err(), "{text:?}");
        }
        assert!(parse_extra_host("host:host-gateway", None).is_err());
    }
}
