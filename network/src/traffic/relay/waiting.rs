//! The packets that wait, by the time at which they are due. It does not know what time it is.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Packets that wait at most. The same as in the kernel's queue, see `netem.rs`.
const FRAMES: usize = 100_000;
/// Bytes that wait at most, in each direction: 50 ms of 10 Gbit/s.
const BYTES: usize = 64 << 20;

/// Packets that wait. Times are counted from where the caller likes.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    frames: BinaryHeap<Reverse<Frame>>,
    bytes: usize,
    /// How many have come, to keep the order of those that are due together.
    came: u64,
}

/// One packet; packets are ordered as they are to be sent, and their bytes decide nothing.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Frame {
    due: Duration,
    came: u64,
    bytes: Vec<u8>,
}

impl Waiting {
    /// Lets a packet wait until it is due; `false` when there is no room for it.
    pub(super) fn push(&mut self, due: Duration, frame: &[u8]) -> bool {
        if self.frames.len() >= FRAMES || self.bytes + frame.len() > BYTES {
            return false;
        }
        self.bytes += frame.len();
        self.came += 1;
        self.frames.push(Reverse(Frame { due, came: self.came, bytes: frame.to_vec() }));
        true
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.frames.peek().map(|Reverse(frame)| frame.due)
    }

    /// The next one that is due by `now`.
    pub(super) fn pop(&mut self, now: Duration) -> Option<Vec<u8>> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse(frame) = self.frames.pop()?;
        self.bytes -= frame.bytes.len();
        Some(frame.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn they_come_out_when_they_are_due_and_those_of_one_time_in_their_order() {
        let mut waiting = Waiting::default();
        for (due, name) in [(30, b"c"), (10, b"z"), (20, b"b"), (10, b"a")] {
            assert!(waiting.push(ms(due), name));
        }
        assert_eq!(waiting.next_due(), Some(ms(10)));
        assert_eq!(waiting.pop(ms(9)), None);
        let mut out = |now| std::iter::from_fn(|| waiting.pop(ms(now))).collect::<Vec<_>>();
        assert_eq!(out(20), [b"z", b"a", b"b"]);
        assert_eq!(out(29), [b""; 0]);
        assert_eq!(out(1000), [b"c"]);
        assert_eq!(waiting.next_due(), None);
    }

    #[test]
    fn there_is_room_for_so_many_packets_and_again_when_one_has_gone() {
        let mut waiting = Waiting::default();
        assert!((0..FRAMES).all(|_| waiting.push(ms(1), b"x")));
        assert!(!waiting.push(ms(1), b"x"));
        assert!(waiting.pop(ms(1)).is_some());
        assert!(waiting.push(ms(1), b"x") && !waiting.push(ms(1), b"x"));
    }

    #[test]
    fn there_is_room_for_so_many_bytes_and_again_when_one_has_gone() {
        let large = vec![0; 1 << 16];
        let mut waiting = Waiting::default();
        assert!((0..BYTES >> 16).all(|_| waiting.push(ms(1), &large)));
        assert!(!waiting.push(ms(1), b"x"));
        assert!(waiting.pop(ms(1)).is_some());
        assert!(waiting.push(ms(1), &large) && !waiting.push(ms(1), b"x"));
    }
}
