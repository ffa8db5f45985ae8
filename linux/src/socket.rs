//! Messages between processes, with descriptors inside: unix(7).

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
    UnixAddr, connect, listen, recvmsg, sendmsg, socket, socketpair,
};

use crate::trace::{observe, quoted};
use crate::{Error, Result, path};

/// The most descriptors that one message carries here.
const MAX_FDS: usize = 64;

/// Makes a connected pair that keeps message boundaries, socketpair(2) with `SOCK_SEQPACKET`.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let result = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags);
    observe("socketpair", || "AF_UNIX, SOCK_SEQPACKET".into(), result)
}

/// Makes a socket that listens at `name` in the directory `dir`, keeping message boundaries.
///
/// The address goes through `/proc/self/fd`, because a socket's address holds 107 bytes and a path
/// may be longer.
pub fn listen_at(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    listen_on(&through(dir, name)?, name)
}

/// The same in a directory of the host that is known by its path.
pub fn listen_in(dir: &Path, name: &str) -> Result<OwnedFd> {
    match UnixAddr::new(&dir.join(name)) {
        Ok(address) => listen_on(&address, name),
        Err(_) => listen_at(open_directory(dir)?.as_fd(), name),
    }
}

fn listen_on(address: &UnixAddr, name: &str) -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let made = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None);
    let listener = observe("socket", || "AF_UNIX, SOCK_SEQPACKET".into(), made)?;
    let bound = nix::sys::socket::bind(listener.as_raw_fd(), address);
    observe("bind", || format!("{name:?}"), bound)?;
    let result = Backlog::new(1).and_then(|backlog| listen(&listener, backlog));
    observe("listen", || format!("{name:?}, 1"), result)?;
    Ok(listener)
}

fn through(dir: BorrowedFd<'_>, name: &str) -> Result<UnixAddr> {
    let path = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
    UnixAddr::new(path.as_str()).map_err(|errno| Error::new("bind", name, errno))
}

fn open_directory(dir: &Path) -> Result<OwnedFd> {
    path::open(dir, OFlag::O_PATH | OFlag::O_DIRECTORY)
}

/// Waits for a connection, accept4(2).
pub fn accept(listener: &OwnedFd) -> Result<OwnedFd> {
    let number = listener.as_raw_fd();
    let result = loop {
        match nix::sys::socket::accept4(number, SockFlag::SOCK_CLOEXEC) {
            Err(Errno::EINTR) => {}
            other => break other.map(adopt),
        }
    };
    observe("accept4", || number.to_string(), result)
}

/// Connects to the socket `name` in the directory `dir` that [`listen_at`] made. `ECONNREFUSED`
/// when nobody listens any more.
pub fn connect_at(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    connect_with(&through(dir, name)?, name)
}

/// The same in a directory of the host that is known by its path. `ENOENT` when there is no such
/// socket.
pub fn connect_in(dir: &Path, name: &str) -> Result<OwnedFd> {
    match UnixAddr::new(&dir.join(name)) {
        Ok(address) => connect_with(&address, name),
        Err(_) => connect_at(open_directory(dir)?.as_fd(), name),
    }
}

fn connect_with(address: &UnixAddr, name: &str) -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let made = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None);
    let line = observe("socket", || "AF_UNIX, SOCK_SEQPACKET".into(), made)?;
    observe("connect", || format!("{name:?}"), connect(line.as_raw_fd(), address))?;
    Ok(line)
}

/// Connects to the stream socket at `path` of the host.
pub fn connect_to(path: &Path) -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let made = socket(AddressFamily::Unix, SockType::Stream, flags, None);
    let stream = observe("socket", || "AF_UNIX, SOCK_STREAM".into(), made)?;
    let address = UnixAddr::new(path).map_err(|e| Error::new("connect", quoted(path), e))?;
    let result = connect(stream.as_raw_fd(), &address);
    observe("connect", || quoted(path), result)?;
    Ok(stream)
}

/// Makes a datagram socket with the name `name` in the directory `dir`.
pub fn bind_datagram_at(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let address = through(dir, name)?;
    let made = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
    let socket = observe("socket", || "AF_UNIX, SOCK_DGRAM".into(), made)?;
    let bound = nix::sys::socket::bind(socket.as_raw_fd(), &address);
    observe("bind", || format!("{name:?}"), bound)?;
    Ok(socket)
}

/// Sends one datagram to the socket of that name; one that begins with `@` is an abstract name,
/// unix(7).
pub fn send_datagram_to(name: &str, bytes: &[u8]) -> Result<()> {
    let made = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
    let socket = observe("socket", || "AF_UNIX, SOCK_DGRAM".into(), made)?;
    let address = match name.strip_prefix('@') {
        Some(rest) => UnixAddr::new_abstract(rest.as_bytes()),
        None => UnixAddr::new(name),
    };
    let address = address.map_err(|e| Error::new("sendto", name, e))?;
    let flags = MsgFlags::MSG_NOSIGNAL;
    let sent = nix::sys::socket::sendto(socket.as_raw_fd(), bytes, &address, flags);
    observe("sendto", || format!("{name:?}, … {} bytes", bytes.len()), sent.map(drop))
}

/// Sends one message, with descriptors, sendmsg(2).
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let socket = socket.as_fd();
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL;
    let result =
        sendmsg::<UnixAddr>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None);
    let shown = || format!("{}, … {} bytes, fds={raw:?}", socket.as_raw_fd(), bytes.len());
    observe("sendmsg", shown, result.map(drop))
}

/// A message that came in.
#[derive(Debug)]
pub struct Received {
    /// How many bytes; 0 when the other side is gone.
    pub length: usize,
    /// The descriptors that came with it, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Waits for one message, recvmsg(2). A message that does not fit is an error, never cut.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<Received> {
    let socket = socket.as_fd();
    let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
    let number = socket.as_raw_fd();
    let result = loop {
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let parts = &mut [IoSliceMut::new(buffer)];
        match recvmsg::<UnixAddr>(number, parts, Some(&mut control), flags) {
            Err(Errno::EINTR) => {}
            Err(errno) => break Err(errno),
            Ok(message) => {
                let mut fds = Vec::new();
                for part in message.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(raw) = part {
                        fds.extend(raw.into_iter().map(adopt));
                    }
                }
                if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
                    break Err(Errno::EMSGSIZE);
                }
                break Ok((message.bytes, fds));
            }
        }
    };
    let (length, fds) = observe("recvmsg", || number.to_string(), result)?;
    Ok(Received { length, fds })
}

fn adopt(number: RawFd) -> OwnedFd {
    // SAFETY: SCM_RIGHTS has just installed this descriptor for us, and nobody else knows it.
    #[expect(unsafe_code, reason = "taking ownership of a received descriptor")]
    unsafe {
        OwnedFd::from_raw_fd(number)
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::new("recvmsg", "control message", errno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_bounds_and_carry_descriptors() {
        let (left, right) = pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        send(&left, b"one", &[null.as_fd()]).unwrap();
        send(&left, b"two", &[]).unwrap();
        let mut buffer = [0; 16];
        let first = receive(&right, &mut buffer).unwrap();
        assert_eq!((&buffer[..first.length], first.fds.len()), (&b"one"[..], 1));
        let second = receive(&right, &mut buffer).unwrap();
        assert_eq!((&buffer[..second.length], second.fds.len()), (&b"two"[..], 0));
        send(&left, &[7; 32], &[]).unwrap();
        assert_eq!(receive(&right, &mut buffer).unwrap_err().errno, Errno::EMSGSIZE);
        drop(left);
        assert_eq!(receive(&right, &mut buffer).unwrap().length, 0);
    }

    #[test]
    fn a_directory_may_have_a_long_path() {
        let short = std::env::temp_dir().join(format!("linux-socket-{}", std::process::id()));
        let long = short.join("a".repeat(100)).join("b".repeat(100));
        std::fs::create_dir_all(&long).unwrap();
        for dir in [&short, &long] {
            assert_eq!(connect_in(dir, "s").unwrap_err().errno, Errno::ENOENT);
            let listener = listen_in(dir, "s").unwrap();
            connect_in(dir, "s").unwrap();
            drop(listener);
            assert_eq!(connect_in(dir, "s").unwrap_err().errno, Errno::ECONNREFUSED);
        }
        std::fs::remove_dir_all(short).unwrap();
    }
}
