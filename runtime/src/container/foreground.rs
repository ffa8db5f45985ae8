//! Standing in front of a container: pass on signals, relay its terminal, wait for its end.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use linux::pidfd::{self, Exit};
use linux::poll::{self, Ready};
use linux::signal::Signals;
use linux::terminal::{self, RawMode};
use linux::{Errno, fd};

use super::readiness::Readiness;
use crate::error::{Error, Result};

/// How long the last output of a terminal is waited for after the container has ended.
const LAST_OUTPUT: Duration = Duration::from_millis(100);
/// How much is read from a terminal at once.
const CHUNK: usize = 4096;

/// Waits for the end of the process behind `process`.
///
/// `signals` must have been captured before the process was made. `terminal` is the master of its
/// terminal, if it has one.
pub(crate) fn wait(
    process: &OwnedFd,
    (signals, mut readiness): (&Signals, Option<Readiness>),
    terminal: Option<&OwnedFd>,
) -> Result<Exit> {
    let stdin = std::io::stdin();
    let raw = match terminal {
        Some(master) => {
            fd::set_nonblocking(master.as_fd()).map_err(failed("set up the terminal"))?;
            pass_size(master);
            terminal::is_terminal(&stdin).then(|| RawMode::enter(&stdin)).transpose()
        }
        None => Ok(None),
    };
    let _raw = raw.map_err(failed("set the terminal to raw mode"))?;
    let mut relay = terminal.map(|master| Relay::new(master.as_fd()));
    loop {
        let mut watched = vec![(process.as_fd(), READ), (signals.as_fd(), READ)];
        if let Some(relay) = &relay {
            watched.extend(relay.watched(stdin.as_fd()));
        }
        let relayed = watched.len();
        watched.extend(readiness.iter().map(|readiness| (readiness.as_fd(), READ)));
        let ready = poll::wait(&watched, None).map_err(failed("wait for the container"))?;
        if let (Some(relay), Some(part)) = (&mut relay, ready.get(2..relayed)) {
            relay.pass(part, stdin.as_fd());
        }
        if let Some(told) = readiness.as_ref().filter(|_| is_readable(&ready, relayed))
            && told.pass_message()?
        {
            // It is ready once.
            readiness = None;
        }
        while let Some(signal) = signals.next().map_err(failed("read signals"))? {
            pass_signal(signal, process, terminal);
        }
        if ready.first().is_some_and(|ready| ready.readable) {
            break;
        }
    }
    if let Some(relay) = &mut relay {
        relay.drain();
    }
    pidfd::wait(process).map_err(failed("reap the container"))
}

fn is_readable(ready: &[Ready], index: usize) -> bool {
    ready.get(index).is_some_and(|ready| ready.readable)
}

const READ: Ready = Ready { readable: true, writable: false, hung_up: false };

fn failed(doing: &'static str) -> impl FnOnce(linux::Error) -> Error {
    Error::kernel(doing)
}

/// The signals that are about us and not about the container.
fn pass_signal(signal: i32, process: &OwnedFd, terminal: Option<&OwnedFd>) {
    match (signal, terminal) {
        (SIGCHLD | SIGURG | SIGPIPE, _) => {}
        (SIGWINCH, Some(master)) => pass_size(master),
        // A container that has just ended needs no signal.
        _ => drop(pidfd::signal(process, signal)),
    }
}

const SIGPIPE: i32 = 13;
const SIGCHLD: i32 = 17;
const SIGURG: i32 = 23;
const SIGWINCH: i32 = 28;

/// Gives our terminal's size to the container's. Without a terminal of our own there is none.
///
/// Also to be done before the program starts, or it finds a terminal of no size.
pub(crate) fn pass_size(master: &OwnedFd) {
    if let Ok(size) = terminal::size(std::io::stdin()) {
        drop(terminal::set_size(master, size));
    }
}

/// What goes back and forth between our standard streams and a terminal.
struct Relay<'a> {
    master: BorrowedFd<'a>,
    to_container: Vec<u8>,
    to_us: Vec<u8>,
    input_open: bool,
    output_open: bool,
}

impl<'a> Relay<'a> {
    fn new(master: BorrowedFd<'a>) -> Self {
        let (to_container, to_us) = (Vec::new(), Vec::new());
        Self { master, to_container, to_us, input_open: true, output_open: true }
    }

    /// What to wait for: never more input than can be passed on.
    fn watched<'b>(&self, stdin: BorrowedFd<'b>) -> Vec<(BorrowedFd<'b>, Ready)>
    where
        'a: 'b,
    {
        let mut watched = Vec::new();
        if self.output_open {
            let readable = self.to_us.is_empty();
            let writable = !self.to_container.is_empty();
            watched.push((self.master, Ready { readable, writable, hung_up: false }));
        }
        if self.input_open && self.to_container.is_empty() {
            watched.push((stdin, READ));
        }
        watched
    }

    fn pass(&mut self, ready: &[Ready], stdin: BorrowedFd<'_>) {
        let mut ready = ready.iter();
        let watched_input = self.input_open && self.to_container.is_empty();
        if self.output_open
            && let Some(master) = ready.next()
        {
            if master.readable || master.hung_up {
                self.read_master();
            }
            if master.writable {
                self.write_master();
            }
        }
        if watched_input
            && let Some(input) = ready.next()
            && (input.readable || input.hung_up)
        {
            self.read_input(stdin);
        }
    }

    fn read_master(&mut self) {
        let mut buffer = [0; CHUNK];
        match fd::read(self.master, &mut buffer) {
            Ok(0) => self.output_open = false,
            Ok(count) => {
                self.to_us.extend_from_slice(buffer.get(..count).unwrap_or_default());
                let mut out = std::io::stdout().lock();
                // Nobody reads our output: the container must not hang because of that.
                drop(out.write_all(&self.to_us).and_then(|()| out.flush()));
                self.to_us.clear();
            }
            Err(error) if error.errno == Errno::EAGAIN => {}
            // EIO: the last process that had the terminal open is gone.
            Err(_) => self.output_open = false,
        }
    }

    fn write_master(&mut self) {
        match fd::write_some(self.master, &self.to_container) {
            Ok(count) => drop(self.to_container.drain(..count)),
            Err(error) if error.errno == Errno::EAGAIN => {}
            Err(_) => self.to_container.clear(),
        }
    }

    fn read_input(&mut self, stdin: BorrowedFd<'_>) {
        /// What a terminal in its usual mode takes for the end of the input.
        const END_OF_TRANSMISSION: u8 = 4;
        let mut buffer = [0; CHUNK];
        match fd::read(stdin, &mut buffer) {
            Ok(0) | Err(_) => {
                self.input_open = false;
                self.to_container.push(END_OF_TRANSMISSION);
            }
            Ok(count) => {
                self.to_container.extend_from_slice(buffer.get(..count).unwrap_or_default());
            }
        }
    }

    /// Shows what the container has written before it ended.
    fn drain(&mut self) {
        while self.output_open
            && poll::wait_readable(self.master, Some(LAST_OUTPUT)).unwrap_or(false)
        {
            self.read_master();
        }
    }
}
