//! The PROXY protocol: whose connection this is, said before its first byte.
//!
//! Both versions of haproxy.org's proxy-protocol.txt, in both directions. Pure.

use std::net::{IpAddr, SocketAddr};

use crate::balance::ProxyVersion;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its end.
const LINE: usize = 107;
/// The longest header of version 2 that is read; extensions rarely need more.
const LONGEST: usize = 4096;

/// What the beginning of a connection says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    /// So many bytes say who it is; `None` is the one who connects, as with health checks.
    Client(usize, Option<SocketAddr>),
    /// There is more to come.
    More,
    /// It is not the PROXY protocol.
    Nonsense,
}

/// The header for a connection.
pub(crate) fn write(version: ProxyVersion, client: SocketAddr, at: SocketAddr) -> Vec<u8> {
    let (from, to) = (client.ip().to_canonical(), at.ip().to_canonical());
    // Both addresses are of one family in either version.
    let to = match (from, to) {
        (IpAddr::V4(_), IpAddr::V6(_)) => IpAddr::from([127, 0, 0, 1]),
        (IpAddr::V6(_), IpAddr::V4(to)) => IpAddr::from(to.to_ipv6_mapped()),
        (_, to) => to,
    };
    let ports = (client.port(), at.port());
    match version {
        ProxyVersion::V1 => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {from} {to} {} {}\r\n", ports.0, ports.1).into_bytes()
        }
        ProxyVersion::V2 => {
            let mut out = SIGNATURE.to_vec();
            let (family, length) = if from.is_ipv4() { (0x11, 12u16) } else { (0x21, 36) };
            out.extend_from_slice(&[0x21, family]);
            out.extend_from_slice(&length.to_be_bytes());
            for address in [from, to] {
                match address {
                    IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
                    IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
                }
            }
            out.extend_from_slice(&ports.0.to_be_bytes());
            out.extend_from_slice(&ports.1.to_be_bytes());
            out
        }
    }
}

/// Reads the header of a connection, of either version.
pub(crate) fn read(bytes: &[u8]) -> Said {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(a, b)| a == b);
    if begins(b"PROXY ") && !bytes.is_empty() {
        return read_line(bytes);
    }
    if !begins(SIGNATURE) || bytes.is_empty() {
        return if bytes.is_empty() { Said::More } else { Said::Nonsense };
    }
    let Some([version, family, high, low]) = bytes.get(12..16) else { return Said::More };
    let length = 16 + usize::from(u16::from_be_bytes([*high, *low]));
    if length > LONGEST || version >> 4 != 2 {
        return Said::Nonsense;
    }
    let Some(body) = bytes.get(16..length) else { return Said::More };
    match (version & 0xf, family) {
        (0, _) => Said::Client(length, None),
        (1, 0x11) => match body {
            [a, b, c, d, _, _, _, _, high, low, ..] => {
                let port = u16::from_be_bytes([*high, *low]);
                Said::Client(length, Some(SocketAddr::from(([*a, *b, *c, *d], port))))
            }
            _ => Said::Nonsense,
        },
        (1, 0x21) => match (body.first_chunk::<16>(), body.get(32..34)) {
            (Some(address), Some([high, low])) => {
                let port = u16::from_be_bytes([*high, *low]);
                Said::Client(length, Some(SocketAddr::from((*address, port))))
            }
            _ => Said::Nonsense,
        },
        // Unix sockets and what is not specified: real, but without an address.
        (1, _) => Said::Client(length, None),
        _ => Said::Nonsense,
    }
}

fn read_line(bytes: &[u8]) -> Said {
    let Some(end) = bytes.iter().take(LINE).position(|byte| *byte == b'\n') else {
        return if bytes.len() < LINE { Said::More } else { Said::Nonsense };
    };
    let text = std::str::from_utf8(&bytes[..=end]).ok().and_then(|text| text.strip_suffix("\r\n"));
    let Some(text) = text else { return Said::Nonsense };
    let words: Vec<&str> = text.split(' ').collect();
    match words[..] {
        ["PROXY", "UNKNOWN", ..] => Said::Client(end + 1, None),
        ["PROXY", "TCP4" | "TCP6", from, to, port, to_port] => {
            let address: Option<IpAddr> = from.parse().ok();
            let other: Option<IpAddr> = to.parse().ok();
            let same = |a: IpAddr| other.is_some_and(|b| b.is_ipv4() == a.is_ipv4());
            let family = |a: &IpAddr| a.is_ipv4() == (words[1] == "TCP4") && same(*a);
            match (address.filter(family), port.parse(), to_port.parse::<u16>()) {
                (Some(ip), Ok(port), Ok(_)) => Said::Client(end + 1, Some((ip, port).into())),
                _ => Said::Nonsense,
            }
        }
        _ => Said::Nonsense,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_however_it_is_cut() {
        let at = SocketAddr::from(([10, 0, 0, 1], 80));
        for client in ["10.2.3.4:567", "[2001:db8::7]:89"] {
            let client: SocketAddr = client.parse().unwrap();
            for version in [ProxyVersion::V1, ProxyVersion::V2] {
                let mut text = write(version, client, at);
                let length = text.len();
                for end in 0..length {
                    assert_eq!(read(&text[..end]), Said::More, "{client} {version:?} {end}");
                }
                text.extend_from_slice(b"GET /");
                assert_eq!(read(&text), Said::Client(length, Some(client)), "{version:?}");
            }
        }
    }

    #[test]
    fn lines_are_as_specified() {
        let line = write(
            ProxyVersion::V1,
            SocketAddr::from(([192, 0, 2, 1], 1234)),
            SocketAddr::from(([192, 0, 2, 2], 80)),
        );
        assert_eq!(line, b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n");
        assert_eq!(read(b"PROXY UNKNOWN\r\n"), Said::Client(15, None));
    }

    #[test]
    fn everything_else_is_nonsense() {
        let long = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat();
        for text in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 1.2.3.4 5.6.7.8 x 80\r\n",
            b"PROXY TCP6 1.2.3.4 5.6.7.8 1 80\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 80\n",
            b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\0",
            &long,
        ] {
            assert_eq!(read(text), Said::Nonsense, "{}", String::from_utf8_lossy(text));
        }
    }
}
