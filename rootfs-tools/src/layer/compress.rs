//! A layer is compressed: gzip without a time or a name in its header, so that the same layer
//! gives the same bytes.

use crate::error::{Context, Result};
use flate2::{Compression, GzBuilder};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Writes a compressed layer to a new file.
///
/// # Errors
/// That of `write`, or when the file cannot be written.
pub fn to_file<T>(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<T>) -> Result<T> {
    let step = || format!("write {}", path.display());
    let file = BufWriter::new(File::create_new(path).context(step)?);
    let mut encoder = GzBuilder::new().write(file, Compression::default());
    let value = write(&mut encoder)?;
    encoder.finish().context(step)?.flush().context(step)?;
    Ok(value)
}
