//! What somebody who waits wants to know: how far each layer is.

use crate::digest::Digest;
use std::fmt::Debug;
use std::io::{self, Read};

/// A part of the work that takes its time: a layer that is read or sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which of them, from 1 on.
    pub number: usize,
    /// How many there are.
    pub count: usize,
    /// Its digest, when it is known.
    pub digest: Option<Digest>,
    /// How many bytes it has, when that is known.
    pub bytes: Option<u64>,
}

/// Somebody who is told. Parts go on side by side, on threads of their own.
pub trait Progress: Debug + Sync {
    /// A part begins.
    fn begin(&self, part: Part) -> Box<dyn Advance>;
}

/// Somebody who is told about one part; its end is the end of the part.
pub trait Advance: Debug + Send {
    /// So many more bytes are done.
    fn advance(&mut self, bytes: u64);
}

/// Nobody is told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: Part) -> Box<dyn Advance> {
        Box::new(Self)
    }
}

impl Advance for Silent {
    fn advance(&mut self, _: u64) {}
}

/// A stream whose reader is watched.
#[derive(Debug)]
pub struct Watched<R> {
    inner: R,
    advance: Box<dyn Advance>,
}

impl<R> Watched<R> {
    /// Tells of every byte that is read from `inner`.
    pub fn new(inner: R, advance: Box<dyn Advance>) -> Self {
        Self { inner, advance }
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.advance.advance(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Debug)]
    struct Sum(Arc<AtomicU64>);

    impl Advance for Sum {
        fn advance(&mut self, bytes: u64) {
            self.0.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    #[test]
    fn every_byte_is_told_once() {
        let sum = Arc::new(AtomicU64::new(0));
        let mut watched = Watched::new(&[7; 1000][..], Box::new(Sum(sum.clone())));
        io::copy(&mut watched, &mut io::sink()).unwrap();
        assert_eq!(sum.load(Ordering::Relaxed), 1000);
    }
}
