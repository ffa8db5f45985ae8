//! A container's standard streams: pipes, or a terminal. Our ends are with the keeper.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};
use linux::socket;
use tokio::process::Command;

use crate::keeper::client::Keeper;
use crate::settings::Settings;

/// Where the runtime finds us, in the bundle.
const CONSOLE: &str = "console.sock";

/// What a container gets.
pub(super) enum Streams {
    /// Input, output and errors.
    Pipes(Stdio, OwnedFd, OwnedFd),
    /// A terminal, which the runtime makes inside the container and sends us over this socket.
    Terminal(UnixListener),
}

impl Streams {
    /// Makes them. Of pipes the keeper has our ends already, so that no output is ever lost.
    pub(super) fn make(
        settings: &Settings,
        name: &str,
        bundle: &Path,
        keeper: &Keeper,
    ) -> Result<Streams> {
        if settings.terminal {
            let directory = File::open(bundle).context("cannot open the bundle")?;
            // Through the descriptor: a socket's address has 107 bytes, a path may have more.
            let path = format!("/proc/self/fd/{}/{CONSOLE}", directory.as_raw_fd());
            let _ = std::fs::remove_file(bundle.join(CONSOLE));
            let listener = UnixListener::bind(path).context("cannot wait for the terminal")?;
            return Ok(Streams::Terminal(listener));
        }
        let (out, their_out) = pipe()?;
        let (err, their_err) = pipe()?;
        keeper.put(&format!("stdout/{name}"), out);
        keeper.put(&format!("stderr/{name}"), err);
        let input = match settings.stdin_open {
            true => {
                // Nobody writes into it, and as long as it is kept it does not end.
                let (theirs, input) = pipe()?;
                keeper.put(&format!("stdin/{name}"), input);
                Stdio::from(theirs)
            }
            false => Stdio::null(),
        };
        Ok(Streams::Pipes(input, their_out, their_err))
    }

    /// Hands them to a call of `create`, whose working directory is the bundle. What is left is
    /// where a terminal will come.
    pub(super) fn hand_to(self, create: &mut Command) -> Option<UnixListener> {
        match self {
            Streams::Pipes(input, out, err) => {
                create.stdin(input).stdout(out).stderr(err);
                None
            }
            Streams::Terminal(listener) => {
                create.args(["--console-socket", CONSOLE]);
                create.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                Some(listener)
            }
        }
    }
}

/// Takes the terminal that a successful `create` has sent.
pub(super) fn take_terminal(listener: UnixListener) -> Result<OwnedFd> {
    // It has connected and sent before it ended, or it never will.
    listener.set_nonblocking(true)?;
    let (connection, _) = listener.accept().context("the runtime has sent no terminal")?;
    let mut name = [0; 4096];
    let received = socket::receive(&connection, &mut name).context("receive the terminal")?;
    received.fds.into_iter().next().context("the runtime's message had no terminal in it")
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    Ok((OwnedFd::from(reader), OwnedFd::from(writer)))
}
