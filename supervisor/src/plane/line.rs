//! One end of the connection between brain and data plane.
//!
//! Neither side ever waits for the other: what does not fit into the socket waits here, and goes as
//! soon as there is room. A side that reads nothing while [`MOST_WAITING`] messages gather is as
//! good as dead, and is cut off.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use linux::{Errno, socket};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};
use tokio::sync::Notify;

/// The longest message, in bytes.
const MESSAGE: usize = 1 << 18;
/// The most messages that wait: some for each of several thousand instances.
const MOST_WAITING: usize = 1 << 15;

/// A message that waits for room, with its descriptor.
type Waiting = (Vec<u8>, Option<OwnedFd>);

/// The connection.
#[derive(Debug)]
pub(crate) struct Line {
    socket: AsyncFd<OwnedFd>,
    waiting: RefCell<VecDeque<Waiting>>,
    /// Something has changed that [`Line::hear`] has to know, besides what the socket tells.
    changed: Notify,
    cut: Cell<bool>,
}

impl Line {
    /// Takes a connected socket over.
    pub(crate) fn new(socket: OwnedFd) -> Result<Line> {
        linux::fd::set_nonblocking(socket.as_fd())?;
        let socket = crate::ready::both_ways(socket)?;
        let (changed, cut) = (Notify::new(), Cell::new(false));
        Ok(Line { socket, waiting: RefCell::default(), changed, cut })
    }

    /// Says something, at once or, while somebody is in [`Line::hear`], as soon as there is room.
    pub(crate) fn say(&self, what: &impl Serialize, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        let text = serde_json::to_vec(what)?;
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() && self.send(&text, fd)? {
            return Ok(());
        }
        if waiting.len() == MOST_WAITING {
            bail!("the other side does not read: {MOST_WAITING} messages wait for it");
        }
        let fd = fd.map(|fd| fd.try_clone_to_owned()).transpose();
        waiting.push_back((text, fd.context("copy a descriptor that has to wait")?));
        self.changed.notify_one();
        Ok(())
    }

    /// Sends a message; `false` when there is no room.
    fn send(&self, text: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<bool> {
        match socket::send(self.socket.get_ref(), text, fd.as_slice()) {
            Ok(()) => Ok(true),
            Err(error) if error.errno == Errno::EAGAIN => Ok(false),
            Err(error) => Err(error).context("the other side cannot be told"),
        }
    }

    /// Sends what waits; `false` when there is no room for all.
    fn flush(&self) -> Result<bool> {
        let mut waiting = self.waiting.borrow_mut();
        while let Some((text, fd)) = waiting.front() {
            if !self.send(text, fd.as_ref().map(AsFd::as_fd))? {
                return Ok(false);
            }
            waiting.pop_front();
        }
        Ok(true)
    }

    /// Ends the connection: whoever is in [`Line::hear`] is told that the other side is gone.
    pub(crate) fn cut(&self) {
        self.cut.set(true);
        self.changed.notify_one();
    }

    /// Waits for the next message, and meanwhile says what waits; `None` when the other side is
    /// gone. Nothing is lost if it is dropped.
    pub(crate) async fn hear<T: DeserializeOwned>(&self) -> Result<Option<(T, Option<OwnedFd>)>> {
        let mut buffer = vec![0; MESSAGE];
        while !self.cut.get() {
            let interest = match self.waiting.borrow().is_empty() {
                true => Interest::READABLE,
                false => Interest::READABLE | Interest::WRITABLE,
            };
            let mut ready = tokio::select! {
                ready = self.socket.ready(interest) => ready?,
                () = self.changed.notified() => continue,
            };
            if ready.ready().is_writable() && !self.flush()? {
                ready.clear_ready_matching(Ready::WRITABLE);
            }
            if !ready.ready().is_readable() && !ready.ready().is_read_closed() {
                continue;
            }
            match socket::receive(self.socket.get_ref(), &mut buffer) {
                Ok(message) if message.length == 0 => return Ok(None),
                Ok(message) => {
                    let what = serde_json::from_slice(&buffer[..message.length])
                        .context("a message cannot be understood")?;
                    return Ok(Some((what, message.fds.into_iter().next())));
                }
                Err(error) if error.errno == Errno::EAGAIN => {
                    ready.clear_ready_matching(Ready::READABLE);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::UnboundedReceiver;

    use super::*;

    fn alone(work: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build_local(tokio::runtime::LocalOptions::default());
        runtime.unwrap().block_on(work);
    }

    /// Hears, and says what waits, for as long as the other side is there.
    fn keep_hearing(line: Line) -> UnboundedReceiver<(u32, Option<OwnedFd>)> {
        let (words, heard) = tokio::sync::mpsc::unbounded_channel();
        tokio::task::spawn_local(async move {
            while let Ok(Some(word)) = line.hear().await {
                words.send(word).unwrap();
            }
        });
        heard
    }

    fn pair() -> (Line, Line) {
        let (left, right) = socket::pair().unwrap();
        (Line::new(left).unwrap(), Line::new(right).unwrap())
    }

    #[test]
    fn both_talk_at_once_and_neither_is_cut_off() {
        alone(async {
            let (left, right) = pair();
            let null = std::fs::File::open("/dev/null").unwrap();
            // More than a socket holds, in both directions, before anybody reads.
            for number in 0..5000_u32 {
                left.say(&number, Some(null.as_fd())).unwrap();
                right.say(&number, None).unwrap();
            }
            let mut sides = [(keep_hearing(left), false), (keep_hearing(right), true)];
            for (heard, with_fd) in &mut sides {
                for number in 0..5000 {
                    let (word, fd) = heard.recv().await.unwrap();
                    assert_eq!((word, fd.is_some()), (number, *with_fd));
                }
            }
        });
    }

    #[test]
    fn who_never_reads_is_cut_off() {
        alone(async {
            let (left, _right) = pair();
            let error = (0..2 * MOST_WAITING).find_map(|n| left.say(&n, None).err()).unwrap();
            assert!(error.to_string().contains("does not read"), "{error}");
            left.cut();
            assert!(left.hear::<u32>().await.unwrap().is_none());
        });
    }

    #[test]
    fn an_end_is_heard_after_the_last_word() {
        alone(async {
            let (left, right) = pair();
            left.say(&7, None).unwrap();
            drop(left);
            assert_eq!(right.hear::<u32>().await.unwrap().unwrap().0, 7);
            assert!(right.hear::<u32>().await.unwrap().is_none());
            assert!(right.say(&8, None).is_err());
        });
    }
}
