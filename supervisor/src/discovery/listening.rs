//! Where a container listens, for services of which nobody has said it.
//!
//! # What the kernel offers
//! `NETLINK_SOCK_DIAG` (sock_diag(7)) lists the sockets of the network namespace in which it was
//! opened; asked for those that listen, it does not touch any other.
//!
//! # By hand
//! ```text
//! nsenter -t PID -n ss -tln
//! ```

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;

use anyhow::{Context, Result, bail};
use linux::Errno;
use linux::netlink::{Netlink, Protocol};

use crate::netns;

/// `SOCK_DIAG_BY_FAMILY`, linux/sock_diag.h.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP`, linux/netlink.h.
const DUMP: u16 = 0x301;
/// `NLMSG_ERROR` and `NLMSG_DONE`, linux/netlink.h.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `AF_INET` and `AF_INET6`.
const FAMILIES: [u8; 2] = [2, 10];
/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// A set of one state, `TCP_LISTEN` of net/tcp_states.h.
const LISTENING: u32 = 1 << 10;
/// The length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// The length of `struct inet_diag_sockid`, linux/inet_diag.h.
const SOCKET_ID: usize = 48;

/// The TCP ports at which something in the namespace listens for everybody. What listens for
/// itself alone, at a loopback address, does not want to be found.
///
/// # Errors
/// The kernel cannot tell: it has no `tcp_diag`.
pub(crate) fn ports(namespace: BorrowedFd<'_>) -> Result<BTreeSet<u16>> {
    let opened = netns::within(namespace, || Netlink::open(Protocol::SocketDiag))?;
    let mut kernel = opened.context("cannot ask who listens")?;
    let mut ports = BTreeSet::new();
    for family in FAMILIES {
        kernel.send(&question(family), || format!("SOCK_DIAG_BY_FAMILY, {family}"))?;
        while let Read::More = read(kernel.receive()?, &mut ports)? {}
    }
    Ok(ports)
}

/// Asks for the listening TCP sockets of a family: `struct nlmsghdr`, `struct inet_diag_req_v2`.
fn question(family: u8) -> Vec<u8> {
    let length = (HEADER + 8 + SOCKET_ID) as u32;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(DUMP.to_ne_bytes());
    bytes.extend([0; 8]); // sequence and port: one question at a time
    bytes.extend([family, TCP, 0, 0]);
    bytes.extend(LISTENING.to_ne_bytes());
    bytes.extend([0; SOCKET_ID]); // any
    bytes
}

/// Whether the answer goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Read {
    More,
    Done,
}

/// Reads one datagram of an answer.
fn read(mut bytes: &[u8], ports: &mut BTreeSet<u16>) -> Result<Read> {
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() {
        let [a, b, c, d, e, f, ..] = *header;
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        if length < HEADER {
            bail!("cannot ask who listens: a message of {length} bytes");
        }
        let body = rest.get(..length - HEADER).unwrap_or(rest);
        match u16::from_ne_bytes([e, f]) {
            DONE => return Ok(Read::Done),
            ERROR => {
                let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                return Err(Errno::from_raw(code.wrapping_neg())).context("cannot ask who listens");
            }
            _ => ports.extend(port(body)),
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Read::More)
}

/// The port of a `struct inet_diag_msg`, if it is one of all addresses.
fn port(body: &[u8]) -> Option<u16> {
    let source = body.get(8..24)?;
    let [high, low] = *body.get(4..6)?.first_chunk()?;
    source.iter().all(|byte| *byte == 0).then(|| u16::from_be_bytes([high, low]))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = (HEADER + body.len()) as u32;
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat()
    }

    #[test]
    fn answers_are_read() {
        let socket = |port: u16, first: u8| {
            let mut body = vec![2, 10, 0, 0];
            body.extend(port.to_be_bytes());
            body.extend([0, 0, first]);
            body.resize(72, 0);
            message(BY_FAMILY, &body)
        };
        let mut ports = BTreeSet::new();
        let some = [socket(80, 0), socket(81, 127), socket(5432, 0)].concat();
        assert_eq!(read(&some, &mut ports).unwrap(), Read::More);
        assert_eq!(ports, [80, 5432].into());
        assert_eq!(read(&message(DONE, &[0; 4]), &mut ports).unwrap(), Read::Done);
        let refused = message(ERROR, &(-2i32).to_ne_bytes());
        assert!(format!("{:#}", read(&refused, &mut ports).unwrap_err()).contains("ENOENT"));
        assert!(read(&[0; HEADER], &mut ports).is_err(), "no message is empty");
        for end in 0..some.len() {
            let _ = read(&some[..end], &mut ports); // whatever it is, it is no panic
        }
    }

    #[test]
    #[ignore = "needs root"]
    fn who_listens_for_everybody_is_found() {
        let everybody = TcpListener::bind("0.0.0.0:0").unwrap();
        let alone = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = netns::of_process(std::process::id().cast_signed()).unwrap();
        // A kernel without `tcp_diag` says so.
        let Ok(found) = ports(own.as_fd()) else { return };
        assert!(found.contains(&everybody.local_addr().unwrap().port()));
        assert!(!found.contains(&alone.local_addr().unwrap().port()));
    }
}
