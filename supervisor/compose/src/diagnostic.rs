//! What is wrong, where, and what would be right.

use std::fmt;

use crate::limits;
use crate::source::{Location, Sources, Span};

/// How much a [`Diagnostic`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The project cannot be loaded.
    Error,
    /// The project is loaded, but something in the file has no effect or not the usual one.
    Warning,
}

/// One finding about a file. `Display` prints it with the line and a caret:
///
/// ```text
/// compose.yaml:7:7: error: services.web.deploy.replica: unknown key
///    7 |       replica: 3
///      |       ^^^^^^^
///      = did you mean `replicas`?
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Where; `None` when no file is to blame (a file that cannot be read).
    pub location: Option<Location>,
    /// The value it is about, as in `services.web.ports[0]`; empty when there is none.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What would be accepted, or what to do.
    pub remedy: String,
    excerpt: Option<Excerpt>,
}

/// A finding that does not prevent loading. Always of [`Severity::Warning`].
pub type Warning = Diagnostic;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Excerpt {
    text: String,
    /// Characters before the caret.
    indent: usize,
    /// Carets.
    width: usize,
}

/// Columns of a line that are shown; longer ones are cut around the caret.
const SHOWN: usize = 100;

impl Excerpt {
    fn new(sources: &Sources, span: Span) -> Self {
        let column = (span.column as usize).saturating_sub(1);
        let start = column.saturating_sub(SHOWN / 2);
        let start = if column < SHOWN * 3 / 4 { 0 } else { start };
        let clean = |c: char| if c.is_control() { ' ' } else { c };
        let text: String = sources.line(span).chars().skip(start).take(SHOWN).map(clean).collect();
        let text = text.trim_end().to_owned();
        let indent = column - start;
        let room = text.chars().count().saturating_sub(indent).max(1);
        Self { text, indent, width: (span.width as usize).clamp(1, room) }
    }
}

/// The text with control characters made visible: what a file holds must not move the cursor of the
/// reader's terminal, or hide there what stands beside it.
fn visible(text: &str) -> String {
    let show = |c: char| match c {
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(show).collect()
}

impl Diagnostic {
    pub(crate) fn new(
        severity: Severity,
        at: Option<(&Sources, Span)>,
        path: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            location: at.map(|(sources, span)| sources.location(span)),
            path: visible(path),
            message: visible(&message.into()),
            remedy: visible(&remedy.into()),
            excerpt: at.map(|(sources, span)| Excerpt::new(sources, span)),
        }
    }

    /// The finding in one line, without the excerpt: for logs.
    #[must_use]
    pub fn one_line(&self) -> String {
        let mut out = String::new();
        if let Some(location) = &self.location {
            out.push_str(&format!("{location}: "));
        }
        out.push_str(match self.severity {
            Severity::Error => "error: ",
            Severity::Warning => "warning: ",
        });
        if !self.path.is_empty() {
            out.push_str(&format!("{}: ", self.path));
        }
        out.push_str(&self.message);
        out
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.one_line())?;
        if let (Some(location), Some(excerpt)) = (&self.location, &self.excerpt) {
            let number = location.line.to_string();
            let gutter = number.len().max(4);
            write!(f, "\n{number:>gutter$} | {}", excerpt.text)?;
            let (indent, carets) = (" ".repeat(excerpt.indent), "^".repeat(excerpt.width));
            write!(f, "\n{:>gutter$} | {indent}{carets}", "")?;
        }
        if !self.remedy.is_empty() {
            write!(f, "\n     = {}", self.remedy)?;
        }
        Ok(())
    }
}

/// Why a project cannot be loaded: every error that was found, in the order of the files' lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors {
    found: Vec<Diagnostic>,
    /// How many were found beyond those kept.
    more: usize,
}

impl Errors {
    pub(crate) fn new(mut found: Vec<Diagnostic>) -> Self {
        found.sort_by(|a, b| (&a.location, &a.path).cmp(&(&b.location, &b.path)));
        found.dedup();
        let more = found.len().saturating_sub(limits::ERRORS);
        found.truncate(limits::ERRORS);
        Self { found, more }
    }

    /// The errors; never empty.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.found.iter()
    }
}

impl<'a> IntoIterator for &'a Errors {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.found.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n\n" };
            write!(f, "{gap}{error}")?;
        }
        if self.more > 0 {
            write!(f, "\n\nand {} more errors", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}
