//! Numbers as people write them: `512m`, `1.5s`, `8080:3000`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use linux::inet::Transport;

use crate::door::Door;

/// Reads a length of time: a number with `us`, `ms`, `s`, `m` or `h`, several of them in a row
/// (`1m30s`), as Compose does. The answer is in milliseconds.
///
/// # Errors
/// What is wrong, and what would be right.
pub(crate) fn duration_ms(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a length of time; write 500ms, 10s or 1m30s");
    let mut rest = text;
    let mut total_us = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let factor = match unit {
            "us" => 1.0,
            "ms" => 1e3,
            "s" => 1e6,
            "m" => 60e6,
            "h" => 3600e6,
            _ => return Err(wrong()),
        };
        total_us += number * factor;
        rest = tail;
    }
    if text.is_empty() || total_us > 1e15 {
        return Err(wrong());
    }
    Ok((total_us / 1e3).round() as u64)
}

/// Reads a size: a number with `b`, `k`, `m`, `g` (powers of 1024, `kb` and so on too), or bytes.
///
/// # Errors
/// What is wrong, and what would be right.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size; write 512m, 1.5g or a number of bytes");
    let lower = text.to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let factor: f64 = match unit {
        "" | "b" => 1.0,
        "k" | "kb" => 1024.0,
        "m" | "mb" => 1_048_576.0,
        "g" | "gb" => 1_073_741_824.0,
        _ => return Err(wrong()),
    };
    let total = number * factor;
    if !(1.0..=1e18).contains(&total) {
        return Err(wrong());
    }
    Ok(total.round() as u64)
}

/// A published port as it is written on the command line.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// Where; the port is 0 when any free one of `among` will do.
    pub(crate) door: Door,
    /// The first and the last of them; `(0, 0)` is whichever the kernel gives.
    pub(crate) among: Option<(u16, u16)>,
    /// No address was given: IPv6 as well.
    pub(crate) ipv6_too: bool,
    /// The port inside the container.
    pub(crate) inside: u16,
}

/// Reads `[[ADDRESS:]HOST_PORT:]CONTAINER_PORT[/udp]`. Without a port of the host, or with a range
/// of them, any free one will do.
///
/// # Errors
/// What is wrong, and what would be right.
pub(crate) fn publish(text: &str) -> Result<Published, String> {
    let wrong = || {
        format!(
            "{text:?} is not a published port; write 8080:3000, 127.0.0.1:8080:3000, \
             8080-8090:3000 (any free one of these) or 3000 (any free port)"
        )
    };
    let (ports, transport) = match text.rsplit_once('/') {
        None => (text, Transport::Tcp),
        Some((ports, "tcp")) => (ports, Transport::Tcp),
        Some((ports, "udp")) => (ports, Transport::Udp),
        Some((_, protocol)) => {
            return Err(format!(
                "{text:?}: the protocol {protocol:?} cannot be given here; write tcp or udp, and \
                 --protocol says whether HTTP is spoken on it"
            ));
        }
    };
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(wrong()),
    };
    let (rest, inside) = ports.rsplit_once(':').unwrap_or(("", ports));
    let (address, outside) = match rest.rsplit_once(':') {
        Some((address, port)) => {
            let address = address.trim_start_matches('[').trim_end_matches(']');
            (Some(address.parse().map_err(|_| wrong())?), port)
        }
        None => (None, rest),
    };
    let (outside, among) = match outside.split_once('-') {
        _ if outside.is_empty() => (0, Some((0, 0))),
        Some((first, last)) if port(first)? <= port(last)? => {
            (0, Some((port(first)?, port(last)?)))
        }
        Some(_) => return Err(wrong()),
        None => (port(outside)?, None),
    };
    let ipv6_too = address.is_none();
    let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let door = Door { at: SocketAddr::new(address, outside), transport };
    Ok(Published { door, among, ipv6_too, inside: port(inside)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(duration_ms("10s"), Ok(10_000));
        assert_eq!(duration_ms("1m30s"), Ok(90_000));
        assert_eq!(duration_ms("1.5s"), Ok(1500));
        assert_eq!(duration_ms("250ms"), Ok(250));
        for bad in ["", "10", "s", "10x", "-1s", "1..5s", "99999999999h"] {
            assert!(duration_ms(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes("512m"), Ok(512 << 20));
        assert_eq!(bytes("1.5G"), Ok(3 << 29));
        assert_eq!(bytes("4096"), Ok(4096));
        for bad in ["", "m", "12q", "-1", "0", "1e30"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports() {
        let read = |text| publish(text).map(|read| format!("{} {}", read.door, read.inside));
        assert_eq!(read("8080:3000").as_deref(), Ok("0.0.0.0:8080 3000"));
        assert_eq!(read("127.0.0.1:80:81/tcp").as_deref(), Ok("127.0.0.1:80 81"));
        assert_eq!(read("[::1]:80:81").as_deref(), Ok("[::1]:80 81"));
        assert_eq!(read("53:5353/udp").as_deref(), Ok("0.0.0.0:53/udp 5353"));
        assert_eq!(read("3000/udp").as_deref(), Ok("0.0.0.0:0/udp 3000"));
        assert_eq!(read("127.0.0.1::3000").as_deref(), Ok("127.0.0.1:0 3000"));
        assert_eq!(publish("8000-8010:3000").map(|read| read.among), Ok(Some((8000, 8010))));
        assert_eq!(publish("3000").map(|read| read.among), Ok(Some((0, 0))));
        let too = |text| publish(text).map(|read| read.ipv6_too);
        assert_eq!((too("80:81"), too("0.0.0.0:80:81")), (Ok(true), Ok(false)));
        for bad in
            ["", "0", ":", "9-8:1", "8-:1", "0:1", "a:b", "1:2:3", "8080:3000/sctp", "70000:1"]
        {
            assert!(publish(bad).is_err(), "{bad}");
        }
    }
}
