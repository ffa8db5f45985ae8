//! Files to one tree: read, parse, fill in, expand, extend, include, merge.
//!
//! Each file is made complete on its own (variables, `extends`, `include`) before it is laid over
//! the files before it; so an override file can change what an included or extended one says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use crate::dotenv;
use crate::files::Files;
use crate::fill;
use crate::findings::Findings;
use crate::limits;
use crate::merge::merge;
use crate::short;
use crate::source::{FileId, Source, Span, Variables};
use crate::yaml::{self, Map, Node, Tag, Value};

/// What is wrong with a file that another file names, and where it names it.
pub(crate) type At<'a> = Option<(Span, &'a str)>;

/// The directory and the variables that a set of files is read with.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) base: PathBuf,
    pub(crate) variables: Arc<Variables>,
}

pub(crate) struct Assembly<'a> {
    pub(crate) files: &'a dyn Files,
    pub(crate) cx: &'a mut Findings,
    /// Files that are being included, outermost first.
    pub(crate) including: Vec<PathBuf>,
    /// Documents of files that services were extended from.
    pub(crate) extended: BTreeMap<PathBuf, Option<Rc<Map>>>,
    /// Values made by `extends` so far.
    pub(crate) nodes: usize,
}

impl Assembly<'_> {
    /// Loads files and lays each over those before it.
    pub(crate) fn load_all(
        &mut self,
        paths: &[PathBuf],
        setting: &Setting,
        at: At<'_>,
    ) -> Option<Node> {
        let mut merged: Option<Node> = None;
        for path in paths {
            for mut document in self.load(path, setting, at) {
                self.extend(&mut document, merged.as_ref());
                self.include(&mut document, setting);
                merged = Some(match merged {
                    None => document,
                    Some(earlier) => merge(earlier, document, &[], self.cx),
                });
            }
        }
        merged
    }

    /// Loads the documents of a file, with their variables and in the long syntax.
    pub(crate) fn load(&mut self, path: &Path, setting: &Setting, at: At<'_>) -> Vec<Node> {
        let Some((id, text)) = self.read(path, setting, at) else { return Vec::new() };
        let mut documents = match yaml::parse(id, &text) {
            Ok(documents) => documents,
            Err(fault) => {
                self.cx.error(fault.span, "", fault.message, fault.remedy);
                return Vec::new();
            }
        };
        documents.retain(|document| {
            let good = document.as_map().is_some();
            if !good && !document.is_null() {
                let message =
                    format!("a Compose file is a mapping, and this is {}", document.kind());
                self.cx.error(document.span, "", message, "begin with `services:`");
            }
            good
        });
        for document in &mut documents {
            fill::fill(document, "", self.cx);
            short::expand(document, self.cx);
        }
        documents
    }

    /// The text of a file, registered as a source.
    pub(crate) fn read(
        &mut self,
        path: &Path,
        setting: &Setting,
        at: At<'_>,
    ) -> Option<(FileId, String)> {
        if self.cx.sources.count() >= limits::FILES {
            let message = format!("the project has more than {} files", limits::FILES);
            self.problem(at, message, "use fewer files");
            return None;
        }
        if self.cx.sources.bytes() > limits::PROJECT_BYTES {
            let message =
                format!("the project has more than {} bytes of text", limits::PROJECT_BYTES);
            self.problem(at, message, "use fewer or smaller files");
            return None;
        }
        let text = match self.files.read(path) {
            Ok(bytes) if bytes.len() > limits::FILE_BYTES => {
                let message =
                    format!("`{}` is larger than {} bytes", path.display(), limits::FILE_BYTES);
                self.problem(at, message, "split it");
                return None;
            }
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => text,
                Err(error) => {
                    let valid = error.utf8_error().valid_up_to();
                    let lines =
                        error.as_bytes()[..valid].iter().filter(|b| **b == b'\n').count() + 1;
                    let message = format!("`{}` is not UTF-8, in line {lines}", path.display());
                    self.problem(at, message, "save it as UTF-8");
                    return None;
                }
            },
            Err(error) => {
                let message = format!("cannot read `{}`: {error}", path.display());
                self.problem(
                    at,
                    message,
                    "check the path; it starts in the directory of the file that names it",
                );
                return None;
            }
        };
        let Setting { base, variables } = setting.clone();
        let id =
            self.cx.sources.add(Source { path: path.into(), text: text.clone(), base, variables });
        Some((id, text))
    }

    pub(crate) fn problem(&mut self, at: At<'_>, message: String, remedy: &str) {
        match at {
            Some((span, path)) => self.cx.error(span, path, message, remedy),
            None => self.cx.error_outside(message, remedy),
        }
    }

    /// The variables of files under those of the caller. A missing file counts only if it is
    /// `required`.
    pub(crate) fn variables(
        &mut self,
        paths: &[PathBuf],
        required: bool,
        setting: &Setting,
        at: At<'_>,
    ) -> Variables {
        let mut variables = Variables::new();
        for path in paths {
            if !required && self.is_missing(path) {
                continue;
            }
            let mut known = variables.clone();
            known.extend((*setting.variables).clone());
            let pairs = self.defined(path, dotenv::Format::Compose, &known, setting, at);
            variables.extend(pairs.into_iter().filter_map(|(name, value)| Some((name, value?))));
        }
        variables.extend((*setting.variables).clone());
        variables
    }

    pub(crate) fn is_missing(&self, path: &Path) -> bool {
        matches!(self.files.read(path), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
    }

    /// What a file of variables defines.
    pub(crate) fn defined(
        &mut self,
        path: &Path,
        format: dotenv::Format,
        known: &Variables,
        setting: &Setting,
        at: At<'_>,
    ) -> Vec<(String, Option<String>)> {
        let Some((file, text)) = self.read(path, setting, at) else { return Vec::new() };
        let place = |line, column| Span { file, line, column, width: 1 };
        match dotenv::parse(&text, format, known) {
            Ok(defined) => {
                for (name, line) in defined.missing {
                    let message = format!("the variable `{name}` is not set; nothing is filled in");
                    let remedy =
                        format!("set it, or write `${{{name}:-default}}`, or use single quotes");
                    self.cx.warn(place(line, 1), "", message, remedy);
                }
                defined.pairs
            }
            Err(fault) => {
                self.cx.error(place(fault.line, fault.column), "", fault.message, fault.remedy);
                Vec::new()
            }
        }
    }
}

/// The services of a document.
pub(crate) fn services(document: &Node) -> Option<&Map> {
    document.get("services")?.as_map()
}

/// An empty mapping at the place of a value.
pub(crate) fn empty_at(node: &Node) -> Node {
    Node { span: node.span, tag: Tag::None, value: Value::Mapping(Map::new()) }
}
