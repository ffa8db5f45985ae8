//! Bytes on their way, in memory that is borrowed only while there are any.
//!
//! A connection that waits holds no buffer: with many connections, memory is what they buffer. The
//! buffers of a thread are kept and lent again, so that a request allocates nothing.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncReadExt};

/// What a new buffer can take before it grows, in bytes.
pub(crate) const SIZE: usize = 16 << 10;
/// Buffers that have grown beyond this are given back to the system.
const LARGEST: usize = 4 * SIZE;
/// How many unused ones are kept.
const KEPT: usize = 64;

thread_local! {
    static UNUSED: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty one, ready to be filled.
pub(crate) fn borrow() -> Vec<u8> {
    UNUSED.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(SIZE))
}

/// Gives one back.
pub(crate) fn give_back(mut bytes: Vec<u8>) {
    if !(SIZE..=LARGEST).contains(&bytes.capacity()) {
        return;
    }
    bytes.clear();
    UNUSED.with_borrow_mut(|unused| {
        if unused.len() < KEPT {
            unused.push(bytes);
        }
    });
}

/// Bytes that have been read and not been used up.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    /// Without memory while it is empty.
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// What is there.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// Uses up the first bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.bytes.len());
        if self.is_empty() {
            self.start = 0;
            give_back(std::mem::take(&mut self.bytes));
        }
    }

    /// Reads more behind what is there; 0 is the end. Waits without holding memory.
    pub(crate) async fn fill(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
    ) -> std::io::Result<usize> {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        std::future::poll_fn(|context| {
            if self.bytes.capacity() == 0 {
                self.bytes = borrow();
            }
            let polled = pin!(from.read_buf(&mut self.bytes)).poll(context);
            if self.bytes.is_empty() && !matches!(polled, Poll::Ready(Ok(1..))) {
                give_back(std::mem::take(&mut self.bytes));
            }
            polled
        })
        .await
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_is_held_only_while_there_are_bytes() {
        let mut buffer = Buffer::default();
        let mut from: &[u8] = b"request and more";
        assert_eq!(buffer.fill(&mut from).await.unwrap(), 16);
        buffer.consume(8);
        assert_eq!(buffer.bytes(), b"and more");
        let mut more: &[u8] = b" follows";
        assert_eq!(buffer.fill(&mut more).await.unwrap(), 8);
        assert_eq!(buffer.bytes(), b"and more follows");
        buffer.consume(16);
        assert_eq!(buffer.bytes.capacity(), 0, "given back");
        assert_eq!(buffer.fill(&mut more).await.unwrap(), 0, "the end");
        assert_eq!(buffer.bytes.capacity(), 0, "nothing is held at the end");
    }

    #[test]
    fn what_has_grown_is_not_kept() {
        give_back(Vec::with_capacity(LARGEST + 1));
        assert!(borrow().capacity() <= LARGEST);
    }
}
