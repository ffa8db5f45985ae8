//! Source texts and positions in them.
//!
//! Every value keeps the [`Span`] it was read from, and every source keeps the directory and the
//! variables that its values are resolved with. An included or extended file so needs no rewriting
//! of its paths: a value knows its file, and the file knows its base.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Variables by name: the environment of the caller, or what a `.env` file defines.
pub type Variables = BTreeMap<String, String>;

/// A place in a file, as people and editors count it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The file, as it was named by the caller or by the file that refers to it.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// Index of a source in [`Sources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileId(u32);

/// A stretch of one line of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) file: FileId,
    /// From 1.
    pub(crate) line: u32,
    /// In characters, from 1.
    pub(crate) column: u32,
    /// In characters; a span over several lines has the width of its first.
    pub(crate) width: u32,
}

/// One file that takes part in a project.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// Relative paths in this source start here.
    pub(crate) base: PathBuf,
    /// Variables that this source is interpolated with.
    pub(crate) variables: Arc<Variables>,
}

/// All files that take part in a project.
#[derive(Debug, Default)]
pub(crate) struct Sources(Vec<Source>);

impl Sources {
    pub(crate) fn add(&mut self, source: Source) -> FileId {
        self.0.push(source);
        FileId(u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX))
    }

    pub(crate) fn get(&self, id: FileId) -> &Source {
        &self.0[id.0 as usize]
    }

    pub(crate) fn location(&self, span: Span) -> Location {
        Location { file: self.get(span.file).path.clone(), line: span.line, column: span.column }
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|source| source.path.as_path())
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(|source| source.text.len()).sum()
    }

    /// The text of the line that a span begins on.
    pub(crate) fn line(&self, span: Span) -> &str {
        let index = span.line.saturating_sub(1) as usize;
        self.get(span.file).text.lines().nth(index).unwrap_or("")
    }

    /// Makes a relative path absolute in the way the file that names it wants.
    pub(crate) fn resolve(&self, file: FileId, path: &str) -> PathBuf {
        join(&self.get(file).base, Path::new(path))
    }
}

/// `base/path` without `.` and `..` where they can be removed by looking at the names alone.
///
/// Symbolic links are not followed: the loader reads nothing but the files it was told to read.
pub(crate) fn join(base: &Path, path: &Path) -> PathBuf {
    use std::path::Component;
    let mut out = PathBuf::new();
    for part in base.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => match out.components().next_back() {
                Some(Component::Normal(_)) => {
                    out.pop();
                }
                Some(Component::RootDir) => {}
                _ => out.push(".."),
            },
            other => out.push(other),
        }
    }
    if out.as_os_str().is_empty() { PathBuf::from(".") } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_by_name_only() {
        let at = |path: &str| join(Path::new("/srv/app"), Path::new(path));
        assert_eq!(at("./data"), Path::new("/srv/app/data"));
        assert_eq!(at("../other/./x"), Path::new("/srv/other/x"));
        assert_eq!(at("../../../.."), Path::new("/"));
        assert_eq!(at("/etc"), Path::new("/etc"));
        assert_eq!(join(Path::new("."), Path::new("../x")), Path::new("../x"));
        assert_eq!(join(Path::new("."), Path::new(".")), Path::new("."));
    }
}
