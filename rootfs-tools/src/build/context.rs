//! The directory that COPY copies from, without what `.dockerignore` hides.

use super::ignore::Ignore;
use crate::error::{Context as _, Error, Result};
use crate::image::view::View;
use crate::layer::whiteout::Form;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// The build context.
#[derive(Debug)]
pub struct Context {
    /// The files. Links are copied, never followed, so nothing outside can be reached.
    pub view: View,
    /// What is hidden.
    pub ignore: Ignore,
}

impl Context {
    /// Opens a directory.
    ///
    /// # Errors
    /// When it is none, or its `.dockerignore` cannot be read.
    pub fn open(directory: &Path) -> Result<Self> {
        let step = || format!("open the context {}", directory.display());
        let directory = fs::canonicalize(directory).context(step)?;
        let view = View::open(&[&directory], Form::User).context(step)?;
        let ignore = match fs::read_to_string(directory.join(".dockerignore")) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ignore::default(),
            Err(error) => return Err(Error::from(error)).context(step),
            Ok(text) => Ignore::parse(&text),
        };
        Ok(Self { view, ignore })
    }
}
