//! Opening the host's side of published ports: all of them, or an error and none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use linux::Errno;
use linux::inet::{Transport, listen_at, local_address};

use crate::error::{Error, Result};
use crate::publish::wish::{HostPort, Publication};
use crate::publish::{Published, Target, holder, name};

/// How often a port that is free for IPv4 and taken for IPv6 is given back for another one.
const TRIES: usize = 16;

/// Opens the sockets for all publications. They take connections from now on; a process must
/// [serve](crate::publish::serve) them.
pub fn listen(
    publications: &[Publication],
    addresses: &[IpNet],
    transparent: bool,
) -> Result<Vec<Published>> {
    let mut all = Vec::new();
    for publication in publications {
        let target = Target {
            transport: publication.transport,
            addresses: addresses.to_vec(),
            port: publication.container,
            transparent,
        };
        all.extend(open(publication, &target)?);
    }
    Ok(all)
}

fn open(publication: &Publication, target: &Target) -> Result<Vec<Published>> {
    match publication.host {
        HostPort::Exactly(port) => open_at(publication.ip, port, target),
        HostPort::Any => {
            let mut result = open_at(publication.ip, 0, target);
            for _ in 1..TRIES {
                if !matches!(result, Err(Error::PortTaken { .. })) {
                    break;
                }
                result = open_at(publication.ip, 0, target);
            }
            result
        }
        HostPort::FirstFree(first, last) => {
            for port in first..=last {
                match open_at(publication.ip, port, target) {
                    Err(Error::PortTaken { .. }) => {}
                    other => return other,
                }
            }
            let text = format!("no {} port from {first} to {last} is free", name(target.transport));
            Err(Error::Exhausted(text))
        }
    }
}

/// Opens a port at one address of the host, or at all of both families.
fn open_at(ip: Option<IpAddr>, port: u16, target: &Target) -> Result<Vec<Published>> {
    if let Some(ip) = ip {
        return Ok(vec![socket(SocketAddr::new(ip, port), target)?]);
    }
    let four = socket(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), target)?;
    let beside = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), four.at.port());
    match socket(beside, target) {
        Ok(six) => Ok(vec![four, six]),
        // A host without IPv6 is served well by IPv4.
        Err(Error::Kernel { source, .. })
            if matches!(source.errno, Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) =>
        {
            Ok(vec![four])
        }
        Err(error) => Err(error),
    }
}

fn socket(at: SocketAddr, target: &Target) -> Result<Published> {
    let transport = target.transport;
    let socket = listen_at(transport, at).map_err(|source| refusal(transport, at, source))?;
    let at = local_address(&socket).map_err(|source| refusal(transport, at, source))?;
    Ok(Published { socket, at, target: target.clone() })
}

fn refusal(transport: Transport, at: SocketAddr, source: linux::Error) -> Error {
    let shown = format!("{at}/{}", name(transport));
    match source.errno {
        Errno::EADDRINUSE => {
            Error::PortTaken { at: shown, holder: holder::of(transport, at.ip(), at.port()) }
        }
        Errno::EADDRNOTAVAIL if !at.ip().is_unspecified() => {
            Error::invalid("published port", shown, "this host does not have that address")
        }
        Errno::EACCES => Error::Unsupported {
            what: format!("publishing port {shown}"),
            needs: "root, or a port from net.ipv4.ip_unprivileged_port_start on".into(),
        },
        _ => Error::Kernel { step: format!("listening at {shown}"), source },
    }
}
