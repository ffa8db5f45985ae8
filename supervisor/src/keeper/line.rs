//! The keeper's end of the line to its brain, which never makes the keeper wait.
//!
//! Both ends talk without being asked: the brain has descriptors kept, the keeper tells of ends. If
//! both waited for room in the other's queue, neither would ever read again, which is what a
//! thousand containers that end together are enough for. So the keeper, which everything hangs on,
//! puts off what does not fit, and the brain may wait for it.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Result;
use linux::{Errno, fd, poll, socket};

/// Something to tell the brain.
#[derive(Debug)]
pub(super) enum Word {
    /// What is kept under this name, with its descriptor; nothing if it has been dropped since.
    Have(String),
    /// A sentence.
    Text(String),
}

/// The line, and what waits for room in it.
#[derive(Debug)]
pub(super) struct Line {
    socket: OwnedFd,
    waiting: VecDeque<Word>,
}

impl Line {
    /// Takes our end over.
    pub(super) fn new(socket: OwnedFd) -> Result<Line> {
        fd::set_nonblocking(socket.as_fd())?;
        Ok(Line { socket, waiting: VecDeque::new() })
    }

    /// Our end, for whoever only waits for the other one's.
    pub(super) fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// What to wait for: words of the brain, and room if something waits for it.
    pub(super) fn interest(&self) -> (BorrowedFd<'_>, poll::Ready) {
        let writable = !self.waiting.is_empty();
        (self.socket.as_fd(), poll::Ready { readable: true, writable, ..poll::Ready::default() })
    }

    /// Tells the brain something, now or when it has read what came before. What a brain that is
    /// gone misses, the next one asks for.
    pub(super) fn tell(&mut self, word: Word, kept: &BTreeMap<String, OwnedFd>) {
        self.waiting.push_back(word);
        self.flush(kept);
    }

    /// Tells as much of what waits as there is room for.
    pub(super) fn flush(&mut self, kept: &BTreeMap<String, OwnedFd>) {
        while let Some(word) = self.waiting.front() {
            let sent = match word {
                Word::Text(text) => socket::send(&self.socket, text.as_bytes(), &[]),
                Word::Have(name) => match kept.get(name) {
                    Some(fd) => {
                        let text = format!("have {name}");
                        socket::send(&self.socket, text.as_bytes(), &[fd.as_fd()])
                    }
                    None => Ok(()),
                },
            };
            match sent {
                Err(error) if error.errno == Errno::EAGAIN => return,
                // Any other refusal is the brain's end, which `hear` finds out.
                Ok(()) | Err(_) => drop(self.waiting.pop_front()),
            }
        }
    }

    /// Nothing waits to be told.
    pub(super) fn is_quiet(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What the brain has said: nothing more for now, or its end.
    pub(super) fn hear(&self, buffer: &mut [u8]) -> Heard {
        match socket::receive(&self.socket, buffer) {
            Ok(message) if message.length > 0 => {
                let text = String::from_utf8_lossy(&buffer[..message.length]).into_owned();
                Heard::Said(text, message.fds)
            }
            Err(error) if error.errno == Errno::EAGAIN => Heard::Nothing,
            Ok(_) | Err(_) => Heard::Gone,
        }
    }
}

/// What is on the line.
#[derive(Debug)]
pub(super) enum Heard {
    /// A message, with what came in it.
    Said(String, Vec<OwnedFd>),
    /// Nothing more for now.
    Nothing,
    /// The brain's end is closed.
    Gone,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_waits_and_arrives_in_order() {
        let (ours, theirs) = socket::pair().unwrap();
        let mut line = Line::new(ours).unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let kept = BTreeMap::from([("pipe".to_string(), OwnedFd::from(null))]);
        // More than any socket's queue holds; a line that waits would stop here for ever.
        let many = 20_000;
        for number in 0..many {
            line.tell(Word::Text(number.to_string()), &kept);
        }
        line.tell(Word::Have("dropped".into()), &kept);
        line.tell(Word::Have("pipe".into()), &kept);
        assert!(line.interest().1.writable);
        let mut buffer = [0; 64];
        for number in 0..many {
            let message = socket::receive(&theirs, &mut buffer).unwrap();
            assert_eq!(&buffer[..message.length], number.to_string().as_bytes());
            line.flush(&kept);
        }
        let last = socket::receive(&theirs, &mut buffer).unwrap();
        assert_eq!((&buffer[..last.length], last.fds.len()), (&b"have pipe"[..], 1));
        assert!(!line.interest().1.writable);
        assert!(matches!(line.hear(&mut buffer), Heard::Nothing));
        drop(theirs);
        assert!(matches!(line.hear(&mut buffer), Heard::Gone));
    }
}
