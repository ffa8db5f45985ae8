//! The directory of a checkpoint: CRIU's images, and what minirun adds to them.
//!
//! ```text
//! checkpoint/           --image-path
//! ├── minirun.json      the mounts and streams from outside: what CRIU cannot know
//! ├── dump.log          what CRIU did (in --work-path, if there is one)
//! └── *.img             processes, memory, files, namespaces: CRIU's own format
//! ```

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::mounts::External;
use crate::error::{Error, Result};

/// The name of our file.
const FILE: &str = "minirun.json";
/// The version of its format.
const FORMAT: u32 = 1;

/// What minirun writes down beside the images.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Images {
    format: u32,
    /// The mounts that come from outside.
    pub(crate) externals: Vec<External>,
    /// Every mount point, and whether it is a directory.
    pub(crate) places: Vec<(PathBuf, bool)>,
    /// The names in the images of the standard streams that come from outside.
    pub(crate) streams: [Option<String>; 3],
    /// Whether the first process dies with its parent.
    pub(crate) dies_with_parent: bool,
    /// The directory of the writable layer, which was kept.
    pub(crate) writable: Option<PathBuf>,
}

impl Images {
    /// Writes the file.
    pub(crate) fn write(mut self, dir: &Path) -> Result<()> {
        self.format = FORMAT;
        let file = dir.join(FILE);
        let text = serde_json::to_vec(&self)
            .map_err(|error| Error::Config(format!("{}: {error}", file.display())))?;
        std::fs::write(&file, text).map_err(Error::file(format!("write {}", file.display())))
    }

    /// Reads it.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let file = dir.join(FILE);
        let bytes = std::fs::read(&file).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::Config(format!(
                "{}: no such file or directory: not a checkpoint that minirun has made",
                file.display()
            )),
            _ => Error::file(format!("read {}", file.display()))(error),
        })?;
        let images: Self = crate::json::read(&bytes)
            .map_err(|error| Error::Config(format!("{}: {error}", file.display())))?;
        if images.format != FORMAT {
            return Err(Error::Unsupported(format!(
                "{}: format {} is another version's",
                file.display(),
                images.format
            )));
        }
        Ok(images)
    }
}

/// Opens a directory, and makes it if it is missing.
pub(crate) fn directory(path: &Path) -> Result<File> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(Error::file(format!("make {}", path.display())))?;
    existing(path)
}

/// Opens a directory that must be there.
pub(crate) fn existing(path: &Path) -> Result<File> {
    File::open(path).map_err(Error::file(format!("open {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Images::read(dir.path()).unwrap_err().to_string().contains("not a checkpoint"));
        let streams = [None, Some("pipe:[7]".to_owned()), None];
        let places = vec![("/proc".into(), true)];
        Images { streams, places, ..Images::default() }.write(dir.path()).unwrap();
        let read = Images::read(dir.path()).unwrap();
        assert_eq!(read.streams[1].as_deref(), Some("pipe:[7]"));
        assert_eq!(read.places, [(PathBuf::from("/proc"), true)]);
    }
}
