//! Sockets inside a container's network namespace, without being there.
//!
//! A socket belongs for life to the namespace in which it was *made*; who connects it, and from
//! where, does not matter. So one steps in, makes the socket, and steps out: two setns(2) of
//! about a microsecond each. Probes and the data plane reach every container this way, by
//! 127.0.0.1 of its own namespace: no bridge, no address, no port mapping is needed between a
//! published port and the process behind it.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};
use linux::namespace::{self, Kind};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

/// The namespace this process was born in.
static HOME: OnceLock<OwnedFd> = OnceLock::new();

/// The network namespace of a process.
pub(crate) fn of_process(pid: i32) -> Result<OwnedFd> {
    let file = format!("/proc/{pid}/ns/net");
    Ok(namespace::open(Path::new(&file), Kind::Network)?)
}

fn home() -> Result<BorrowedFd<'static>> {
    if let Some(home) = HOME.get() {
        return Ok(home.as_fd());
    }
    let own = namespace::open(Path::new("/proc/thread-self/ns/net"), Kind::Network)?;
    Ok(HOME.get_or_init(|| own).as_fd())
}

/// Does something in the namespace, as making a socket there.
///
/// The caller's thread must be the only one that does such things, as in a current-thread
/// runtime. If the way home is barred the process ends: a supervisor in a container's network
/// would be worse than one that is started again.
pub(crate) fn within<T>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> T) -> Result<T> {
    let home = home()?;
    namespace::enter(namespace, Kind::Network)?;
    let result = work();
    if let Err(error) = namespace::enter(home, Kind::Network) {
        eprintln!("minisup: cannot return to the own network namespace: {error}");
        std::process::exit(70);
    }
    Ok(result)
}

/// Makes a TCP socket in the namespace.
fn tcp_socket(namespace: BorrowedFd<'_>) -> Result<TcpSocket> {
    let socket = within(namespace, TcpSocket::new_v4)?;
    socket.context("cannot make a socket in the container's network")
}

/// Connects to a port of the container, from within it.
pub(crate) async fn connect(
    namespace: BorrowedFd<'_>,
    port: u16,
    limit: Duration,
) -> std::io::Result<TcpStream> {
    let socket = tcp_socket(namespace).map_err(std::io::Error::other)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let connected = tokio::time::timeout(limit, socket.connect(address)).await;
    let stream = connected.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A socket for datagrams to and from a port of the container, from within it.
pub(crate) async fn datagrams(namespace: BorrowedFd<'_>, port: u16) -> std::io::Result<UdpSocket> {
    let made = within(namespace, || std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)));
    let socket = made.map_err(std::io::Error::other)??;
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket)?;
    socket.connect((Ipv4Addr::LOCALHOST, port)).await?;
    // Until the reactor has looked at it once, an attempt to send is refused unseen.
    socket.writable().await?;
    Ok(socket)
}
