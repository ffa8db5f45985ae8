//! A person at a terminal in the guest.

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Write},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};
use rustix::termios::{OptionalActions, Termios};

use crate::{
    config::Config,
    error::{GuestError, refused},
    guest::Guest,
    protocol::{Kind, Status, WindowSize, decode, send, send_json},
};

/// Boots a guest and runs a command of it on the caller's terminal until it ends.
///
/// Call it while the process has no other threads: the signal of a resized terminal is waited
/// for by a thread of its own, and is lost if another thread does not block it.
///
/// # Errors
/// When standard input is not a terminal, or the guest does not boot or cannot go on.
pub fn shell<S: AsRef<str>>(config: &Config, argv: &[S]) -> Result<Status> {
    if !io::stdin().is_terminal() {
        bail!("a shell needs a terminal: use vm run for commands without one");
    }
    let mut resized = SigSet::empty();
    resized.add(Signal::SIGWINCH);
    resized.thread_block()?;
    let mut guest = Guest::boot(config)?;
    let name = std::env::var("TERM").unwrap_or_else(|_| "dumb".into());
    let exec = guest.command(argv).env("TERM", &name).current_dir("/root").with_terminal(size()?);
    let port = Arc::new(Mutex::new(guest.port()?));
    guest.start(&exec)?;
    let raw = RawMode::enter()?;
    let typing = port.clone();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = io::stdin().read(&mut buffer) {
            let mut port = typing.lock().unwrap_or_else(PoisonError::into_inner);
            if send(&mut *port, Kind::Stdin, &buffer[..length]).is_err() {
                return;
            }
        }
        // The terminal is gone, and with it whoever could end the command.
        let mut port = typing.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = send(&mut *port, Kind::Kill, b"");
    });
    thread::spawn(move || resize(&resized, &port));
    let status = show(&mut guest);
    drop(raw);
    Ok(status?)
}

fn resize(resized: &SigSet, port: &Mutex<File>) {
    while resized.wait().is_ok() {
        let Ok(size) = size() else { return };
        let mut port = port.lock().unwrap_or_else(PoisonError::into_inner);
        if send_json(&mut *port, Kind::Resize, &size).is_err() {
            return;
        }
    }
}

fn show(guest: &mut Guest) -> Result<Status, GuestError> {
    loop {
        match guest.next_frame(None)? {
            Some((Kind::Exit, status)) => return Ok(decode(&status)?),
            Some((Kind::Refused, reason)) => return Err(refused(&reason)),
            Some((_, bytes)) => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&bytes).and_then(|()| stdout.flush())?;
            }
            None => {}
        }
    }
}

fn size() -> Result<WindowSize> {
    let size = rustix::termios::tcgetwinsize(io::stdin()).context("how big is the terminal?")?;
    Ok(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// The terminal passes on every byte, until this is dropped.
struct RawMode(Termios);

impl RawMode {
    fn enter() -> Result<Self> {
        let before = rustix::termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that has gone away needs no restoring.
        let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
