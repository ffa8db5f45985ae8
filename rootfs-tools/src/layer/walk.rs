//! The walk through a tar stream: one entry after the other, never more than one in memory.
//!
//! The tar crate decodes the headers. The iteration is ours, because the crate's reads extended
//! headers of any length into memory, and a gzip bomb of zeros makes that gigabytes; because it
//! does not check that a header's checksum is right when the type is unknown; and because it
//! looks for PAX records in lines. Where readers differ we do what Go's archive/tar does: images
//! are made with it, and two readings of one archive are how things are smuggled.

use super::extension::Extension;
use super::limits::Limits;
use super::name::{Name, show};
use super::sparse::{self, Map};
use crate::error::{Context, Error, Result};
use std::io::BufRead;
use tar::Header;

const BLOCK: u64 = 512;

/// What kind of file an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file, with the map of its data when it has holes.
    File {
        /// The size in bytes, with holes.
        size: u64,
        /// Where the data goes, when the file is sparse.
        map: Option<Map>,
    },
    /// A directory.
    Directory,
    /// A symbolic link, with its target: any bytes, never followed here.
    Symlink(Vec<u8>),
    /// One more name for a file of the image.
    HardLink(Name),
    /// A character device: major and minor number.
    Character(u32, u32),
    /// A block device: major and minor number.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}

/// One entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path.
    pub name: Name,
    /// What it is.
    pub kind: Kind,
    /// Its permission bits, with set-user-ID, set-group-ID and sticky: at most 0o7777.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When its content last changed: seconds since the epoch and nanoseconds.
    pub mtime: (i64, u32),
    /// Its extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A walk through one tar stream.
#[derive(Debug)]
pub struct Walk<R> {
    input: R,
    limits: Limits,
    entries: u64,
    /// Bytes of the current entry's data that nobody has read yet, and the padding behind them.
    data: u64,
    padding: u64,
    /// What global PAX headers say about every entry.
    global: Extension,
}

impl<R: BufRead> Walk<R> {
    /// A walk from the first entry on.
    pub fn new(input: R, limits: Limits) -> Self {
        Self { input, limits, entries: 0, data: 0, padding: 0, global: Extension::default() }
    }

    /// The next entry, or `None` at the end of the archive. Data that was not read is skipped.
    ///
    /// # Errors
    /// When the stream ends too early or is not a tar archive, when an entry is not one that a
    /// layer may have, and when a limit is crossed.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut extension = self.global.clone();
        loop {
            self.skip_data()?;
            let Some(header) = self.header()? else { return Ok(None) };
            self.entries += 1;
            self.limits.check_entries(self.entries)?;
            match header.entry_type().as_byte() {
                b'x' => extension.add_records(&self.extended(&header)?)?,
                b'g' => {
                    let records = self.extended(&header)?;
                    self.global.add_records(&records)?;
                    extension.add_records(&records)?;
                }
                b'L' => extension.path = Some(until_nul(self.extended(&header)?)),
                b'K' => extension.link = Some(until_nul(self.extended(&header)?)),
                // The label of a volume is about the archive.
                b'V' => self.set_data(header.size().unwrap_or(0))?,
                _ => {
                    let raw = extension.path.clone().unwrap_or(header.path_bytes().into_owned());
                    let entry = self.entry(&header, extension);
                    return entry.context(|| format!("entry `{}`", show(&raw))).map(Some);
                }
            }
        }
    }

    /// A part of the current entry's data; empty at its end. [`Walk::consume`] takes it.
    ///
    /// # Errors
    /// When the stream cannot be read, or ends too early.
    pub fn chunk(&mut self) -> Result<&[u8]> {
        if self.data == 0 {
            return Ok(&[]);
        }
        let chunk = self.input.fill_buf()?;
        if chunk.is_empty() {
            return Err(truncated());
        }
        let length = chunk.len().min(usize::try_from(self.data).unwrap_or(usize::MAX));
        Ok(&chunk[..length])
    }

    /// Takes so many bytes of the part that [`Walk::chunk`] showed.
    pub fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.data = self.data.saturating_sub(count as u64);
    }

    /// Reads what is left of the stream, so that its digest covers all of it.
    ///
    /// # Errors
    /// When the stream cannot be read.
    pub fn drain(&mut self) -> Result<()> {
        self.skip_data()?;
        loop {
            let length = self.input.fill_buf()?.len();
            if length == 0 {
                return Ok(());
            }
            self.input.consume(length);
        }
    }

    /// The stream, standing at the data of the current entry.
    pub fn input(&self) -> &R {
        &self.input
    }

    /// Passes over the data of the current entry by a better way than reading it.
    ///
    /// # Errors
    /// That of `skip`.
    pub fn seek_past(
        &mut self,
        skip: impl FnOnce(&mut R, u64) -> std::io::Result<()>,
    ) -> Result<()> {
        let count = self.data.saturating_add(self.padding);
        (self.data, self.padding) = (0, 0);
        Ok(skip(&mut self.input, count)?)
    }

    /// The next header, checked; `None` at the end: a block of zeros, or nothing at all.
    fn header(&mut self) -> Result<Option<Header>> {
        if self.input.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut header = Header::new_old();
        self.input.read_exact(header.as_mut_bytes()).map_err(early)?;
        let bytes = header.as_bytes();
        if bytes.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        // The checksum field itself counts as eight spaces. Some very old tars summed signed
        // bytes, which is the same for every archive that has only ASCII in its headers.
        let outside = bytes[..148].iter().chain(&bytes[156..]);
        let sum = outside.map(|&byte| u32::from(byte)).sum::<u32>() + 8 * u32::from(b' ');
        if header.cksum().ok() != Some(sum) {
            return Err(Error::Invalid(
                "this is not a tar archive, or it is damaged: the checksum of a header is wrong"
                    .into(),
            ));
        }
        Ok(Some(header))
    }

    /// The data of an extended header, which must be small.
    fn extended(&mut self, header: &Header) -> Result<Vec<u8>> {
        let size = header.entry_size()?;
        if size > Limits::EXTENSION_BYTES {
            return Err(Error::Invalid(format!(
                "an extended header has {size} bytes, and none needs more than {}",
                Limits::EXTENSION_BYTES
            )));
        }
        let mut data = vec![0; usize::try_from(size).unwrap_or_default()];
        self.input.read_exact(&mut data).map_err(early)?;
        self.set_data(size)?;
        self.data = 0;
        Ok(data)
    }

    fn entry(&mut self, header: &Header, extension: Extension) -> Result<Entry> {
        let raw = match &extension.path {
            Some(path) => path.clone(),
            None => header.path_bytes().into_owned(),
        };
        let byte = header.entry_type().as_byte();
        let mut name = Name::new(&raw)?;
        let kind = match byte {
            // Before POSIX a directory was a file whose name ends with a slash.
            0 | b'0' | b'7' if raw.last() == Some(&b'/') => Kind::Directory,
            0 | b'0' | b'7' | b'S' => self.file(header, &extension, &mut name)?,
            b'1' => Kind::HardLink(Name::new(&link(header, &extension)?)?),
            b'2' => Kind::Symlink(link(header, &extension)?),
            b'3' => device(header).map(|(major, minor)| Kind::Character(major, minor))?,
            b'4' => device(header).map(|(major, minor)| Kind::Block(major, minor))?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                return Err(Error::Unsupported(format!(
                    "it has the type `{}`, which the files of an image do not have",
                    [other].escape_ascii()
                )));
            }
        };
        let mtime = match extension.mtime {
            Some(mtime) => mtime,
            None => {
                let seconds = number(&header.as_old().mtime, header.mtime())?;
                (i64::try_from(seconds).unwrap_or(i64::MAX), 0)
            }
        };
        Ok(Entry {
            name,
            kind,
            mode: mode(header)?,
            uid: owner(given(extension.uid, &header.as_old().uid, || header.uid())?)?,
            gid: owner(given(extension.gid, &header.as_old().gid, || header.gid())?)?,
            mtime,
            xattrs: extension.xattrs,
        })
    }

    fn file(&mut self, header: &Header, extension: &Extension, name: &mut Name) -> Result<Kind> {
        let mut stored = given(extension.size, &header.as_old().size, || header.entry_size())?;
        self.set_data(stored)?;
        let map = if header.entry_type().is_gnu_sparse() {
            Some(sparse::from_header(header, stored, &mut self.input)?)
        } else {
            let found = sparse::from_records(extension, &mut stored, &mut self.input)?;
            self.data = stored;
            match found {
                Some((map, Some(true_name))) => {
                    *name = Name::new(&true_name)?;
                    Some(map)
                }
                Some((map, None)) => Some(map),
                None => None,
            }
        };
        let size = map.as_ref().map_or(stored, |map| map.size);
        self.limits.check_bytes(size)?;
        Ok(Kind::File { size, map })
    }

    fn set_data(&mut self, size: u64) -> Result<()> {
        self.limits.check_bytes(size)?;
        self.data = size;
        self.padding = size.next_multiple_of(BLOCK) - size;
        Ok(())
    }

    fn skip_data(&mut self) -> Result<()> {
        let mut left = self.data + self.padding;
        while left > 0 {
            let length = self.input.fill_buf()?.len();
            if length == 0 {
                return Err(truncated());
            }
            let step = length.min(usize::try_from(left).unwrap_or(usize::MAX));
            self.input.consume(step);
            left -= step as u64;
        }
        self.data = 0;
        self.padding = 0;
        Ok(())
    }
}

/// Whether a stream begins as a tar archive does: with a header whose checksum is right.
pub fn is_tar(input: impl BufRead) -> bool {
    matches!(Walk::new(input, Limits::default()).header(), Ok(Some(_)))
}

fn truncated() -> Error {
    Error::Invalid("the archive ends in the middle: it is cut short".into())
}

fn early(error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => truncated(),
        _ => error.into(),
    }
}

fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    if let Some(end) = name.iter().position(|&byte| byte == 0) {
        name.truncate(end);
    }
    name
}

fn link(header: &Header, extension: &Extension) -> Result<Vec<u8>> {
    let target = match &extension.link {
        Some(link) => link.clone(),
        None => header.link_name_bytes().map(|name| name.into_owned()).unwrap_or_default(),
    };
    match target.len() {
        0 => Err(Error::Invalid("it is a link to nothing".into())),
        length if length > Limits::PATH_BYTES => {
            Err(Error::Invalid("it is a link to a path longer than 4095 bytes".into()))
        }
        _ => Ok(target),
    }
}

fn mode(header: &Header) -> Result<u32> {
    let bits = number(&header.as_old().mode, header.mode().map(u64::from))? & 0o7777;
    Ok(u32::try_from(bits).unwrap_or_default())
}

fn device(header: &Header) -> Result<(u32, u32)> {
    Ok((header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0)))
}

/// What an extended header says, or else the header.
fn given(
    extended: Option<u64>,
    raw: &[u8],
    decode: impl FnOnce() -> std::io::Result<u64>,
) -> Result<u64> {
    extended.map_or_else(|| number(raw, decode()), Ok)
}

/// A field of a header; an empty one is 0, as for Go's reader.
fn number(raw: &[u8], decoded: std::io::Result<u64>) -> Result<u64> {
    if raw.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return Ok(0);
    }
    decoded.map_err(|_| Error::Invalid("a number in its header is malformed".into()))
}

/// A user or group number. The last one means "leave it" to chown(2) and is no owner.
fn owner(id: u64) -> Result<u32> {
    u32::try_from(id)
        .ok()
        .filter(|&id| id != u32::MAX)
        .ok_or_else(|| Error::Invalid(format!("its owner {id} is not a user of Linux")))
}
