//! Where a body ends (RFC 9112, 6).
//!
//! Pure. Bodies are passed on as they were framed; what is scanned here is only where they end,
//! and strictly: two programs that see the end of a message in different places is how requests
//! are smuggled.

/// How far a body has been scanned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Framing {
    /// So many bytes are to come.
    Length(u64),
    /// Chunks are to come.
    Chunked(Chunk),
    /// It ends with the connection.
    UntilEnd,
}

/// A body that is not framed as it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed;

/// The longest line of chunk extensions, and the longest trailer, in bytes.
const EXTRAS: u32 = 8 << 10;

/// A place within a chunked body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Chunk {
    /// In the digits of a size.
    Size { size: u64, digits: u8 },
    /// Behind the size, where extensions may stand.
    Extension { size: u64, length: u32 },
    /// Between CR and LF of the size's line.
    SizeEnd { size: u64 },
    /// In the data, with so many bytes to come.
    Data { left: u64 },
    /// Before the CR behind the data.
    DataCr,
    /// Before the LF behind the data.
    DataLf,
    /// At the beginning of a trailer's line.
    Trailer { length: u32 },
    /// In a trailer's line.
    TrailerLine { length: u32 },
    /// Between CR and LF of a trailer's line.
    TrailerLineEnd { length: u32 },
    /// Between the last CR and LF.
    LastLf,
    /// Behind the end.
    Done,
}

impl Framing {
    /// No body.
    pub(crate) const EMPTY: Framing = Framing::Length(0);
    /// The beginning of a chunked one.
    pub(crate) const CHUNKED: Framing = Framing::Chunked(Chunk::Size { size: 0, digits: 0 });

    /// Whether everything has come; never of one that ends with the connection.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Framing::Length(0) | Framing::Chunked(Chunk::Done))
    }

    /// How many of these bytes belong to the body. With `payload`, what they carry is put there.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        mut payload: Option<&mut Vec<u8>>,
    ) -> Result<usize, Malformed> {
        match self {
            Framing::Length(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                payload.into_iter().for_each(|payload| payload.extend_from_slice(&bytes[..taken]));
                Ok(taken)
            }
            Framing::UntilEnd => {
                payload.into_iter().for_each(|payload| payload.extend_from_slice(bytes));
                Ok(bytes.len())
            }
            Framing::Chunked(chunk) => {
                let mut at = 0;
                while *chunk != Chunk::Done && at < bytes.len() {
                    if let Chunk::Data { left } = chunk {
                        let room = bytes.len() - at;
                        let taken = room.min(usize::try_from(*left).unwrap_or(usize::MAX));
                        if let Some(payload) = payload.as_mut() {
                            payload.extend_from_slice(&bytes[at..at + taken]);
                        }
                        *left -= taken as u64;
                        at += taken;
                        if *left == 0 {
                            *chunk = Chunk::DataCr;
                        }
                    } else {
                        *chunk = chunk.next(bytes[at])?;
                        at += 1;
                    }
                }
                Ok(at)
            }
        }
    }
}

impl Chunk {
    /// What follows a byte that is not data.
    fn next(self, byte: u8) -> Result<Chunk, Malformed> {
        Ok(match (self, byte) {
            (Chunk::Size { size, digits: digits @ 0..15 }, byte) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).ok_or(Malformed)?;
                Chunk::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (Chunk::Size { size, digits: 1.. } | Chunk::Extension { size, .. }, b'\r') => {
                Chunk::SizeEnd { size }
            }
            (Chunk::Size { size, digits: 1.. }, b';' | b' ' | b'\t') => {
                Chunk::Extension { size, length: 1 }
            }
            (Chunk::Extension { length: EXTRAS.., .. }, _) => return Err(Malformed),
            (Chunk::Extension { size, length }, byte) if byte != b'\n' => {
                Chunk::Extension { size, length: length + 1 }
            }
            (Chunk::SizeEnd { size: 0 }, b'\n') => Chunk::Trailer { length: 0 },
            (Chunk::SizeEnd { size }, b'\n') => Chunk::Data { left: size },
            (Chunk::DataCr, b'\r') => Chunk::DataLf,
            (Chunk::DataLf, b'\n') => Chunk::Size { size: 0, digits: 0 },
            (Chunk::Trailer { .. }, b'\r') => Chunk::LastLf,
            (Chunk::LastLf, b'\n') => Chunk::Done,
            (Chunk::TrailerLine { length }, b'\r') => Chunk::TrailerLineEnd { length },
            (Chunk::TrailerLineEnd { length }, b'\n') => Chunk::Trailer { length },
            (Chunk::Trailer { length } | Chunk::TrailerLine { length }, byte)
                if byte != b'\n' && length < EXTRAS =>
            {
                Chunk::TrailerLine { length: length + 1 }
            }
            _ => return Err(Malformed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scans `text` in pieces of `piece` bytes: what it carries, and how much of it was body.
    fn scan(text: &[u8], piece: usize) -> Result<(Vec<u8>, usize, bool), Malformed> {
        let (mut framing, mut payload, mut used) = (Framing::CHUNKED, Vec::new(), 0);
        for bytes in text.chunks(piece) {
            let taken = framing.take(bytes, Some(&mut payload))?;
            used += taken;
            if taken < bytes.len() {
                break;
            }
        }
        Ok((payload, used, framing.is_done()))
    }

    #[test]
    fn chunks_are_understood_wherever_they_are_cut() {
        let text = b"5;x=y\r\nhello\r\n11\r\n, wide wide world\r\n0\r\nA: b\r\n\r\nGET /";
        for piece in 1..=text.len() {
            let (payload, used, done) = scan(text, piece).unwrap();
            assert_eq!(payload, b"hello, wide wide world", "pieces of {piece}");
            assert_eq!((used, done), (text.len() - 5, true), "the next request is left");
        }
    }

    #[test]
    fn what_others_could_read_differently_is_refused() {
        for text in [
            &b"\r\n"[..],
            b"5\nhello",
            b"5\r\nhelloX",
            b"-5\r\n",
            b"0x5\r\n",
            b"5;a\nb\r\n",
            b"0\r\nA: b\n\r\n",
            b"1234567890123456\r\n",
            b"3\r\nabc\n",
        ] {
            assert_eq!(scan(text, 1), Err(Malformed), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_length_ends_where_it_says() {
        let mut framing = Framing::Length(5);
        assert_eq!(framing.take(b"hel", None), Ok(3));
        assert!(!framing.is_done());
        assert_eq!(framing.take(b"lo, next", None), Ok(2));
        assert!(framing.is_done());
        assert_eq!(Framing::UntilEnd.take(b"all of it", None), Ok(9));
    }
}
