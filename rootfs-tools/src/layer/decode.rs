//! The reading half of unpacking a layer, on a thread of its own.
//!
//! The bytes are digested as they come, kept in the store if they are new there, decompressed and
//! digested again, and handed over in buffers that go round between the two threads. So the memory
//! of a layer is a few buffers, whatever its size, and decompression, which is the larger part of
//! the work, runs beside the writing of files.

use super::compression::Compression;
use super::limits::Limits;
use crate::digest::{Digest, Digesting};
use crate::error::{Error, Result};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

/// The size of a buffer. Larger ones fall out of the second-level cache.
const BUFFER: usize = 128 * 1024;
/// How many buffers go round.
const BUFFERS: usize = 6;

/// What a layer turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// The digest of the bytes as they came: the name of the blob.
    pub blob: Digest,
    /// How many bytes came.
    pub blob_bytes: u64,
    /// The digest of the uncompressed layer: its diffID.
    pub diff_id: Digest,
    /// How many bytes that has.
    pub bytes: u64,
    /// How it is compressed.
    pub compression: Compression,
}

/// Decodes `input`, copies it to `keep` as it came, and gives the uncompressed stream to `consume`,
/// which runs on this thread while another decodes.
///
/// # Errors
/// That of `consume` when it fails, otherwise that of reading, decompressing or keeping.
pub fn decode<T>(
    input: impl Read + Send,
    keep: impl Write + Send,
    limits: Limits,
    consume: impl FnOnce(&mut Chunks) -> Result<T>,
) -> Result<(Decoded, T)> {
    let (full_sender, full) = sync_channel(BUFFERS);
    let (empty_sender, empty) = channel();
    for _ in 0..BUFFERS {
        // The receiver is alive: it is two lines above.
        let _ = empty_sender.send(Vec::new());
    }
    thread::scope(|scope| {
        let decoder = scope.spawn(move || {
            let result = pump(input, keep, limits, &full_sender, &empty);
            if let Err(error) = &result {
                // The consumer learns that the stream did not just end.
                let _ = full_sender.send(Err(error.chain()));
            }
            result
        });
        let mut chunks = Chunks { full, empty: empty_sender, current: Vec::new(), at: 0 };
        let consumed = consume(&mut chunks);
        drop(chunks);
        let decoded = decoder.join().unwrap_or_else(|panic| resume_unwind(panic));
        match (consumed, decoded) {
            (Ok(value), Ok(Some(decoded))) => Ok((decoded, value)),
            // A consumer that stops early makes the decoder stop; its own reason is the first.
            (Err(error), Ok(_)) => Err(error),
            (_, Err(error)) => Err(error),
            (Ok(_), Ok(None)) => Err(Error::Invalid("the layer was not read to its end".into())),
        }
    })
}

type Full = std::result::Result<Vec<u8>, String>;

/// Fills buffers until the stream ends, or (`None`) until nobody wants them any more.
fn pump(
    input: impl Read + Send,
    keep: impl Write + Send,
    limits: Limits,
    full: &SyncSender<Full>,
    empty: &Receiver<Vec<u8>>,
) -> Result<Option<Decoded>> {
    let mut raw = BufReader::with_capacity(BUFFER, Digesting::new(Keeping { input, keep }));
    let compression = Compression::detect(&mut raw)?;
    let mut plain = Digesting::new(compression.decoder(&mut raw)?);
    loop {
        let Ok(mut buffer) = empty.recv() else { return Ok(None) };
        buffer.resize(BUFFER, 0);
        let filled = fill(&mut plain, &mut buffer)?;
        limits.check_bytes(plain.count())?;
        if filled == 0 {
            break;
        }
        buffer.truncate(filled);
        if full.send(Ok(buffer)).is_err() {
            return Ok(None);
        }
    }
    let bytes = plain.count();
    let (decoder, diff_id) = plain.finish();
    drop(decoder);
    // A decoder stops at the end of its stream; the digest of the blob is about every byte.
    io::copy(&mut raw, &mut io::sink())?;
    let raw = raw.into_inner();
    let blob_bytes = raw.count();
    let (mut keeping, blob) = raw.finish();
    keeping.keep.flush()?;
    Ok(Some(Decoded { blob, blob_bytes, diff_id, bytes, compression }))
}

/// Reads until the buffer is full or the stream ends: decoders give little pieces.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(Error::Invalid("the compressed stream is cut short".into()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(filled)
}

/// A reader that writes down what it reads.
struct Keeping<R, W> {
    input: R,
    keep: W,
}

impl<R: Read, W: Write> Read for Keeping<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.keep.write_all(&buffer[..count])?;
        Ok(count)
    }
}

/// The uncompressed stream, as it comes from the other thread.
#[derive(Debug)]
pub struct Chunks {
    full: Receiver<Full>,
    empty: Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.current.len() {
            let used = std::mem::take(&mut self.current);
            self.at = 0;
            // The decoder may have ended, and then nobody needs the buffer.
            let _ = self.empty.send(used);
            match self.full.recv() {
                Ok(Ok(buffer)) => self.current = buffer,
                Ok(Err(reason)) => return Err(io::Error::other(reason)),
                Err(_) => {}
            }
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at = (self.at + count).min(self.current.len());
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn all(input: &[u8], limits: Limits) -> Result<(Decoded, Vec<u8>, Vec<u8>)> {
        let mut kept = Vec::new();
        let (decoded, bytes) = decode(input, &mut kept, limits, |chunks| {
            let mut bytes = Vec::new();
            chunks.read_to_end(&mut bytes)?;
            Ok(bytes)
        })?;
        Ok((decoded, bytes, kept))
    }

    #[test]
    fn both_digests_are_computed_on_the_way() {
        let plain: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
        let packed = gzip(&plain);
        let (decoded, bytes, kept) = all(&packed, Limits::default()).unwrap();
        assert!(bytes == plain && kept == packed);
        assert_eq!(decoded.blob, Digest::of(&packed));
        assert_eq!(decoded.diff_id, Digest::of(&plain));
        assert_eq!((decoded.blob_bytes, decoded.bytes), (packed.len() as u64, 3_000_000));
    }

    #[test]
    fn a_bomb_is_stopped() {
        let packed = gzip(&vec![0; 4_000_000]);
        let error = all(&packed, Limits { bytes: 1_000_000, ..Limits::default() }).unwrap_err();
        assert!(matches!(error, Error::Limit { .. }), "{error}");
    }

    #[test]
    fn a_short_or_damaged_stream_is_an_error() {
        let packed = gzip(&(0..100_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
        assert!(all(&packed[..packed.len() / 2], Limits::default()).is_err());
        let mut damaged = packed.clone();
        let middle = damaged.len() - 6;
        damaged[middle] ^= 1;
        assert!(all(&damaged, Limits::default()).is_err());
    }

    #[test]
    fn a_consumer_that_gives_up_ends_the_decoder() {
        let packed = gzip(&vec![7; 4_000_000]);
        let result = decode(&packed[..], io::sink(), Limits::default(), |_| {
            Err::<(), _>(Error::Invalid("enough".into()))
        });
        assert_eq!(result.unwrap_err().to_string(), "enough");
    }
}
