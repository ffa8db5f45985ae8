//! The messages between a container's creator and its init.
//!
//! ```text
//! creator                                   init
//!    │  clone3 ───────────────────────────▶  │   waits for maps, or for systemd
//!    │  Mapped ───────────────────────────▶  │   they are written; it is in its cgroup
//!    │                                       │   … builds the container …
//!    │  ◀───────────────────────── Mounted   │   only if there are hooks that want this moment
//!    │  (prestart, createRuntime hooks)      │
//!    │  Go ───────────────────────────────▶  │   createContainer hooks, pivot, terminal, …
//!    │  ◀─────────────────── Ready (+ fds)   │   ready to become the program
//!    │  (state: created; pid file)           │
//!    │  Release ──────────────────────────▶  │   run: at once; create: init waits for `start`
//! ```
//! At any time init may send `Told` (a traced step), `Warn`, or `Failed` and end. After execve the
//! socket is closed (close-on-exec), which is how success is seen. `start` talks to init in the
//! same way, over a socket in the container's state directory: it sends `Release` and reads until
//! the end.
//!
//! The socket keeps message boundaries (`SOCK_SEQPACKET`). A message is one byte that says what it
//! is, and for three kinds a JSON text; a message that does not fit the buffer is an error.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use linux::{fd, socket};
use serde::{Deserialize, Serialize};

use crate::error::{Cause, Failure};
use crate::explain::Record;

/// The longest message. Traced calls are cut to fit, everything else is far below.
pub(crate) const MAX_MESSAGE: usize = 64 * 1024;

/// A message, one way or the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Message {
    /// To init: the user namespace is mapped, and it is in its cgroup.
    Mapped,
    /// To the creator, from a process that clones for it: the other exists. Carries its pidfd.
    Born(i32),
    /// To the creator: all mounts are there, the root is not changed yet.
    Mounted,
    /// To init: the hooks have run; and its number as its creator sees it.
    Go(i32),
    /// To the creator: everything is done but the last steps. Carries the terminal's master side.
    Ready,
    /// To the creator: the filter is loaded, and this is the number of its listener. Said by
    /// write(2): init is under its filter already.
    Listening(i32),
    /// To init: become the program (or wait for `start`).
    Release,
    /// To the creator: something is not as asked, and it is no error.
    Warn(String),
    /// To the creator: init gives up.
    Failed(Failure),
    /// To the creator: a step was done (only when tracing).
    Told(Record),
}

/// One end of the conversation.
#[derive(Debug)]
pub(crate) struct Line(OwnedFd);

/// What was heard.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A message, and the descriptors that came with it.
    Message(Message, Vec<OwnedFd>),
    /// The other end is closed.
    End,
}

impl Line {
    /// Makes both ends: (creator's, init's).
    pub(crate) fn pair() -> linux::Result<(Self, Self)> {
        socket::pair().map(|(creator, init)| (Self(creator), Self(init)))
    }

    /// Takes a connected socket.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// The same end once more.
    pub(crate) fn again(&self) -> Result<Self, Cause> {
        let again = self.0.try_clone().map_err(|error| Cause::new(format!("dup: {error}")))?;
        Ok(Self(again))
    }

    /// Says something.
    pub(crate) fn say(&self, message: &Message) -> linux::Result<()> {
        self.say_with(message, &[])
    }

    /// Says something and hands descriptors over.
    pub(crate) fn say_with(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> linux::Result<()> {
        socket::send(&self.0, &encode(message), fds)
    }

    /// Says that the filter's listener is to be fetched, and waits until it is, with write(2) and
    /// read(2) alone: a filter that hands out anything else for decision would stop us here.
    pub(crate) fn offer(&self, listener: BorrowedFd<'_>) -> Result<(), Cause> {
        fd::write_all(&self.0, &encode(&Message::Listening(listener.as_raw_fd())))?;
        let mut answer = [0; 16];
        let length = fd::read(self.0.as_fd(), &mut answer)?;
        match answer.get(..length).and_then(decode) {
            Some(Message::Release) => Ok(()),
            _ => Err(Cause::new("nobody took the listener of the filter")),
        }
    }

    /// Waits for the next message.
    pub(crate) fn hear(&self) -> Result<Heard, Cause> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let received = match socket::receive(&self.0, &mut buffer) {
            Ok(received) => received,
            // The other end died with unread messages of ours in its queue.
            Err(error) if error.errno == linux::Errno::ECONNRESET => return Ok(Heard::End),
            Err(error) => return Err(error.into()),
        };
        if received.length == 0 {
            return Ok(Heard::End);
        }
        let bytes = buffer.get(..received.length).unwrap_or_default();
        let message = decode(bytes).ok_or_else(|| Cause::new("a message that is none"))?;
        Ok(Heard::Message(message, received.fds))
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn encode(message: &Message) -> Vec<u8> {
    let (kind, text) = match message {
        Message::Mapped => (b'M', None),
        Message::Mounted => (b'm', None),
        Message::Go(pid) => (b'G', serde_json::to_vec(pid).ok()),
        Message::Born(pid) => (b'B', serde_json::to_vec(pid).ok()),
        Message::Listening(number) => (b'L', serde_json::to_vec(number).ok()),
        Message::Ready => (b'R', None),
        Message::Release => (b'r', None),
        Message::Warn(text) => (b'W', serde_json::to_vec(text).ok()),
        Message::Failed(failure) => (b'F', serde_json::to_vec(failure).ok()),
        Message::Told(record) => (b'T', serde_json::to_vec(&record.cut_to(MAX_MESSAGE / 2)).ok()),
    };
    std::iter::once(kind).chain(text.unwrap_or_default()).collect()
}

fn decode(bytes: &[u8]) -> Option<Message> {
    let (kind, text) = bytes.split_first()?;
    let message = match kind {
        b'M' => Message::Mapped,
        b'm' => Message::Mounted,
        b'R' => Message::Ready,
        b'r' => Message::Release,
        b'B' => return serde_json::from_slice(text).ok().map(Message::Born),
        b'L' => return serde_json::from_slice(text).ok().map(Message::Listening),
        b'G' => return serde_json::from_slice(text).ok().map(Message::Go),
        b'W' => return serde_json::from_slice(text).ok().map(Message::Warn),
        b'F' => return serde_json::from_slice(text).ok().map(Message::Failed),
        b'T' => return serde_json::from_slice(text).ok().map(Message::Told),
        _ => return None,
    };
    text.is_empty().then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::Step;

    fn failure() -> Failure {
        Failure {
            step: Step::Mounts,
            object: "proc at /proc".into(),
            cause: "EPERM".into(),
            errno: 1,
            remedy: None,
        }
    }

    #[test]
    fn every_message_survives_the_wire() {
        for message in [
            Message::Mapped,
            Message::Mounted,
            Message::Go(42),
            Message::Born(7),
            Message::Listening(9),
            Message::Ready,
            Message::Release,
            Message::Warn("a \"quoted\" warning".into()),
            Message::Failed(failure()),
        ] {
            assert_eq!(decode(&encode(&message)), Some(message));
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let hostile: [&[u8]; 6] = [b"", b"X", b"Mtail", b"F{", b"F{}", b"W\xff"];
        for bytes in hostile {
            assert_eq!(decode(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_closed_line_ends() {
        let (creator, init) = Line::pair().unwrap();
        init.say(&Message::Ready).unwrap();
        drop(init);
        assert!(matches!(creator.hear(), Ok(Heard::Message(Message::Ready, _))));
        assert!(matches!(creator.hear(), Ok(Heard::End)));
    }
}
