//! The record of an unpacked layer, in mtree(5): what every file was when it was written.
//!
//! ```text
//! #mtree
//! ./etc type=dir mode=0755 uid=0 gid=0 time=1700000000.000000000
//! ./etc/passwd type=file mode=0644 uid=0 gid=0 time=1700000000.000000000 size=42 sha256digest=…
//! ./bin/su type=file mode=04755 … xattr.security.capability=AQAAAg==
//! ./bin/sh type=link … link=dash
//! ./bin/bunzip2 type=hardlink to=./bin/bzip2
//! ./old type=whiteout
//! ./etc/apt type=opaque
//! ```
//!
//! The digest of this file, kept with the layer, is the digest of the tree: `--verify` compares
//! the tree with the record, and the record with its digest, and so can name the file that
//! changed. It is mtree(5) because people have tools for that; the types `hardlink`,
//! `whiteout` and `opaque` are ours, for mtree
//! cannot say which file it is a name of. Paths and values are escaped as by vis(3), octal.

use super::name::Name;
use crate::digest::{Digest, Digesting};
use crate::error::{Error, Result};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{BufWriter, Write};

/// What a line says about one file. Words and not types: a line is compared with another line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// The path.
    pub name: Vec<u8>,
    /// `type=file mode=0644 …`: the words, in their fixed order.
    pub words: Vec<(Cow<'static, str>, String)>,
}

impl Line {
    /// A line about a file of one type.
    pub fn new(name: &Name, kind: &str) -> Self {
        // As many as a file has.
        let mut words = Vec::with_capacity(7);
        words.push(("type".into(), kind.to_owned()));
        Self { name: name.as_bytes().to_vec(), words }
    }

    /// Adds a word.
    #[must_use]
    pub fn with(mut self, key: impl Into<Cow<'static, str>>, value: impl ToString) -> Self {
        self.words.push((key.into(), value.to_string()));
        self
    }

    /// Adds mode, owner and time.
    #[must_use]
    pub fn owned(self, mode: u32, uid: u32, gid: u32, time: (i64, u32)) -> Self {
        self.with("mode", format_args!("{mode:04o}"))
            .with("uid", uid)
            .with("gid", gid)
            .with("time", format_args!("{}.{:09}", time.0, time.1))
    }

    /// Adds a word whose value is any bytes.
    #[must_use]
    pub fn with_bytes(self, key: impl Into<Cow<'static, str>>, value: &[u8]) -> Self {
        self.with(key, escape(value))
    }

    /// Adds an extended attribute.
    #[must_use]
    pub fn with_xattr(self, name: &[u8], value: &[u8]) -> Self {
        self.with_bytes(format!("xattr.{}", escape(name)), value)
    }

    /// The value of a word.
    pub fn word(&self, key: &str) -> Option<&str> {
        self.words.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The type of the file.
    pub fn kind(&self) -> &str {
        self.word("type").unwrap_or_default()
    }

    /// Mode and time of a line that has them.
    pub fn mode_and_time(&self) -> Option<(u32, (i64, u32))> {
        let mode = u32::from_str_radix(self.word("mode")?, 8).ok()?;
        let (seconds, nanos) = self.word("time")?.split_once('.')?;
        Some((mode, (seconds.parse().ok()?, nanos.parse().ok()?)))
    }

    /// Appends the line as it is written.
    fn write_to(&self, text: &mut String) {
        text.push_str(if self.name.is_empty() { "." } else { "./" });
        escape_to(&self.name, text);
        for (key, value) in &self.words {
            for part in [" ", key, "=", value] {
                text.push_str(part);
            }
        }
        text.push('\n');
    }

    /// Reads a line; `None` for a comment.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is neither.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        if text.is_empty() || text.starts_with('#') {
            return Ok(None);
        }
        let invalid = || Error::Invalid("a line of the layer's record is malformed".into());
        let mut parts = text.split(' ');
        let path = parts.next().and_then(|path| path.strip_prefix('.')).ok_or_else(invalid)?;
        let name = unescape(path.strip_prefix('/').unwrap_or(path)).ok_or_else(invalid)?;
        let words = parts
            .map(|word| word.split_once('='))
            .map(|word| word.map(|(key, value)| (key.to_owned().into(), value.to_owned())))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(invalid)?;
        Ok(Some(Self { name, words }))
    }
}

/// Escapes what mtree(5) gives a meaning to, and what is not printable ASCII.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    escape_to(bytes, &mut text);
    text
}

fn escape_to(bytes: &[u8], text: &mut String) {
    for &byte in bytes {
        match byte {
            b'!'..=b'~' if !matches!(byte, b'\\' | b'#' | b'=' | b'*' | b'?' | b'[') => {
                text.push(char::from(byte));
            }
            _ => {
                // Writing to a string cannot fail.
                let _ = write!(text, "\\{byte:03o}");
            }
        }
    }
}

/// The bytes that [`escape`] wrote; `None` when it did not write this.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'\\' {
            let digits = std::str::from_utf8(rest.get(..3)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 8).ok()?);
            rest = &rest[3..];
        } else {
            bytes.push(first);
        }
    }
    Some(bytes)
}

/// Writes a record and digests it on the way.
#[derive(Debug)]
pub struct Recorder<W: Write> {
    output: BufWriter<Digesting<W>>,
    /// The line that is being written: one buffer for all of them.
    text: String,
}

impl<W: Write> Recorder<W> {
    /// Begins a record.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(output: W) -> Result<Self> {
        let mut output = BufWriter::with_capacity(64 * 1024, Digesting::new(output));
        output.write_all(b"#mtree\n")?;
        Ok(Self { output, text: String::new() })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, line: &Line) -> Result<()> {
        self.text.clear();
        line.write_to(&mut self.text);
        Ok(self.output.write_all(self.text.as_bytes())?)
    }

    /// Ends the record: where it went, and its digest.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> Result<(W, Digest)> {
        let digesting = self.output.into_inner().map_err(|error| error.into_error())?;
        Ok(digesting.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(line: &Line) -> String {
        let mut text = String::new();
        line.write_to(&mut text);
        text
    }

    #[test]
    fn a_line_reads_as_it_was_written() {
        let name = Name::new(b"a b/#\xff\n=*").unwrap();
        let line = Line::new(&name, "file")
            .owned(0o4755, 0, 1000, (-2, 500_000_000))
            .with("size", 3)
            .with_xattr(b"user.x y", b"\0=1");
        let text = text_of(&line);
        assert!(text.is_ascii() && text.lines().count() == 1, "{text}");
        let read = Line::parse(text.trim_end_matches('\n')).unwrap().unwrap();
        assert_eq!(read, line);
        assert_eq!(read.mode_and_time(), Some((0o4755, (-2, 500_000_000))));
    }

    #[test]
    fn the_root_is_a_dot() {
        let line = Line::new(&Name::new(b".").unwrap(), "dir");
        assert_eq!(text_of(&line), ". type=dir\n");
        assert_eq!(Line::parse(". type=dir").unwrap(), Some(line));
    }

    #[test]
    fn the_digest_is_that_of_the_file() {
        let mut recorder = Recorder::new(Vec::new()).unwrap();
        recorder.add(&Line::new(&Name::new(b"x").unwrap(), "dir")).unwrap();
        let (file, digest) = recorder.finish().unwrap();
        assert_eq!(digest, Digest::of(&file));
        assert!(Line::parse("no dot").is_err());
        assert!(Line::parse("./x type").is_err());
        assert_eq!(Line::parse("#mtree").unwrap(), None);
    }
}
