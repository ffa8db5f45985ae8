//! Reading files, the only contact of this crate with the outside.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::limits;

/// Where the loader reads from.
///
/// The loader calls this for the Compose files it was given and for the files these name
/// (`include`, `extends`, `env_file`, `label_file`, `.env`), and for nothing else.
pub trait Files {
    /// The bytes of a file.
    ///
    /// # Errors
    /// Any error of the system; [`io::ErrorKind::NotFound`] makes an optional file absent.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// The files of this host.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        use io::Read as _;
        // One byte more than allowed is enough to know that a file is too large; a device or a
        // pipe named by mistake so cannot fill the memory.
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path)?;
        file.take(limits::FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// A tree of files in memory: for tests, and for a project that comes over a socket.
#[derive(Debug, Clone, Default)]
pub struct Tree(BTreeMap<PathBuf, Vec<u8>>);

impl Tree {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same tree with one more file.
    #[must_use]
    pub fn with(mut self, path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) -> Self {
        self.0.insert(path.into(), bytes.into());
        self
    }
}

impl Files for Tree {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
