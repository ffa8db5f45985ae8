//! Messages to the kernel's network code, netlink(7).
//!
//! # What the kernel offers
//! A socket whose other end is the kernel. One send carries any number of requests, which the
//! kernel executes in order before the call returns; the answers then wait in the socket.
//!
//! # What we do
//! Bytes only: what they mean is the caller's knowledge. The caller describes each send, so that
//! a recording shows requests instead of bytes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, connect, recv,
    send, socket,
};

use crate::trace::{answer, observe};
use crate::{Error, Result};

/// The kernel cuts a dump into pieces that fit the reader's buffer, at most 32 KiB each.
const BUFFER_BYTES: usize = 64 << 10;

/// The part of the kernel that a socket talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Interfaces, addresses, routes, neighbours, queues: rtnetlink(7).
    Route,
    /// nf_tables and connection tracking.
    Netfilter,
    /// Who has which sockets, sock_diag(7).
    SocketDiag,
}

/// A connection to the kernel, bound to the network namespace that it was opened in: it keeps
/// talking to that one wherever the process goes.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens one in the current network namespace.
    ///
    /// The kernel is asked to explain its refusals in words (`NETLINK_EXT_ACK`) and not to echo
    /// whole requests in its answers (`NETLINK_CAP_ACK`).
    pub fn open(protocol: Protocol) -> Result<Self> {
        let (number, name) = match protocol {
            Protocol::Route => (SockProtocol::NetlinkRoute, "NETLINK_ROUTE"),
            Protocol::Netfilter => (SockProtocol::NetlinkNetFilter, "NETLINK_NETFILTER"),
            Protocol::SocketDiag => (SockProtocol::NetlinkSockDiag, "NETLINK_SOCK_DIAG"),
        };
        let flags = SockFlag::SOCK_CLOEXEC;
        let made = socket(AddressFamily::Netlink, SockType::Raw, flags, number);
        let socket = observe("socket", || format!("AF_NETLINK, SOCK_RAW, {name}"), made)?;
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            switch_on(&socket, option)?;
        }
        let kernel = NetlinkAddr::new(0, 0);
        let result = connect(socket.as_raw_fd(), &kernel);
        observe("connect", || format!("{}, {{AF_NETLINK, kernel}}", socket.as_raw_fd()), result)?;
        Ok(Self { socket, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Opens one in the current network namespace that is told of every interface that is made,
    /// changed or removed (`RTNLGRP_LINK`). It does not wait: `EAGAIN` when there is no news,
    /// `ENOBUFS` when there was more than it could keep, so that some is lost.
    pub fn open_for_news_of_links() -> Result<Self> {
        /// Bit 0 is group 1, `RTNLGRP_LINK` of linux/rtnetlink.h.
        const LINKS: u32 = 1;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkRoute;
        let made = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol);
        let socket = observe("socket", || "AF_NETLINK, SOCK_RAW, NETLINK_ROUTE".into(), made)?;
        let result = bind(socket.as_raw_fd(), &NetlinkAddr::new(0, LINKS));
        observe("bind", || format!("{}, {{AF_NETLINK, links}}", socket.as_raw_fd()), result)?;
        Ok(Self { socket, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Sends requests. `described` names them for recordings and errors.
    pub fn send(&self, requests: &[u8], described: impl FnOnce() -> String) -> Result<()> {
        let result = send(self.socket.as_raw_fd(), requests, MsgFlags::empty());
        let result = match result {
            Ok(sent) if sent == requests.len() => Ok(()),
            Ok(_) => Err(Errno::EMSGSIZE),
            Err(errno) => Err(errno),
        };
        observe("send", || format!("{}, {}", self.socket.as_raw_fd(), described()), result)
    }

    /// Waits for answers: one datagram, which holds whole messages.
    pub fn receive(&mut self) -> Result<&[u8]> {
        let number = self.socket.as_raw_fd();
        let result = loop {
            match recv(number, &mut self.buffer, MsgFlags::MSG_TRUNC) {
                Err(Errno::EINTR) => {}
                other => break other,
            }
        };
        let length = result.map_err(|errno| Error::new("recv", number.to_string(), errno))?;
        self.buffer.get(..length).ok_or_else(|| {
            Error::new("recv", format!("{number}, … {length} bytes"), Errno::EMSGSIZE)
        })
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn switch_on(socket: &OwnedFd, option: libc::c_int) -> Result<()> {
    let on: libc::c_int = 1;
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option's value is a live int, and its size is passed.
    #[expect(unsafe_code, reason = "nix has no SOL_NETLINK options")]
    let value = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size,
        )
    };
    observe("setsockopt", || format!("SOL_NETLINK, {option}, 1"), answer(value.into()).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_news_is_not_waited_for() {
        let mut news = Netlink::open_for_news_of_links().unwrap();
        // Other processes of this machine may make interfaces meanwhile.
        while news.receive().is_ok() {}
        assert!(matches!(news.receive(), Ok(_) | Err(Error { errno: Errno::EAGAIN, .. })));
    }

    #[test]
    fn the_kernel_answers_a_request_that_makes_no_sense_with_an_error() {
        let mut kernel = Netlink::open(Protocol::Route).unwrap();
        // An nlmsghdr: length, type RTM_GETLINK, NLM_F_REQUEST|NLM_F_ACK, sequence, port; then an
        // ifinfomsg that names no interface.
        let mut request = 32_u32.to_ne_bytes().to_vec();
        request.extend(18_u16.to_ne_bytes());
        request.extend(5_u16.to_ne_bytes());
        request.extend(7_u32.to_ne_bytes());
        request.extend([0; 4 + 16]);
        kernel.send(&request, || "RTM_GETLINK".into()).unwrap();
        let answer = kernel.receive().unwrap();
        let kind = u16::from_ne_bytes([answer[4], answer[5]]);
        let errno = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
        assert_eq!((kind, errno), (2, -libc::EINVAL));
    }
}
