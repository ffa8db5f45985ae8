//! Compressions of a layer, told apart by their first bytes.
//!
//! The media type also says it, and is often wrong: `docker save` has written gzip under the name
//! of plain tar and the other way round. The bytes cannot lie.

use crate::error::{Error, Result};
use flate2::bufread::MultiGzDecoder;
use std::io::{BufRead, Read};

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952, possibly several members.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// Looks at the beginning of a stream without taking it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a compression that images do not have (xz, bzip2).
    pub fn detect(input: &mut impl BufRead) -> Result<Self> {
        let start = input.fill_buf()?;
        if start.starts_with(&[0x1f, 0x8b]) {
            return Ok(Self::Gzip);
        }
        if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            return Ok(Self::Zstd);
        }
        for (magic, name) in [(&b"\xfd7zXZ\0"[..], "xz"), (b"BZh", "bzip2"), (b"LZIP", "lzip")] {
            if start.starts_with(magic) {
                return Err(Error::Unsupported(format!(
                    "it is compressed with {name}; images have gzip, zstd or plain layers: \
                     decompress it first and pipe it in"
                )));
            }
        }
        Ok(Self::None)
    }

    /// The uncompressed stream.
    ///
    /// # Errors
    /// When a decoder cannot be set up.
    pub fn decoder<'input>(
        self,
        input: impl BufRead + Send + 'input,
    ) -> Result<Box<dyn Read + Send + 'input>> {
        Ok(match self {
            Self::None => Box::new(input),
            Self::Gzip => Box::new(MultiGzDecoder::new(input)),
            Self::Zstd => zstd_decoder(input)?,
        })
    }

    /// The end of the layer's media type: nothing, `+gzip` or `+zstd`.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => "+gzip",
            Self::Zstd => "+zstd",
        }
    }
}

/// The largest window that a frame may ask for, as a power of two: 128 MiB is what `zstd --long`
/// makes and what other tools accept, 8 MiB what everything else makes. It bounds our memory.
const ZSTD_WINDOW_LOG: u32 = 23;

fn zstd_decoder<'input>(
    input: impl BufRead + Send + 'input,
) -> Result<Box<dyn Read + Send + 'input>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(Box::new(decoder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn plain(bytes: &[u8]) -> Vec<u8> {
        let mut input = bytes;
        let mut output = Vec::new();
        let compression = Compression::detect(&mut input).unwrap();
        compression.decoder(input).unwrap().read_to_end(&mut output).unwrap();
        output
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn each_compression_is_known_by_its_bytes() {
        assert_eq!(plain(b"hello"), b"hello");
        assert_eq!(plain(&gzip(b"hello")), b"hello");
        assert_eq!(plain(&[gzip(b"hello "), gzip(b"again")].concat()), b"hello again");
        assert_eq!(plain(&zstd::encode_all(&b"hello"[..], 3).unwrap()), b"hello");
        assert_eq!(plain(b""), b"");
    }

    #[test]
    fn others_are_refused_by_name() {
        let error = Compression::detect(&mut &b"\xfd7zXZ\0rest"[..]).unwrap_err();
        assert!(error.to_string().contains("xz"), "{error}");
    }
}
