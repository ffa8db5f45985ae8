//! One TCP connection through the forwarder: two sockets, two directions.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use linux::epoll::Interest;
use linux::inet::{Transport, connect_as};
use linux::poll::Ready;

use crate::publish::Target;

/// How much one direction may pass on before the other connections have their turn: 64 reads.
const ROUNDS: usize = 64;

/// A client's connection and the one made for it.
#[derive(Debug)]
pub(super) struct Stream {
    number: u64,
    client: Side,
    server: Side,
    connected: bool,
    up: Direction,
    down: Direction,
}

#[derive(Debug)]
struct Side {
    socket: TcpStream,
    watched: Option<Ready>,
    /// Both its directions are closed. That is told for ever, whatever it is watched for, so it is
    /// not watched any more: what it still holds is read whenever the other side has room.
    hung_up: bool,
}

/// What goes from one socket to the other.
#[derive(Debug, Default)]
struct Direction {
    /// Read and not yet written.
    pending: Vec<u8>,
    /// The source has nothing more to say.
    ended: bool,
    /// The sink has been told so.
    told: bool,
}

/// The end of a connection, orderly or not: both sockets are to be closed.
#[derive(Debug)]
pub(super) struct Over;

impl Stream {
    /// Begins the second half of a connection. `number` is the client's in `interest`; the server's
    /// is the next one.
    pub(super) fn begin(
        number: u64,
        client: TcpStream,
        from: SocketAddr,
        target: &Target,
        interest: &Interest,
    ) -> Result<Self, Over> {
        let (to, speaker) = target.towards(from.ip()).ok_or(Over)?;
        let server = reach(to, speaker)?;
        for socket in [&client, &server] {
            socket.set_nonblocking(true).map_err(|_| Over)?;
            // Two hops that each wait for more bytes would add their delays.
            socket.set_nodelay(true).map_err(|_| Over)?;
        }
        let side = |socket| Side { socket, watched: None, hung_up: false };
        let mut stream = Self {
            number,
            client: side(client),
            server: side(server),
            connected: false,
            up: Direction::default(),
            down: Direction::default(),
        };
        stream.watch(interest)?;
        Ok(stream)
    }

    /// Passes on what can be passed on, after `ready` was told for one of the two numbers.
    pub(super) fn advance(
        &mut self,
        number: u64,
        ready: Ready,
        scratch: &mut [u8],
        interest: &Interest,
    ) -> Result<(), Over> {
        if !self.connected {
            if number == self.number {
                // The client gave up before the container answered.
                return if ready.hung_up { Err(Over) } else { Ok(()) };
            }
            if self.server.socket.take_error().map_err(|_| Over)?.is_some() {
                return Err(Over);
            }
            self.connected = ready.writable;
        }
        let side = if number == self.number { &mut self.client } else { &mut self.server };
        if ready.hung_up {
            side.leave(interest)?;
        }
        let up = self.client.rounds();
        let down = self.server.rounds();
        self.up.pass(&self.client.socket, &self.server.socket, scratch, up)?;
        self.down.pass(&self.server.socket, &self.client.socket, scratch, down)?;
        if self.up.told && self.down.told {
            return Err(Over);
        }
        self.watch(interest)
    }

    fn watch(&mut self, interest: &Interest) -> Result<(), Over> {
        let client = Ready {
            readable: self.connected && self.up.wants_to_read(),
            writable: !self.down.pending.is_empty(),
            hung_up: false,
        };
        let server = Ready {
            readable: self.connected && self.down.wants_to_read(),
            writable: !self.connected || !self.up.pending.is_empty(),
            hung_up: false,
        };
        self.client.watch(interest, self.number, client)?;
        self.server.watch(interest, self.number + 1, server)
    }
}

/// Connects in the client's name, or in the host's where that is not possible.
fn reach(to: SocketAddr, speaker: Option<IpAddr>) -> Result<TcpStream, Over> {
    let connect = |speaker| connect_as(Transport::Tcp, speaker, to);
    let socket: OwnedFd = connect(speaker)
        .or_else(|error| if speaker.is_some() { connect(None) } else { Err(error) })
        .map_err(|_| Over)?;
    Ok(TcpStream::from(socket))
}

impl Side {
    fn watch(&mut self, interest: &Interest, number: u64, want: Ready) -> Result<(), Over> {
        if self.hung_up {
            return Ok(());
        }
        let result = match self.watched {
            Some(watched) if watched == want => Ok(()),
            Some(_) => interest.change(&self.socket, number, want),
            None => interest.add(&self.socket, number, want),
        };
        self.watched = Some(want);
        result.map_err(|_| Over)
    }
}

impl Side {
    fn leave(&mut self, interest: &Interest) -> Result<(), Over> {
        if self.watched.take().is_some() {
            interest.remove(&self.socket).map_err(|_| Over)?;
        }
        self.hung_up = true;
        Ok(())
    }

    /// Without an event to come back for, what it holds must be read at once.
    fn rounds(&self) -> usize {
        if self.hung_up { usize::MAX } else { ROUNDS }
    }
}

impl Direction {
    fn wants_to_read(&self) -> bool {
        self.pending.is_empty() && !self.ended
    }

    fn pass(
        &mut self,
        mut source: &TcpStream,
        mut sink: &TcpStream,
        scratch: &mut [u8],
        rounds: usize,
    ) -> Result<(), Over> {
        for _ in 0..rounds {
            if !self.pending.is_empty() {
                match sink.write(&self.pending) {
                    Ok(count) => drop(self.pending.drain(..count)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return Err(Over),
                }
                continue;
            }
            if self.ended {
                if !self.told {
                    self.told = true;
                    sink.shutdown(Shutdown::Write).map_err(|_| Over)?;
                }
                return Ok(());
            }
            match source.read(scratch) {
                Ok(0) => self.ended = true,
                Ok(count) => self.give(sink, scratch.get(..count).unwrap_or(&[]))?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Over),
            }
        }
        Ok(())
    }

    /// Writes at once what the sink takes, and keeps the rest.
    fn give(&mut self, mut sink: &TcpStream, bytes: &[u8]) -> Result<(), Over> {
        let written = match sink.write(bytes) {
            Ok(count) => count,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                0
            }
            Err(_) => return Err(Over),
        };
        self.pending.extend(bytes.get(written..).unwrap_or(&[]));
        Ok(())
    }
}
