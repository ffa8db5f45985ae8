//! Where a service is published: a port of the host, and what is spoken there.

use std::net::{Ipv6Addr, SocketAddr};

use linux::inet::Transport;
use serde::{Deserialize, Serialize};

use crate::door::Door;

/// A host port that leads to a port of every replica.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Publish {
    /// The address to listen at. With `among`, its port is 0 until one was found.
    pub(crate) host: SocketAddr,
    /// The ports of which any free one will do, from the first to the last; `(0, 0)` is whichever
    /// the kernel gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) among: Option<(u16, u16)>,
    /// The same port of `[::]` leads there as well: nobody has named an address.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) ipv6_too: bool,
    /// The port inside the container.
    pub(crate) port: u16,
    /// What is spoken there.
    pub(crate) protocol: Protocol,
}

/// What is spoken on a published port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Protocol {
    /// Whatever the client's first bytes say: HTTP if they are a request line, else TCP.
    Auto,
    /// HTTP/1.1 and WebSocket: requests are balanced, retried and parked.
    Http,
    /// HTTP/2 without TLS towards the replicas (gRPC).
    H2c,
    /// Bytes: connections are balanced.
    Tcp,
    /// Datagrams: clients are balanced.
    Udp,
}

impl Protocol {
    /// What carries it.
    pub(crate) fn transport(self) -> Transport {
        match self {
            Protocol::Udp => Transport::Udp,
            Protocol::Auto | Protocol::Http | Protocol::H2c | Protocol::Tcp => Transport::Tcp,
        }
    }
}

impl Publish {
    /// Where it is taken.
    pub(crate) fn door(&self) -> Door {
        Door { at: self.host, transport: self.protocol.transport() }
    }

    /// The same, by IPv4 and by IPv6, if it is both.
    pub(crate) fn families(&self) -> impl Iterator<Item = Publish> {
        let named = Publish { ipv6_too: false, ..self.clone() };
        let host = SocketAddr::from((Ipv6Addr::UNSPECIFIED, self.host.port()));
        let ipv6 = self.ipv6_too.then(|| Publish { host, ..named.clone() });
        std::iter::once(named).chain(ipv6)
    }

    /// Whether its port has still to be found.
    pub(crate) fn is_open(&self) -> bool {
        self.host.port() == 0
    }

    /// Whether what does for one does for the other, whatever port was found.
    pub(crate) fn asks_like(&self, other: &Publish) -> bool {
        let asked = |publish: &Publish| match publish.among {
            Some(_) => Publish { host: (publish.host.ip(), 0).into(), ..publish.clone() },
            None => publish.clone(),
        };
        asked(self) == asked(other)
    }

    /// Where it is published, in words.
    pub(crate) fn outside(&self) -> String {
        let of = match self.ipv6_too {
            true => String::new(),
            false => format!(" of {}", self.host.ip()),
        };
        let udp = if self.protocol == Protocol::Udp { "/udp" } else { "" };
        match self.among {
            Some((0, _)) if self.is_open() => format!("a free port{of}"),
            Some((first, last)) if self.is_open() => format!("a free port of {first}-{last}{of}"),
            _ => format!("{}{udp}", self.address()),
        }
    }

    /// Address and port, as Swarm writes them.
    fn address(&self) -> String {
        match self.ipv6_too {
            true => format!("*:{}", self.host.port()),
            false => self.host.to_string(),
        }
    }
}

impl std::fmt::Display for Publish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let udp = if self.protocol == Protocol::Udp { "/udp" } else { "" };
        write!(f, "{}->{}{udp}", self.address(), self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_is_asked_for_and_not_named() {
        let named = Publish {
            host: ([0, 0, 0, 0], 8080).into(),
            among: None,
            ipv6_too: false,
            port: 3000,
            protocol: Protocol::Auto,
        };
        let open =
            Publish { host: ([0, 0, 0, 0], 0).into(), among: Some((8000, 8010)), ..named.clone() };
        let found = Publish { host: ([0, 0, 0, 0], 8003).into(), ..open.clone() };
        assert!(open.is_open() && !found.is_open() && found.asks_like(&open));
        assert!(!named.asks_like(&open));
        assert!(!Publish { port: 1, ..found.clone() }.asks_like(&open));
        assert_eq!(open.outside(), "a free port of 8000-8010 of 0.0.0.0");
        assert_eq!(found.outside(), "0.0.0.0:8003");
    }

    #[test]
    fn without_an_address_it_is_one_port_of_both_families() {
        let both = Publish {
            host: ([0, 0, 0, 0], 53).into(),
            among: None,
            ipv6_too: true,
            port: 5353,
            protocol: Protocol::Udp,
        };
        let doors = |publish: &Publish| -> Vec<String> {
            publish.families().map(|one| one.door().to_string()).collect()
        };
        assert_eq!(doors(&both), ["0.0.0.0:53/udp", "[::]:53/udp"]);
        assert_eq!(
            (both.to_string(), both.outside()),
            ("*:53->5353/udp".into(), "*:53/udp".into())
        );
        let one = Publish { ipv6_too: false, ..both.clone() };
        assert_eq!(doors(&one), ["0.0.0.0:53/udp"]);
        assert!(!one.asks_like(&both));
        let free = Publish { among: Some((0, 0)), host: ([0, 0, 0, 0], 0).into(), ..both };
        assert_eq!(free.outside(), "a free port");
    }
}
