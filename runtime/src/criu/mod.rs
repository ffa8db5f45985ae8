//! CRIU, the program that takes running processes apart and puts them together again.
//!
//! It is another project's program, found when it is needed, and spoken to over a socket (`criu
//! swrk`, its "RPC"): a request, notifications in between that wait for a word of ours, an answer.
//! ```text
//! minirun                                criu swrk
//!    │  Request (dump, restore) ──────────▶ │
//!    │  ◀──────────── Answer: notification  │   "setup-namespaces", "post-restore", …
//!    │  Request: notified ────────────────▶ │
//!    │  ◀────────────────── Answer: success │   … or not; its log says why
//! ```
//! See: <https://criu.org/RPC>.

pub(crate) mod images;
pub(crate) mod message;
pub(crate) mod mounts;

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use linux::clone::{Birth, Child, Strings, execute, spawn};
use linux::{OFlag, fd, path, pidfd, signal, socket};
use prost::Message as _;

use crate::container::handshake::{Heard, Line, Message};
use crate::error::{Cause, Error, Failure, Result};
use crate::steps::Step;
use message::{Answer, Kind, Notify, Options, Request};

/// Where programs of system administrators are, beside what PATH says.
const PLACES: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The longest answer: a notification with a name, or an error's text.
const LONGEST_ANSWER: usize = 64 * 1024;
/// How many of the last errors in CRIU's log an error of ours repeats.
const REPEATED: usize = 4;

/// The name by which a network namespace from outside is known in the images.
pub(crate) const OUTER_NETWORK: &str = "extRootNetNS";
/// The same for a PID namespace.
pub(crate) const OUTER_PIDS: &str = "extRootPidNS";

/// CRIU's levels of saying: errors, warnings, what it does, and why.
const LOG_LEVEL: i32 = 4;

/// How CRIU treats cgroups, `--manage-cgroups-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CgroupMode {
    /// Not at all: minirun puts the processes into the container's group itself.
    Ignore,
    /// It makes groups again that are gone, and sets what is set in those.
    Soft,
    /// It sets everything everywhere.
    Full,
    /// Nothing may be there before.
    Strict,
}

impl CgroupMode {
    /// The mode of that name.
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "soft" => Self::Soft,
            "full" => Self::Full,
            "strict" => Self::Strict,
            _ => Self::Ignore,
        }
    }

    /// Its number in a request.
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Ignore => 0,
            Self::Soft => 3,
            Self::Full => 4,
            Self::Strict => 5,
        }
    }
}

/// Finds the program.
pub(crate) fn find() -> Result<PathBuf> {
    let places = search_path();
    let found =
        places.split(':').map(|dir| Path::new(dir).join("criu")).find(|file| file.is_file());
    found.ok_or_else(|| {
        let cause = Cause::new("criu: executable file not found in $PATH").remedy(
            "checkpoint and restore are done by CRIU: install its package (Debian: apt install \
             criu)",
        );
        at("the program criu", cause).into()
    })
}

fn search_path() -> String {
    let asked = std::env::var("PATH").unwrap_or_default();
    if asked.is_empty() { PLACES.to_owned() } else { format!("{asked}:{PLACES}") }
}

/// A CRIU that listens to us.
#[derive(Debug)]
pub(crate) struct Session {
    /// Always there once it is started.
    socket: Option<OwnedFd>,
    child: Child,
}

/// A notification, with the descriptors that came with it.
pub(crate) type Told<'a> = (&'a Notify, Vec<OwnedFd>);

impl Session {
    /// Clones a process, lets `place` put it where it belongs and `prepare` (in the process) make
    /// ready what CRIU will find, and makes it CRIU. It keeps the descriptors `kept`, and our
    /// standard streams only for a `shell_job`, whose terminal they are: the tools that CRIU calls
    /// have things to say that are not the container's.
    pub(crate) fn start(
        program: &Path,
        birth: Birth<'_>,
        (kept, shell_job): (&[RawFd], bool),
        place: impl FnOnce(&Child) -> Result<()>,
        prepare: impl FnOnce() -> Result<(), Cause>,
    ) -> Result<Self> {
        let failed = |what: &'static str| Error::kernel(what);
        let (line, inner) = Line::pair().map_err(failed("make the line to criu"))?;
        let environment = std::env::vars()
            .filter(|(name, _)| name != "PATH")
            .chain([("PATH".to_owned(), search_path())])
            .map(|(name, value)| format!("{name}={value}"));
        let environment = Strings::new(environment)
            .ok_or_else(|| Error::Config("the environment holds a NUL byte".into()))?;
        let child = spawn(birth, || {
            let become_criu = || {
                let ours = [inner.as_fd().as_raw_fd()];
                fd::close_all_but(&[kept, &ours].concat())?;
                match inner.hear()? {
                    Heard::Message(Message::Mapped, _) => {}
                    _ => return Err(Cause::new("minirun is gone")),
                }
                prepare()?;
                signal::reset_all()?;
                if !shell_job {
                    let null = path::open(Path::new("/dev/null"), OFlag::O_RDWR)?;
                    (0..3).try_for_each(|stream| fd::place_at(null.as_fd(), stream))?;
                }
                // The descriptors that a request names are those of whoever made the socket: of
                // this process, which may be in another mount namespace than minirun.
                let (socket, theirs) = socket::pair()?;
                inner.say_with(&Message::Ready, &[socket.as_fd()])?;
                fd::keep_on_exec(theirs.as_fd())?;
                let number = theirs.as_raw_fd().to_string();
                let words = Strings::new(["criu", "swrk", &number])
                    .ok_or_else(|| Cause::new("a NUL byte"))?;
                Err::<std::convert::Infallible, _>(execute(program, &words, &environment).into())
            };
            let Err(cause) = become_criu();
            drop(inner.say(&Message::Failed(at("criu", cause))));
            1
        });
        let child = child.map_err(failed("clone a process for criu"))?;
        drop(inner);
        let mut born = Self { socket: None, child };
        place(&born.child)?;
        line.say(&Message::Mapped).map_err(failed("talk to the process of criu"))?;
        loop {
            match line.hear().map_err(|cause| at("criu", cause))? {
                Heard::Message(Message::Ready, fds) => born.socket = fds.into_iter().next(),
                Heard::Message(Message::Failed(failure), _) => return Err(failure.into()),
                Heard::End if born.socket.is_some() => return Ok(born),
                _ => return Err(at("criu", Cause::new("its process died")).into()),
            }
        }
    }

    /// Asks for something, passes on what CRIU notifies about, and gives its answer. `log` is where
    /// it writes what it does.
    pub(crate) fn request(
        &self,
        kind: Kind,
        options: Options,
        log: &Path,
        mut told: impl FnMut(Told<'_>) -> Result<()>,
    ) -> Result<Answer> {
        let file = log.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let options =
            Options { log_level: LOG_LEVEL, log_file: file, notify_scripts: true, ..options };
        self.say(Request { kind: kind as i32, options: Some(options), notified: None })?;
        let mut refused = None;
        loop {
            let (answer, fds) = self.hear(log)?;
            let Some(notify) = answer.notify.as_ref().filter(|_| answer.kind() == Kind::Notify)
            else {
                return match (answer.success, refused) {
                    (_, Some(error)) => Err(error),
                    (true, None) => Ok(answer),
                    (false, None) => Err(failed(kind, &answer, log)),
                };
            };
            let result = told((notify, fds));
            let notified = Some(result.is_ok());
            refused = refused.or(result.err());
            self.say(Request { kind: Kind::Notify as i32, options: None, notified })?;
        }
    }

    fn socket(&self) -> Result<&OwnedFd> {
        let none = || Error::WrongState("criu was not started".into());
        self.socket.as_ref().ok_or_else(none)
    }

    fn say(&self, request: Request) -> Result<()> {
        socket::send(self.socket()?, &request.encode_to_vec(), &[])
            .map_err(Error::kernel("talk to criu"))
    }

    fn hear(&self, log: &Path) -> Result<(Answer, Vec<OwnedFd>)> {
        let mut buffer = vec![0; LONGEST_ANSWER];
        let received = socket::receive(self.socket()?, &mut buffer)
            .map_err(Error::kernel("listen to criu"))?;
        let bytes = buffer.get(..received.length).unwrap_or_default();
        if bytes.is_empty() {
            let why = last_errors(log);
            return Err(at("criu", Cause::new(format!("it ended without an answer{why}"))).into());
        }
        let answer = Answer::decode(bytes)
            .map_err(|error| at("criu", Cause::new(format!("its answer: {error}"))))?;
        Ok((answer, received.fds))
    }
}

impl Drop for Session {
    /// CRIU ends when the socket does; one that hangs must not outlive us.
    fn drop(&mut self) {
        drop(pidfd::signal(&self.child.pidfd, 9));
        drop(pidfd::wait(&self.child.pidfd));
    }
}

fn failed(kind: Kind, answer: &Answer, log: &Path) -> Error {
    let what = if kind == Kind::Restore { "restore" } else { "dump" };
    let said = answer.message.as_deref().filter(|text| !text.is_empty());
    let said = said.map(|text| format!(": {text}")).unwrap_or_default();
    let errno = answer.errno.filter(|number| *number != 0);
    let errno = errno.map(|number| format!(" (errno {number})")).unwrap_or_default();
    let cause = Cause::new(format!("{what} failed{errno}{said}{}", last_errors(log)));
    at("criu", cause.remedy(format!("the whole log is {}", log.display()))).into()
}

/// The last errors in a log of CRIU, as the end of a sentence.
fn last_errors(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let errors: Vec<&str> = text
        .lines()
        .filter_map(|line| line.find("Error (").and_then(|at| line.get(at..)))
        .collect();
    let last = errors.get(errors.len().saturating_sub(REPEATED)..).unwrap_or_default();
    if last.is_empty() { String::new() } else { format!(": {}", last.join("; ")) }
}

fn at(object: &str, cause: Cause) -> Failure {
    Failure {
        step: Step::Checkpoint,
        object: object.to_owned(),
        cause: cause.text,
        errno: cause.errno,
        remedy: cause.remedy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_errors_of_a_log_are_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("dump.log");
        assert_eq!(last_errors(&log), "");
        std::fs::write(&log, "(00.1) Warn  (a.c:1): w\n(00.2) Error (b.c:2): no\n(00.3) x\n")
            .unwrap();
        assert_eq!(last_errors(&log), ": Error (b.c:2): no");
    }

    #[test]
    fn the_search_path_always_has_the_administrators_programs() {
        assert!(search_path().split(':').any(|dir| dir == "/usr/sbin"));
    }
}
