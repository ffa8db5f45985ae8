//! Writes the entries of a layer, in the format that every reader knows: ustar, with PAX records
//! for what does not fit into it.

use super::name::Name;
use super::target::path;
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{Read, Write};
use tar::{EntryType, Header};

/// The largest number in the seven octal digits of a user or a group.
const MOST_ID: u64 = 0o777_7777;
/// The largest number in the eleven octal digits of a size.
const MOST_SIZE: u64 = 0o777_7777_7777;

/// A layer in the making.
pub struct LayerWriter<W: Write> {
    output: tar::Builder<W>,
}

impl<W: Write> std::fmt::Debug for LayerWriter<W> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("LayerWriter").finish_non_exhaustive()
    }
}

impl<W: Write> LayerWriter<W> {
    /// An empty layer.
    pub fn new(output: W) -> Self {
        Self { output: tar::Builder::new(output) }
    }

    /// A header with nothing in it but its kind.
    pub fn header(kind: EntryType, mode: u32, (uid, gid): (u32, u32), seconds: i64) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode & 0o7777);
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        header.set_size(0);
        header.set_mtime(u64::try_from(seconds).unwrap_or(0));
        header
    }

    /// Writes PAX records where they are needed, then the header, then the data.
    ///
    /// # Errors
    /// When the data ends early, or the stream cannot be written.
    pub fn write(
        &mut self,
        name: &Name,
        header: &mut Header,
        link: Option<&[u8]>,
        xattrs: &[(Vec<u8>, Vec<u8>)],
        content: impl Read,
    ) -> Result<()> {
        let mut full = name.as_bytes().to_vec();
        if name.is_root() {
            full.push(b'.');
        }
        if header.entry_type().is_dir() {
            full.push(b'/');
        }
        let mut records: Vec<(String, Vec<u8>)> = Vec::new();
        if !full.is_ascii() || header.set_path(path(&full)).is_err() {
            records.push(("path".into(), full.clone()));
            header.set_path("long-name")?;
        }
        if let Some(link) = link
            && (!link.is_ascii() || header.set_link_name_literal(link).is_err())
        {
            records.push(("linkpath".into(), link.to_vec()));
            header.set_link_name_literal("long-link")?;
        }
        let numbers = [
            ("uid", header.uid()?, MOST_ID),
            ("gid", header.gid()?, MOST_ID),
            ("size", header.size()?, MOST_SIZE),
        ];
        for (key, value, most) in numbers {
            if value > most {
                records.push((key.into(), value.to_string().into_bytes()));
            }
        }
        for (key, value) in xattrs {
            let key = String::from_utf8(key.clone())
                .map_err(|_| Error::Unsupported("the name of an attribute is not UTF-8".into()))?;
            records.push((format!("SCHILY.xattr.{key}"), value.clone()));
        }
        if !records.is_empty() {
            let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
            self.output.append_pax_extensions(records)?;
        }
        header.set_cksum();
        Ok(self.output.append(header, content)?)
    }

    /// A whiteout: an empty file whose name says it all.
    ///
    /// # Errors
    /// When the stream cannot be written.
    pub fn marker(&mut self, name: &Name) -> Result<()> {
        let mut header = Self::header(EntryType::Regular, 0o600, (0, 0), 0);
        self.write(name, &mut header, None, &[], std::io::empty())
    }

    /// Ends the layer.
    ///
    /// # Errors
    /// When the stream cannot be written.
    pub fn finish(mut self) -> Result<()> {
        Ok(self.output.finish()?)
    }
}

/// So many bytes of a file, or an error: the header has promised them.
#[derive(Debug)]
pub struct Exactly {
    inner: File,
    left: u64,
}

impl Exactly {
    /// The first `size` bytes of a file.
    pub fn new(file: File, size: u64) -> Self {
        Self { inner: file, left: size }
    }
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.inner.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(
                Error::Conflict("the file became shorter while it was packed".into()).into()
            );
        }
        self.left -= count as u64;
        Ok(count)
    }
}
