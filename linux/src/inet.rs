//! Sockets of the internet families: listening for the host, speaking for a client.
//!
//! # What the kernel offers
//! `IP_TRANSPARENT` lets a privileged process bind a socket to an address that is not the host's,
//! so that a forwarder can speak to a server in its client's name, ip(7).

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, connect, getsockname,
    listen, setsockopt, socket, sockopt,
};

use crate::Result;
use crate::trace::{answer, observe};

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// A stream, tcp(7).
    Tcp,
    /// Datagrams, udp(7).
    Udp,
}

impl Transport {
    fn kind(self) -> SockType {
        match self {
            Self::Tcp => SockType::Stream,
            Self::Udp => SockType::Datagram,
        }
    }
}

/// Opens a socket that takes what arrives for `at` (port 0: a free one). Non-blocking.
///
/// An IPv6 socket takes IPv6 only, so that it can stand beside one for IPv4 on the same port. A
/// UDP socket tells with each datagram for which of the host's addresses it came.
pub fn listen_at(transport: Transport, at: SocketAddr) -> Result<OwnedFd> {
    take_at(transport, at, false)
}

/// As [`listen_at`], beside others that were opened so (`SO_REUSEPORT`): whoever comes meets one of
/// them. So one process takes over from another and nobody finds the address closed.
pub fn listen_beside(transport: Transport, at: SocketAddr) -> Result<OwnedFd> {
    take_at(transport, at, true)
}

fn take_at(transport: Transport, at: SocketAddr, is_shared: bool) -> Result<OwnedFd> {
    let socket = open(transport, at.ip())?;
    let shown = |name: &'static str| move || format!("{name}, 1");
    if is_shared {
        let result = setsockopt(&socket, sockopt::ReusePort, &true);
        observe("setsockopt", shown("SO_REUSEPORT"), result)?;
    }
    if transport == Transport::Tcp {
        let result = setsockopt(&socket, sockopt::ReuseAddr, &true);
        observe("setsockopt", shown("SO_REUSEADDR"), result)?;
    }
    match (at, transport) {
        (SocketAddr::V4(_), Transport::Udp) => {
            let result = setsockopt(&socket, sockopt::Ipv4PacketInfo, &true);
            observe("setsockopt", shown("IP_PKTINFO"), result)?;
        }
        (SocketAddr::V6(_), Transport::Udp) => {
            let result = setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true);
            observe("setsockopt", shown("IPV6_RECVPKTINFO"), result)?;
        }
        _ => {}
    }
    if at.is_ipv6() {
        let result = setsockopt(&socket, sockopt::Ipv6V6Only, &true);
        observe("setsockopt", shown("IPV6_V6ONLY"), result)?;
    }
    let result = bind(socket.as_raw_fd(), &SockaddrStorage::from(at));
    observe("bind", || format!("{}, {at}", socket.as_raw_fd()), result)?;
    if transport == Transport::Tcp {
        let result = listen(&socket, Backlog::MAXCONN);
        observe("listen", || socket.as_raw_fd().to_string(), result)?;
    }
    Ok(socket)
}

/// Has the kernel ask silent clients whether they are still there, and end the connections of those
/// that are not: after a minute of silence, every 15 seconds, four times, tcp(7). What is accepted
/// from the listening socket inherits this.
pub fn ask_silent_clients(listener: impl AsFd) -> Result<()> {
    let socket = listener.as_fd();
    let result = setsockopt(&socket, sockopt::KeepAlive, &true)
        .and_then(|()| setsockopt(&socket, sockopt::TcpKeepIdle, &60))
        .and_then(|()| setsockopt(&socket, sockopt::TcpKeepInterval, &15))
        .and_then(|()| setsockopt(&socket, sockopt::TcpKeepCount, &4));
    observe("setsockopt", || "SO_KEEPALIVE, 60 s, 4 times 15 s".to_owned(), result)
}

/// The address that a socket is bound to.
pub fn local_address(socket: impl AsFd) -> Result<SocketAddr> {
    let number = socket.as_fd().as_raw_fd();
    let result = getsockname::<SockaddrStorage>(number);
    let known = result.and_then(|address| to_std(&address).ok_or(Errno::EAFNOSUPPORT));
    let seen = known.map(drop);
    observe("getsockname", || number.to_string(), seen)?;
    known.map_err(|errno| crate::Error::new("getsockname", number.to_string(), errno))
}

/// Begins a connection to `to`, and speaks as `source` if one is given, whoever's address that is.
/// Non-blocking: a TCP connection is there when the socket becomes writable without an error.
pub fn connect_as(transport: Transport, source: Option<IpAddr>, to: SocketAddr) -> Result<OwnedFd> {
    let socket = open(transport, to.ip())?;
    if let Some(source) = source {
        speak_as(&socket, source)?;
    }
    let result = match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Err(Errno::EINPROGRESS) => Ok(()),
        other => other,
    };
    observe("connect", || format!("{}, {to}", socket.as_raw_fd()), result)?;
    Ok(socket)
}

fn speak_as(socket: &OwnedFd, source: IpAddr) -> Result<()> {
    let (level, option, name) = match source {
        IpAddr::V4(_) => (libc::SOL_IP, libc::IP_TRANSPARENT, "IP_TRANSPARENT"),
        IpAddr::V6(_) => (libc::SOL_IPV6, libc::IPV6_TRANSPARENT, "IPV6_TRANSPARENT"),
    };
    switch_on(socket, level, option, name)?;
    // The port is chosen when the connection is known, so that one address can have more
    // connections than there are ports.
    switch_on(socket, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, "IP_BIND_ADDRESS_NO_PORT")?;
    let result = bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0)));
    observe("bind", || format!("{}, {source}", socket.as_raw_fd()), result)
}

fn switch_on(
    socket: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    name: &'static str,
) -> Result<()> {
    let on: libc::c_int = 1;
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option's value is a live int, and its size is passed.
    #[expect(unsafe_code, reason = "nix lacks these options for both families")]
    let value = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), size)
    };
    observe("setsockopt", || format!("{name}, 1"), answer(value.into()).map(drop))
}

fn open(transport: Transport, address: IpAddr) -> Result<OwnedFd> {
    let (family, name) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, "AF_INET"),
        IpAddr::V6(_) => (AddressFamily::Inet6, "AF_INET6"),
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let result = socket(family, transport.kind(), flags, None);
    observe("socket", || format!("{name}, {transport:?}"), result)
}

pub(crate) fn to_std(address: &SockaddrStorage) -> Option<SocketAddr> {
    let four = address.as_sockaddr_in().map(|a| SocketAddr::V4((*a).into()));
    four.or_else(|| address.as_sockaddr_in6().map(|a| SocketAddr::V6((*a).into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_share_a_port_and_a_second_listener_is_refused() {
        let any = |ip: &str, port| SocketAddr::new(ip.parse().unwrap(), port);
        let first = listen_at(Transport::Tcp, any("127.0.0.1", 0)).unwrap();
        let port = local_address(&first).unwrap().port();
        assert_ne!(port, 0);
        let error = listen_at(Transport::Tcp, any("127.0.0.1", port)).unwrap_err();
        assert_eq!((error.call, error.errno), ("bind", Errno::EADDRINUSE));
        let second = listen_at(Transport::Tcp, any("::1", port)).unwrap();
        assert_eq!(local_address(&second).unwrap(), any("::1", port));
    }

    #[test]
    fn some_listen_beside_each_other_and_only_those() {
        let at = |port| SocketAddr::new("127.0.0.1".parse().unwrap(), port);
        for transport in [Transport::Tcp, Transport::Udp] {
            let first = listen_beside(transport, at(0)).unwrap();
            let port = local_address(&first).unwrap().port();
            listen_beside(transport, at(port)).unwrap();
            let error = listen_at(transport, at(port)).unwrap_err();
            assert_eq!((error.call, error.errno), ("bind", Errno::EADDRINUSE));
        }
    }

    #[test]
    fn what_is_accepted_is_asked_as_well() {
        let any = SocketAddr::new("127.0.0.1".parse().unwrap(), 0);
        let listener = std::net::TcpListener::from(listen_at(Transport::Tcp, any).unwrap());
        listener.set_nonblocking(false).unwrap();
        ask_silent_clients(&listener).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        use nix::sys::socket::getsockopt;
        assert!(getsockopt(&accepted, sockopt::KeepAlive).unwrap());
        assert_eq!(getsockopt(&accepted, sockopt::TcpKeepIdle).unwrap(), 60);
        assert_eq!(getsockopt(&accepted, sockopt::TcpKeepCount).unwrap(), 4);
    }
}
