//! A conversation with systemd: connect, say everything at once, wait for the answer.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use linux::{Errno, fd, poll, socket};

use super::super::Error;
use super::message::{self, Incoming, PROLOGUE, Target, Writer};

/// How long systemd may take for a job. It moves one process; under load that is milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

const BUS: Target = Target {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

const MANAGER: Target = Target {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};

/// systemd tells the end of a job to whoever listens to this.
const JOB_REMOVED: &str =
    "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

const HELLO: u32 = 1;
const LISTEN: u32 = 2;
const REQUEST: u32 = 3;

/// Which systemd: the one that is process 1, or that of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    System,
    User,
}

/// An open connection to the bus.
#[derive(Debug)]
pub(super) struct Bus {
    socket: OwnedFd,
    address: PathBuf,
}

/// How a request ended that systemd refused.
#[derive(Debug)]
pub(super) enum Refused {
    /// systemd's answer, by the name of its error.
    Error { name: String, text: String },
    /// The job ended otherwise than done: `failed`, `canceled`, `timeout`, `dependency`.
    Job(String),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Error { name, text } => write!(f, "{text} ({name})"),
            Self::Job(result) => write!(f, "the job ended as {result}"),
        }
    }
}

impl Bus {
    pub(super) fn connect(scope: Scope) -> Result<Self, Error> {
        let address = address(scope)?;
        let socket = socket::connect_to(&address).map_err(|cause| Error::Kernel {
            step: "reach systemd over D-Bus".to_owned(),
            cause: Box::new(cause),
            remedy: "; is systemd running here, with D-Bus? Without it, leave `--systemd-cgroup` \
                     out and give a plain `cgroupsPath`"
                .to_owned(),
        })?;
        Ok(Self { socket, address })
    }

    /// Calls a method of systemd's manager. With `waits_for_job`, waits until the job that it
    /// starts is done, too.
    ///
    /// Authentication, greeting, subscription and call go out in one piece, as sd-bus does it: the
    /// other side reads them one after the other, and there is one answer to wait for.
    pub(super) fn call(
        &self,
        member: &str,
        signature: &str,
        waits_for_job: bool,
        body: impl FnOnce(&mut Writer),
    ) -> Result<Result<(), Refused>, Error> {
        let mut out = greeting();
        out.extend(message::call(HELLO, BUS, "Hello", "", |_| {}));
        if waits_for_job {
            out.extend(message::call(LISTEN, BUS, "AddMatch", "s", |w| w.text(JOB_REMOVED)));
        }
        out.extend(message::call(REQUEST, MANAGER, member, signature, body));
        fd::write_all(&self.socket, &out).map_err(|cause| self.failed(cause))?;
        let mut input = Input { bus: self, end: Instant::now() + PATIENCE, buffer: Vec::new() };
        input.skip_authentication()?;
        let mut job = None;
        // The job may be over before the call is answered.
        let mut over: Vec<(String, String)> = Vec::new();
        loop {
            let message = input.message()?;
            match message.kind {
                message::ERROR => {
                    let text = message.texts.into_iter().next().unwrap_or_default();
                    return Ok(Err(Refused::Error { name: message.error, text }));
                }
                message::RETURN if message.reply_to == REQUEST && !waits_for_job => {
                    return Ok(Ok(()));
                }
                message::RETURN if message.reply_to == REQUEST => {
                    job = message.texts.into_iter().next();
                }
                message::SIGNAL if message.member == "JobRemoved" => {
                    if let [path, _unit, result] = &message.texts[..] {
                        over.push((path.clone(), result.clone()));
                    }
                }
                _ => {}
            }
            let ours = |(path, _): &&(String, String)| Some(path) == job.as_ref();
            match over.iter().find(ours) {
                Some((_, result)) if result == "done" => return Ok(Ok(())),
                Some((_, result)) => return Ok(Err(Refused::Job(result.clone()))),
                None => {}
            }
        }
    }

    fn failed(&self, cause: linux::Error) -> Error {
        Error::kernel(format!("talk to systemd over {}", self.address.display()), cause)
    }
}

/// The bytes that come in, cut into lines and messages.
struct Input<'a> {
    bus: &'a Bus,
    end: Instant,
    buffer: Vec<u8>,
}

impl Input<'_> {
    /// Waits for more.
    fn more(&mut self) -> Result<(), Error> {
        let socket = self.bus.socket.as_fd();
        let left = self.end.saturating_duration_since(Instant::now());
        let ready = poll::wait_readable(socket, Some(left)).map_err(|c| self.bus.failed(c))?;
        let silent =
            |errno| self.bus.failed(linux::Error::new("read", "the answer of systemd", errno));
        if !ready {
            return Err(silent(Errno::ETIMEDOUT));
        }
        let mut bytes = [0; 4096];
        let length = fd::read(socket, &mut bytes).map_err(|cause| self.bus.failed(cause))?;
        if length == 0 {
            return Err(silent(Errno::ECONNRESET));
        }
        self.buffer.extend(&bytes[..length]);
        Ok(())
    }

    fn skip_authentication(&mut self) -> Result<(), Error> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let is_accepted = self.buffer.starts_with(b"OK ");
                self.buffer.drain(..end + 2);
                if is_accepted {
                    return Ok(());
                }
                let refused = linux::Error::new("AUTH", "EXTERNAL", Errno::EACCES);
                return Err(self.bus.failed(refused));
            }
            self.more()?;
        }
    }

    fn message(&mut self) -> Result<Incoming, Error> {
        loop {
            if let Some(prologue) = self.buffer.first_chunk::<PROLOGUE>() {
                let malformed = || {
                    let error = linux::Error::new("read", "a D-Bus message", Errno::EBADMSG);
                    self.bus.failed(error)
                };
                let length = message::full_length(prologue).ok_or_else(malformed)?;
                if let Some(bytes) = self.buffer.get(..length) {
                    let message = message::parse(bytes).ok_or_else(malformed)?;
                    self.buffer.drain(..length);
                    return Ok(message);
                }
            }
            self.more()?;
        }
    }
}

/// The socket of the bus, from the environment or from where every distribution has it.
fn address(scope: Scope) -> Result<PathBuf, Error> {
    let (variable, usual) = match scope {
        Scope::System => {
            ("DBUS_SYSTEM_BUS_ADDRESS", Some(PathBuf::from("/run/dbus/system_bus_socket")))
        }
        Scope::User => (
            "DBUS_SESSION_BUS_ADDRESS",
            std::env::var_os("XDG_RUNTIME_DIR").map(|dir| Path::new(&dir).join("bus")),
        ),
    };
    let given = std::env::var(variable).ok().and_then(|value| socket_of(&value));
    given.or(usual).ok_or_else(|| Error::Unreadable {
        file: format!("${variable}"),
        why: "it is not set, nor is XDG_RUNTIME_DIR: log in with a session of systemd (as with \
              `machinectl shell` or `ssh`), or leave `--systemd-cgroup` out"
            .to_owned(),
    })
}

/// The path in `unix:path=/run/bus,guid=…;…`.
fn socket_of(addresses: &str) -> Option<PathBuf> {
    let unix = addresses.split(';').filter_map(|address| address.strip_prefix("unix:"));
    let path = |address: &str| -> Option<PathBuf> {
        address.split(',').find_map(|option| option.strip_prefix("path=")).map(PathBuf::from)
    };
    unix.into_iter().find_map(path)
}

/// Who we are, in the words of SASL: the kernel tells the other side our user; we name the same.
fn greeting() -> Vec<u8> {
    let user = linux::credentials::effective_user().to_string();
    let hex: String = user.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_socket_with_a_path_is_taken() {
        let value = "tcp:host=x;unix:abstract=/tmp/y;unix:guid=1,path=/run/user/1/bus,a=b";
        assert_eq!(socket_of(value), Some("/run/user/1/bus".into()));
        assert_eq!(socket_of("unix:abstract=/tmp/y"), None);
    }
}
