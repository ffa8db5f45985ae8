//! A web server small enough to read: what the example applications share.
//!
//! It answers one `GET` per connection, each on a thread of its own, and it knows how to stop. On
//! SIGTERM or SIGINT it takes the connections that the kernel has already accepted for it, closes
//! its socket so that nobody else comes, lets every answer finish and returns: no request that
//! reached the program is lost. That is what "graceful" means, and an orchestrator that replaces
//! one version by another depends on it.
//!
//! Signals arrive through a signalfd, next to the connections, so there is one place where the
//! program waits. It also works as process 1 of a container, for which the kernel throws away
//! every signal without a handler: a *blocked* signal is kept (signal(7), pid_namespaces(7)).

mod request;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
pub use request::{Request, Response};
use std::env;
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

/// The port when the environment variable `PORT` does not say another.
const DEFAULT_PORT: u16 = 3000;

/// A client that is silent for longer loses its connection, so that none can delay the stop.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves `answer` on the port in `PORT` (0 lets the kernel choose) until SIGTERM or SIGINT.
///
/// # Errors
/// When `PORT` is not a port, or when it cannot be listened on.
pub fn serve(name: &str, answer: impl Fn(&Request) -> Response + Sync) -> io::Result<()> {
    // Blocked before the first thread starts: threads inherit the mask, so none is interrupted.
    let stop: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    stop.thread_block()?;
    let signals = SignalFd::with_flags(&stop, SfdFlags::SFD_CLOEXEC)?;

    let listener = listen(port()?)?;
    listener.set_nonblocking(true)?;
    say(&format!("{name}: listening on {}", listener.local_addr()?));

    thread::scope(|connections| {
        let take_all = || -> io::Result<()> {
            while let Some(stream) = accept(&listener)? {
                let answer = &answer;
                connections.spawn(move || talk(stream, answer));
            }
            Ok(())
        };
        loop {
            let mut waiting = [
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(listener.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut waiting, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => take_all()?,
                Err(errno) => return Err(io::Error::from(errno)),
            }
            if waiting[0].any() == Some(true) {
                drop(listener);
                say(&format!("{name}: stopping: no new connections, finishing what has begun"));
                return Ok(()); // The scope waits for every connection.
            }
        }
    })?;
    say(&format!("{name}: stopped"));
    Ok(())
}

fn port() -> io::Result<u16> {
    match env::var("PORT") {
        Err(_) => Ok(DEFAULT_PORT),
        Ok(text) => text.parse().map_err(|_| {
            io::Error::new(ErrorKind::InvalidInput, format!("PORT is `{text}`, not 0 to 65535"))
        }),
    }
}

/// Listens for IPv6 and IPv4 on one socket, or for IPv4 alone where there is no IPv6.
fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port))))
        .map_err(|error| io::Error::new(error.kind(), format!("listen on port {port}: {error}")))
}

/// The next connection, or `None` when nobody waits.
fn accept(listener: &TcpListener) -> io::Result<Option<TcpStream>> {
    match listener.accept() {
        Ok((stream, _)) => Ok(Some(stream)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        // The client left before its turn came (accept(2)): nothing of ours is wrong.
        Err(error) if error.kind() == ErrorKind::ConnectionAborted => Ok(None),
        Err(error) => Err(error),
    }
}

/// One request, one answer. A client that breaks off is its own affair, so errors end here.
fn talk(stream: TcpStream, answer: &(impl Fn(&Request) -> Response + Sync)) {
    let exchange = || -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let response = match Request::read(&stream)? {
            Some(request) => answer(&request),
            None => Response::new(400, "this server understands GET and no other request\n"),
        };
        response.write(&stream)
    };
    drop(exchange());
}

/// Prints one line. When nobody reads standard output any more, the server still serves.
fn say(line: &str) {
    drop(writeln!(io::stdout().lock(), "{line}"));
}
