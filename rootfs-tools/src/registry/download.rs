//! A blob on its way: what has arrived stays, what is missing is asked for.
//!
//! The bytes are appended to `partial/sha256/HEX` while they are read. A reader first gives what
//! is there already and then continues over the network from that byte on (RFC 9110, 14: Range).
//! Whether it all fits together is not for this code to judge: the digest does, at the end.

use super::client::{Client, broken, expect};
use crate::error::{Context, Error, Result};
use crate::image::document::Descriptor;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use ureq::http::{Method, StatusCode};

/// How often a broken connection is continued without a byte of progress.
const FRUITLESS_TRIES: u32 = 4;

/// A blob that is being downloaded.
pub struct Download {
    client: Arc<Client>,
    url: String,
    size: u64,
    /// Held while we append; another pull of the same blob waits.
    partial: Flock<File>,
    /// The next byte to give.
    at: u64,
    /// How many bytes are in the file.
    arrived: u64,
    stream: Option<Box<dyn Read + Send>>,
    fruitless: u32,
}

impl std::fmt::Debug for Download {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Download")
            .field("url", &self.url)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl Download {
    /// Begins, or goes on with, the download of a blob into the file `partial`.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn new(client: Arc<Client>, blob: &Descriptor, partial: &Path) -> Result<Self> {
        let step = || format!("open {}", partial.display());
        let file =
            OpenOptions::new().read(true).append(true).create(true).open(partial).context(step)?;
        let partial =
            Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno).context(step)?;
        let mut arrived = partial.metadata().context(step)?.len();
        if arrived > blob.size {
            partial.set_len(0).context(step)?;
            arrived = 0;
        }
        let url = client.url(&format!("blobs/{}", blob.digest));
        let (size, at, fruitless) = (blob.size, 0, 0);
        Ok(Self { client, url, size, partial, at, arrived, stream: None, fruitless })
    }

    /// Asks for the bytes from `arrived` on.
    fn connect(&mut self) -> Result<Box<dyn Read + Send>> {
        let range = format!("bytes={}-", self.arrived);
        let headers = [("Range", range.as_str())];
        let headers = if self.arrived == 0 { &[][..] } else { &headers[..] };
        let response = self.client.request(Method::GET, &self.url, headers)?;
        let response = expect(response, &[StatusCode::OK, StatusCode::PARTIAL_CONTENT])
            .context(|| format!("GET {}", self.url))?;
        // A server that knows no ranges begins again; what is there already is read over.
        let skip = if response.status() == StatusCode::OK { self.arrived } else { 0 };
        let mut reader = response.into_body().into_with_config().limit(u64::MAX).reader();
        io::copy(&mut (&mut reader).take(skip), &mut io::sink()).map_err(broken)?;
        Ok(Box::new(reader))
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            let result = match &mut self.stream {
                Some(stream) => stream.read(buffer).map_err(broken),
                None => {
                    self.stream = Some(self.connect()?);
                    continue;
                }
            };
            match result {
                Ok(count) if count > 0 => {
                    let left = usize::try_from(self.size - self.arrived).unwrap_or(usize::MAX);
                    let count = count.min(left);
                    (&*self.partial)
                        .write_all(&buffer[..count])
                        .context(|| "keep what arrived".into())?;
                    self.arrived += count as u64;
                    self.fruitless = 0;
                    return Ok(count);
                }
                // The connection ended early, in order or not.
                outcome => {
                    self.stream = None;
                    self.fruitless += 1;
                    if self.fruitless > FRUITLESS_TRIES {
                        let (arrived, size) = (self.arrived, self.size);
                        return Err(outcome.err().unwrap_or_else(|| {
                            Error::Network(
                                "the server ends the stream early, again and again".into(),
                            )
                        }))
                        .context(|| {
                            format!("{arrived} of {size} bytes have arrived and are kept")
                        });
                    }
                }
            }
        }
    }
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.size || buffer.is_empty() {
            return Ok(0);
        }
        let count = if self.at < self.arrived {
            let there = usize::try_from(self.arrived - self.at).unwrap_or(usize::MAX);
            let most = buffer.len().min(there);
            std::os::unix::fs::FileExt::read_at(&*self.partial, &mut buffer[..most], self.at)?
        } else {
            self.receive(buffer)?
        };
        self.at += count as u64;
        Ok(count)
    }
}
