//! What the stages of loading find: sources, errors, warnings, and where each value comes from.

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, Severity};
use crate::limits;
use crate::source::{Sources, Span};

#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) sources: Sources,
    pub(crate) errors: Vec<Diagnostic>,
    pub(crate) warnings: Vec<Diagnostic>,
    /// Ports that short forms have become: ranges must not fill the memory.
    pub(crate) ports: usize,
    /// Where each key of the resolved project was read, by its path.
    pub(crate) origins: BTreeMap<String, Span>,
}

impl Findings {
    pub(crate) fn error(
        &mut self,
        span: Span,
        path: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        // Far beyond what is shown: enough for "and N more", and bounded for a hostile file.
        if self.errors.len() < 10 * limits::ERRORS {
            let at = Some((&self.sources, span));
            self.errors.push(Diagnostic::new(Severity::Error, at, path, message, remedy));
        }
    }

    pub(crate) fn warn(
        &mut self,
        span: Span,
        path: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        if self.has_room_for_warnings() {
            let at = Some((&self.sources, span));
            self.warnings.push(Diagnostic::new(Severity::Warning, at, path, message, remedy));
        }
    }

    /// Whether another warning would be kept; finding its place costs time.
    pub(crate) fn has_room_for_warnings(&self) -> bool {
        self.warnings.len() < 10 * limits::ERRORS
    }

    /// An error without a place.
    pub(crate) fn error_outside(&mut self, message: impl Into<String>, remedy: impl Into<String>) {
        self.errors.push(Diagnostic::new(Severity::Error, None, "", message, remedy));
    }
}
