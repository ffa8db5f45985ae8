//! The voice of `--explain` (for people, on stderr) and of `--trace FILE` (JSON lines).

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::Path;

use super::{Actor, Record};
use crate::error::{Error, Result};
use crate::steps::Step;

/// Tells records as they come.
#[derive(Debug)]
pub(crate) struct Narrator {
    told: Option<Style>,
    trace: Option<File>,
    number: u32,
    last: Step,
    total_micros: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Colour,
}

impl Narrator {
    /// A narrator for what was asked, `None` when nothing was.
    pub(crate) fn new(explain: bool, trace: Option<&Path>) -> Result<Option<Self>> {
        if !explain && trace.is_none() {
            return Ok(None);
        }
        let trace = trace
            .map(|path| {
                let made = File::options().create(true).append(true).open(path);
                made.map_err(Error::file(format!("open trace file {}", path.display())))
            })
            .transpose()?;
        let told = explain.then(|| {
            let colour = std::io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            if colour { Style::Colour } else { Style::Plain }
        });
        Ok(Some(Self { told, trace, number: 0, last: Step::Nothing, total_micros: 0 }))
    }

    /// Opens the story.
    pub(crate) fn open(&mut self, id: &str, bundle: &Path) {
        if let Some(style) = self.told {
            let text = format!("building container {id} from {}", bundle.display());
            say(&format!("\n{}\n", paint(style, BOLD, &text)));
        }
    }

    /// Closes the story: the container runs.
    pub(crate) fn close(&mut self, id: &str) {
        if let Some(style) = self.told {
            let text = format!(
                "container {id} is running: {} steps, {}",
                self.number,
                duration(self.total_micros)
            );
            say(&format!("\n{}\n\n", paint(style, BOLD, &text)));
        }
    }

    /// Tells one step.
    pub(crate) fn tell(&mut self, record: &Record) {
        self.number += 1;
        self.total_micros += record.micros;
        if let Some(style) = self.told {
            say(&self.text(style, record));
        }
        if let Some(trace) = &mut self.trace
            && let Ok(mut line) = serde_json::to_vec(record)
        {
            line.push(b'\n');
            // A full disk must not stop a container.
            drop(trace.write_all(&line));
        }
        self.last = record.step;
    }

    fn text(&self, style: Style, record: &Record) -> String {
        let who = match record.who {
            Actor::Parent => paint(style, CYAN, "parent"),
            Actor::Init => paint(style, GREEN, "init  "),
        };
        let what = format!("{} {}", record.step.verb(), record.object);
        let time = duration(record.micros);
        let dots = 62_usize.saturating_sub(what.chars().count()).max(2);
        let mut text = format!(
            "{:>3}  {who}  {} {} {time:>9}\n",
            self.number,
            paint(style, BOLD, &what),
            paint(style, DIM, &"·".repeat(dots)),
        );
        if record.step != self.last {
            text += &format!("             {}\n", paint(style, ITALIC, record.step.why()));
        }
        let bar = paint(style, DIM, "│");
        let all = record.calls.len();
        let shown = if all > CALLS_MAX + 1 { CALLS_MAX } else { all };
        for call in record.calls.iter().take(shown) {
            text += &format!("             {bar} {}\n", paint(style, DIM, call));
        }
        if shown < all {
            let more = format!("… {} more; --trace FILE has all", all - shown);
            text += &format!("             {bar} {}\n", paint(style, DIM, &more));
        }
        if let Some(failed) = &record.failed {
            text += &format!("             {} {failed}\n", paint(style, RED, "failed:"));
        }
        text
    }
}

/// How many syscalls of one step are shown to a person.
const CALLS_MAX: usize = 7;

const BOLD: &str = "1";
const DIM: &str = "2";
const ITALIC: &str = "3";
const RED: &str = "31";
const GREEN: &str = "32";
const CYAN: &str = "36";

fn paint(style: Style, code: &str, text: &str) -> String {
    match style {
        Style::Plain => text.to_owned(),
        Style::Colour => format!("\x1b[{code}m{text}\x1b[0m"),
    }
}

/// A duration as a person reads it: 7 µs, 1.25 ms.
fn duration(micros: u64) -> String {
    if micros < 1000 {
        format!("{micros} µs")
    } else {
        format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10)
    }
}

fn say(text: &str) {
    // Nobody to tell it to is no reason to stop.
    drop(std::io::stderr().write_all(text.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_readable() {
        assert_eq!(duration(7), "7 µs");
        assert_eq!(duration(1259), "1.25 ms");
    }

    #[test]
    fn plain_text_has_no_escapes_and_tells_why_once() {
        let mut narrator =
            Narrator { told: None, trace: None, number: 1, last: Step::Nothing, total_micros: 0 };
        let record = Record {
            who: Actor::Init,
            step: Step::Mounts,
            object: "proc at /proc".into(),
            micros: 31,
            calls: vec!["fsopen(\"proc\") = 5".into()],
            failed: None,
        };
        let first = narrator.text(Style::Plain, &record);
        assert!(first.contains("init") && first.contains("mount proc at /proc"));
        assert!(first.contains(Step::Mounts.why()) && first.contains("fsopen"));
        assert!(!first.contains('\x1b'));
        narrator.last = Step::Mounts;
        assert!(!narrator.text(Style::Plain, &record).contains(Step::Mounts.why()));
    }
}
