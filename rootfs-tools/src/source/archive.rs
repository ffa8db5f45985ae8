//! An archive of an image: a tar file with documents and blobs in it, read where they lie.

use super::layout::Blobs;
use crate::error::{Context, Error, Result};
use crate::layer::limits::Limits;
use crate::layer::name::Name;
use crate::layer::walk::{Kind, Walk};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// What a tar file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An image: a layout, or what `docker save` writes.
    Image,
    /// The files of a root file system.
    Tree,
}

/// Tells the two apart by their first entries: an archive of an image has nothing but documents
/// and blobs, whose names are known.
///
/// # Errors
/// When it is not a tar file, or is empty.
pub fn format(input: impl Read) -> Result<Format> {
    let mut walk = Walk::new(BufReader::with_capacity(64 * 1024, input), Limits::default());
    while let Some(entry) = walk.next_entry()? {
        let name = entry.name.as_bytes();
        let first = name.split(|&byte| byte == b'/').next().unwrap_or_default();
        match name {
            b"" => {}
            b"oci-layout" | b"index.json" | b"manifest.json" => return Ok(Format::Image),
            b"repositories" => {}
            _ if first == b"blobs" || is_hash(first) => {}
            _ => return Ok(Format::Tree),
        }
    }
    Err(Error::Invalid("the archive is empty".into()))
}

/// `0123…ef`, `0123…ef.json`, `0123…ef.tar`: what `docker save` names by its digest.
fn is_hash(name: &[u8]) -> bool {
    let stem = name.strip_suffix(b".json").or(name.strip_suffix(b".tar")).unwrap_or(name);
    stem.len() == 64 && stem.iter().all(u8::is_ascii_hexdigit)
}

/// Where the data of a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Member {
    Data { offset: u64, size: u64 },
    Link(Vec<u8>),
}

/// An open archive, and what is where in it.
#[derive(Debug)]
pub struct Archive {
    file: Arc<File>,
    members: BTreeMap<Vec<u8>, Member>,
}

impl Archive {
    /// Reads the table of contents.
    ///
    /// # Errors
    /// When it is not a tar file, or is damaged.
    pub fn open(file: File) -> Result<Self> {
        let mut members = BTreeMap::new();
        let input = BufReader::with_capacity(4096, Positioned { file: &file, at: 0 });
        // The limit on bytes is about unpacked layers; here the size of the file is the limit.
        let limits = Limits { bytes: u64::MAX >> 1, entries: 1_000_000 };
        let mut walk = Walk::new(input, limits);
        while let Some(entry) = walk.next_entry()? {
            let member = match entry.kind {
                Kind::File { size, map: None } => {
                    let input = walk.input();
                    let offset = input.get_ref().at - input.buffer().len() as u64;
                    Member::Data { offset, size }
                }
                Kind::Symlink(to) => {
                    // `docker save` links a layer that several images have: `../ID/layer.tar`.
                    let (directory, _) = entry.name.split();
                    Member::Link(joined(directory, &to))
                }
                Kind::HardLink(to) => Member::Link(to.as_bytes().to_vec()),
                Kind::Directory => continue,
                _ => {
                    return Err(Error::Invalid(format!(
                        "entry `{}` is neither a file nor a directory, which an archive of an image does not have",
                        entry.name
                    )));
                }
            };
            members.insert(entry.name.as_bytes().to_vec(), member);
            walk.seek_past(|input, count| {
                let count = i64::try_from(count).map_err(|_| io::Error::other("too large"))?;
                input.seek_relative(count)
            })?;
        }
        drop(walk);
        Ok(Self { file: Arc::new(file), members })
    }

    /// Whether it has a file of this name.
    pub fn has(&self, name: &str) -> bool {
        self.find(name.as_bytes()).is_ok()
    }

    /// A stream of a member's data.
    ///
    /// # Errors
    /// When there is no such member.
    pub fn section(&self, name: &[u8]) -> Result<Section> {
        let (offset, size) = self.find(name)?;
        Ok(Section { file: self.file.clone(), at: offset, left: size })
    }

    fn find(&self, name: &[u8]) -> Result<(u64, u64)> {
        let mut name = Name::new(name)?.as_bytes().to_vec();
        // A link to a link to a file is more than any tool makes.
        for _ in 0..3 {
            match self.members.get(&name) {
                Some(Member::Data { offset, size }) => return Ok((*offset, *size)),
                Some(Member::Link(to)) => name.clone_from(to),
                None => break,
            }
        }
        let name = crate::layer::name::show(&name);
        Err(Error::Invalid(format!("the archive has no file `{name}`")))
    }
}

impl Blobs for Archive {
    fn document(&self, name: &str) -> Result<Vec<u8>> {
        let section = self.section(name.as_bytes())?;
        super::layout::read_small(section).context(|| format!("read {name}"))
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.section(name.as_bytes())?))
    }
}

/// A path beside another in the archive. One that leads out of the archive names nothing in it.
fn joined(directory: &[u8], to: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = directory.split(|&byte| byte == b'/').collect();
    for part in to.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.retain(|part| !part.is_empty());
    parts.join(&b'/')
}

/// A reader of a shared file, with a position of its own.
struct Positioned<'file> {
    file: &'file File,
    at: u64,
}

impl Read for Positioned<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl io::Seek for Positioned<'_> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let at = match to {
            io::SeekFrom::Start(at) => Some(at),
            io::SeekFrom::Current(step) => self.at.checked_add_signed(step),
            io::SeekFrom::End(_) => None,
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// The data of one member.
#[derive(Debug)]
pub struct Section {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Section {
    /// All of a file.
    pub fn whole(file: Arc<File>, length: u64) -> Self {
        Self { file, at: 0, left: length }
    }

    /// The same data once more.
    pub fn again(&self) -> Self {
        Self { file: self.file.clone(), at: self.at, left: self.left }
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        if count == 0 {
            return Err(Error::Invalid("the archive is cut short".into()).into());
        }
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, data) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            builder.append_data(&mut header, name, *data).unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "two/layer.tar", "../one/layer.tar").unwrap();
        builder.into_inner().unwrap()
    }

    fn opened(bytes: &[u8]) -> Archive {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Archive::open(file).unwrap()
    }

    #[test]
    fn members_are_read_where_they_lie() {
        let large = vec![7; 70_000];
        let archive = opened(&archive(&[("a", b"first"), ("one/layer.tar", &large), ("b", b"")]));
        let read = |name: &str| {
            let mut bytes = Vec::new();
            archive.section(name.as_bytes()).unwrap().read_to_end(&mut bytes).unwrap();
            bytes
        };
        assert_eq!(read("./a"), b"first");
        assert_eq!(read("one/layer.tar"), large);
        assert_eq!(read("two/layer.tar"), large);
        assert_eq!(read("b"), b"");
        assert!(archive.section(b"c").is_err());
    }

    #[test]
    fn an_image_and_a_tree_are_told_apart() {
        let hash = "0".repeat(64);
        let old = format!("{hash}/layer.tar");
        assert_eq!(
            format(&archive(&[("blobs/sha256/x", b""), ("index.json", b"")])[..]).unwrap(),
            Format::Image
        );
        assert_eq!(
            format(&archive(&[(&old, b""), ("manifest.json", b"")])[..]).unwrap(),
            Format::Image
        );
        assert_eq!(format(&archive(&[("bin/sh", b"")])[..]).unwrap(), Format::Tree);
        assert!(format(&b""[..]).is_err());
    }

    #[test]
    fn a_link_does_not_lead_out() {
        assert_eq!(joined(b"a/b", b"../../../../etc/passwd"), b"etc/passwd");
        assert_eq!(joined(b"a", b"./x"), b"a/x");
    }
}
