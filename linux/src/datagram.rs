//! Datagrams with both of their addresses, ip(7) and ipv6(7).
//!
//! A host with several addresses must answer from the one that was asked, or the client takes the
//! answer for somebody else's.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
};

use crate::inet::to_std;
use crate::{Error, Result};

/// A datagram that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    /// Its length in bytes.
    pub length: usize,
    /// Who sent it.
    pub from: SocketAddr,
    /// The host's address that it was sent to.
    pub to: IpAddr,
}

/// Takes the next datagram, recvmsg(2); `None` when there is none. The socket must come from
/// [`inet::listen_at`](crate::inet::listen_at).
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<Option<Datagram>> {
    let number = socket.as_fd().as_raw_fd();
    let mut control = nix::cmsg_space!(libc::in6_pktinfo);
    let fail = |errno| Error::new("recvmsg", number.to_string(), errno);
    let parts = &mut [IoSliceMut::new(buffer)];
    let message =
        match recvmsg::<SockaddrStorage>(number, parts, Some(&mut control), MsgFlags::empty()) {
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            other => other.map_err(fail)?,
        };
    let mut to = None;
    for part in message.cmsgs().map_err(fail)? {
        match part {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                to = Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes()));
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                to = Some(IpAddr::from(info.ipi6_addr.s6_addr));
            }
            _ => {}
        }
    }
    let from = message.address.as_ref().and_then(to_std);
    match (from, to) {
        (Some(from), Some(to)) => Ok(Some(Datagram { length: message.bytes, from, to })),
        _ => Err(fail(Errno::EAFNOSUPPORT)),
    }
}

/// Sends a datagram in the name of one of the host's own addresses, sendmsg(2). One that the kernel
/// has no room for is lost, as the network may lose any.
pub fn send(socket: impl AsFd, bytes: &[u8], from: IpAddr, to: SocketAddr) -> Result<()> {
    let number = socket.as_fd().as_raw_fd();
    let (four, six);
    let control = match from {
        IpAddr::V4(from) => {
            four = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            ControlMessage::Ipv4PacketInfo(&four)
        }
        IpAddr::V6(from) => {
            six = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: from.octets() },
                ipi6_ifindex: 0,
            };
            ControlMessage::Ipv6PacketInfo(&six)
        }
    };
    let to = SockaddrStorage::from(to);
    let parts = [IoSlice::new(bytes)];
    match sendmsg(number, &parts, &[control], MsgFlags::empty(), Some(&to)) {
        Ok(_) | Err(Errno::EAGAIN | Errno::ENOBUFS) => Ok(()),
        Err(errno) => Err(Error::new("sendmsg", number.to_string(), errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inet::{Transport, listen_at, local_address};

    #[test]
    fn an_answer_comes_from_the_address_that_was_asked() {
        let any = SocketAddr::from(([0, 0, 0, 0], 0));
        let server = listen_at(Transport::Udp, any).unwrap();
        let port = local_address(&server).unwrap().port();
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"ask", ("127.0.0.9", port)).unwrap();
        let mut buffer = [0; 16];
        let asked = receive(&server, &mut buffer).unwrap().unwrap();
        assert_eq!((asked.length, asked.to.to_string()), (3, "127.0.0.9".to_owned()));
        assert_eq!(asked.from, client.local_addr().unwrap());
        send(&server, b"answer", asked.to, asked.from).unwrap();
        let (length, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((length, from.ip().to_string()), (6, "127.0.0.9".to_owned()));
        assert_eq!(receive(&server, &mut buffer).unwrap(), None);
    }
}
