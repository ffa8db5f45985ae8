//! A command in a guest.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use crate::{
    error::{GuestError, refused},
    guest::Guest,
    protocol::{Exec, Kind, Status, WindowSize, decode},
};

/// What a command did.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: Status,
    /// What it wrote on standard output.
    pub stdout: Vec<u8>,
    /// What it wrote on standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    #[must_use]
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// A command that is about to run.
#[derive(Debug)]
#[must_use = "a command does nothing until it is run"]
pub struct Command<'guest> {
    guest: &'guest mut Guest,
    exec: Exec,
    timeout: Option<Duration>,
    stream: bool,
}

impl<'guest> Command<'guest> {
    pub(crate) fn new(guest: &'guest mut Guest, exec: Exec, timeout: Duration) -> Self {
        Self { guest, exec, timeout: Some(timeout), stream: false }
    }

    /// Adds a variable to its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.exec.env.insert(name.into(), value.into());
        self
    }

    /// Sets its working directory.
    pub fn current_dir(mut self, directory: &str) -> Self {
        self.exec.cwd = directory.into();
        self
    }

    /// How long it may take on real hardware; ten times that when emulated.
    pub fn timeout(mut self, native: Duration) -> Self {
        self.timeout = Some(self.guest.patience(native));
        self
    }

    /// How long it may take by the clock on the wall; `None`: as long as it likes.
    pub fn deadline(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// Also prints its output here while it runs.
    pub fn stream(mut self) -> Self {
        self.stream = true;
        self
    }

    /// Gives it bytes to read.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn run_with_input(mut self, input: &[u8]) -> Result<Output, GuestError> {
        self.exec.stdin = true;
        self.guest.start(&self.exec)?;
        for chunk in input.chunks(64 * 1024) {
            self.guest.send(Kind::Stdin, chunk)?;
        }
        self.guest.send(Kind::StdinEnd, b"")?;
        self.collect()
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn run(self) -> Result<Output, GuestError> {
        self.guest.start(&self.exec)?;
        self.collect()
    }

    fn collect(self) -> Result<Output, GuestError> {
        let started = Instant::now();
        let mut deadline = self.timeout.map(|timeout| started + timeout);
        let mut killed = false;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            match self.guest.next_frame(deadline)? {
                Some((Kind::Stdout, bytes)) => {
                    if self.stream {
                        let mut to = io::stdout().lock();
                        to.write_all(&bytes).and_then(|()| to.flush())?;
                    }
                    stdout.extend(bytes);
                }
                Some((Kind::Stderr, bytes)) => {
                    if self.stream {
                        io::stderr().lock().write_all(&bytes)?;
                    }
                    stderr.extend(bytes);
                }
                Some((Kind::Exit, status)) if !killed => {
                    return Ok(Output { status: decode(&status)?, stdout, stderr });
                }
                Some((Kind::Exit, _)) => {
                    return Err(GuestError::CommandTimeout {
                        command: quote(&self.exec.argv),
                        timeout: self.timeout.unwrap_or_default(),
                    });
                }
                Some((Kind::Refused, reason)) => return Err(refused(&reason)),
                Some((other, _)) => {
                    let message = format!("{other:?} while a command ran");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, message).into());
                }
                None if killed => {
                    return Err(GuestError::Hung {
                        command: quote(&self.exec.argv),
                        timeout: self.timeout.unwrap_or_default(),
                        console: self.guest.console(),
                    });
                }
                None => {
                    killed = true;
                    let grace = self.guest.patience(Duration::from_secs(3));
                    deadline = Some(Instant::now() + grace);
                    self.guest.send(Kind::Kill, b"")?;
                }
            }
        }
    }

    pub(crate) fn with_terminal(mut self, size: WindowSize) -> Exec {
        self.exec.terminal = Some(size);
        self.exec
    }
}

/// A command as one would type it.
#[must_use]
pub fn quote<S: AsRef<str>>(argv: &[S]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    let words = argv.iter().map(|word| match word.as_ref() {
        word if !word.is_empty() && word.chars().all(plain) => word.to_owned(),
        word => format!("'{}'", word.replace('\'', r"'\''")),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_survives_a_shell() {
        let argv = ["printf", "%s|", "", "a b", "it's", "$HOME", "new\nline", "*", "ü"];
        let output = std::process::Command::new("sh").args(["-c", &quote(&argv)]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "|a b|it's|$HOME|new\nline|*|ü|");
        assert_eq!(quote(&["crun", "--root=/x", "a.b"]), "crun --root=/x a.b");
    }
}
