//! What a command says, and to whom: words for people, JSON for programs, bars on a terminal.

use super::text;
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rootfs_tools::Result;
use rootfs_tools::progress::{Advance, Part, Progress, Silent};
use serde_json::Value;
use std::io::{IsTerminal, Write};

/// How to speak.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Output {
    /// Prints JSON instead of words
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Says nothing but results that were asked for, and errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

impl Output {
    /// Says what was done: the words, or the same as JSON.
    pub(crate) fn done(self, words: impl FnOnce() -> String, json: Value) -> Result<()> {
        let mut output = std::io::stdout();
        match (self.json, self.quiet) {
            (true, _) => Ok(writeln!(output, "{json}")?),
            (false, true) => Ok(()),
            (false, false) => Ok(writeln!(output, "{}", words())?),
        }
    }

    /// Says on the way what is going on.
    pub(crate) fn tell(self, line: &str) {
        if !self.quiet {
            // Nobody has to read along.
            drop(writeln!(std::io::stderr(), "{line}"));
        }
    }

    /// Who is told how far a command is: bars on a terminal, otherwise a line for each part.
    pub(crate) fn progress(self) -> Box<dyn Progress> {
        match (self.quiet, std::io::stderr().is_terminal()) {
            (true, _) => Box::new(Silent),
            (false, true) => Box::new(Bars(MultiProgress::with_draw_target(
                ProgressDrawTarget::stderr_with_hz(10),
            ))),
            (false, false) => Box::new(Lines),
        }
    }
}

/// `layer 2 of 5, 0123456789ab`.
fn title(part: &Part) -> String {
    let digest = part.digest.map_or_else(String::new, |digest| format!(", {}", digest.short()));
    format!("layer {} of {}{digest}", part.number, part.count)
}

/// A bar for each part, with the rate and the time that is left.
#[derive(Debug)]
struct Bars(MultiProgress);

#[derive(Debug)]
struct Bar(ProgressBar);

/// With and without the size of the whole.
const BAR: &str =
    "{prefix} {bar:24} {bytes:>10} of {total_bytes:10} {binary_bytes_per_sec:>12}, {eta} left";
const NO_END: &str = "{prefix} {spinner} {bytes:>10} {binary_bytes_per_sec:>12}";

impl Progress for Bars {
    fn begin(&self, part: Part) -> Box<dyn Advance> {
        let (bar, template) = match part.bytes {
            Some(bytes) => (ProgressBar::new(bytes), BAR),
            None => (ProgressBar::new_spinner(), NO_END),
        };
        let bar = self.0.add(bar);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━━ "));
        }
        bar.set_prefix(title(&part));
        Box::new(Bar(bar))
    }
}

impl Advance for Bar {
    fn advance(&mut self, bytes: u64) {
        self.0.inc(bytes);
    }
}

impl Drop for Bar {
    /// The bar stays as it is, so that one sees afterwards what there was.
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// A line for each part, when it is done.
#[derive(Debug)]
struct Lines;

#[derive(Debug)]
struct Line {
    part: Part,
    bytes: u64,
}

impl Progress for Lines {
    fn begin(&self, part: Part) -> Box<dyn Advance> {
        Box::new(Line { part, bytes: 0 })
    }
}

impl Advance for Line {
    fn advance(&mut self, bytes: u64) {
        self.bytes += bytes;
    }
}

impl Drop for Line {
    /// What ends too early is the subject of an error.
    fn drop(&mut self) {
        if self.part.bytes.is_none_or(|bytes| bytes == self.bytes) {
            let size = text::size(self.bytes);
            drop(writeln!(std::io::stderr(), "{}: {size}", title(&self.part)));
        }
    }
}
