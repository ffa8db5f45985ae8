//! `minisup logs`: what containers printed, merged by time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use minisup_core::name::{InstanceId, SlotId};
use serde::Deserialize;

use super::project;
use crate::brain::log::rfc3339;
use crate::layout::Layout;
use crate::{clock, quantity};

/// How often new lines are looked for while following.
const LOOK: Duration = Duration::from_millis(100);

/// What `logs` can be told.
#[derive(Args, Debug)]
pub(crate) struct Logs {
    /// A service (web), a slot (web.1) or an instance (web.1.3)
    of: Option<String>,
    /// Go on as more comes
    #[arg(long, short)]
    follow: bool,
    /// Only the last lines
    #[arg(long, short = 'n')]
    tail: Option<usize>,
    /// Only what is not older: 10m, or a time such as 2026-01-31T12:00:00Z
    #[arg(long, value_parser = since)]
    since: Option<String>,
    /// Only the instance before the latest, of each slot
    #[arg(long, conflicts_with = "follow")]
    previous: bool,
    /// Each line behind its time
    #[arg(long, short)]
    timestamps: bool,
}

#[derive(Deserialize)]
struct Entry {
    log: String,
    time: String,
}

/// One line of an instance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Line {
    /// RFC 3339, in UTC.
    pub(crate) time: String,
    /// Whose.
    pub(crate) instance: InstanceId,
    /// Without its newline.
    pub(crate) text: String,
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:14} | {}", self.instance.to_string(), self.text)
    }
}

/// Where each log file has been read to.
#[derive(Default)]
pub(crate) struct Reader(BTreeMap<PathBuf, u64>);

/// Prints the logs of a service, a slot, an instance or of all; with `follow`, as they go on.
pub(crate) async fn run(named: Option<&str>, wanted: Logs) -> Result<()> {
    let client = project(named)
        .await
        .context("logs are kept while the project exists; `minisup down` removes them with it")?;
    let of = wanted.of.as_deref();
    let mut reader = Reader::default();
    let mut lines = reader.read(&client.layout, of);
    if wanted.previous {
        lines = previous(lines);
    }
    if let Some(since) = &wanted.since {
        lines.retain(|line| line.time >= *since);
    }
    if let Some(tail) = wanted.tail {
        let surplus = lines.len().saturating_sub(tail);
        lines.drain(..surplus);
    }
    loop {
        for line in &lines {
            match wanted.timestamps {
                true => println!("{} {line}", line.time),
                false => println!("{line}"),
            }
        }
        if !wanted.follow {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
        lines = reader.read(&client.layout, of);
    }
}

/// A moment, as our log files write it: given, or so long ago.
fn since(text: &str) -> Result<String, String> {
    if let Ok(ms) = quantity::duration_ms(text) {
        let ms = i64::try_from(ms).map_err(|_| format!("{text} is too long ago"))?;
        return Ok(rfc3339(clock::wall_ms() - ms));
    }
    // Compared as text, so it must have our form: a date, a T, a time, no other zone than UTC.
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let known =
        ["0000-00-00", "0000-00-00T00:00", "0000-00-00T00:00:00", "0000-00-00T00:00:00.000"];
    match known.contains(&shape.trim_end_matches('Z')) {
        true => Ok(text.trim_end_matches('Z').to_string()),
        false => Err(format!("{text:?} is no moment; write 10m or 2026-01-31T12:00:00Z (UTC)")),
    }
}

/// Of each slot, the lines of the instance before its latest.
fn previous(lines: Vec<Line>) -> Vec<Line> {
    let mut serials: BTreeMap<SlotId, Vec<u64>> = BTreeMap::new();
    for line in &lines {
        let known = serials.entry(line.instance.slot.clone()).or_default();
        if !known.contains(&line.instance.serial) {
            known.push(line.instance.serial);
        }
    }
    serials.values_mut().for_each(|known| known.sort_unstable());
    let is_previous = |line: &Line| {
        let known = serials.get(&line.instance.slot);
        let before = known.and_then(|known| known.iter().rev().nth(1));
        before == Some(&line.instance.serial)
    };
    lines.into_iter().filter(is_previous).collect()
}

impl Reader {
    /// The lines since the last reading, in the order of their times.
    pub(crate) fn read(&mut self, layout: &Layout, of: Option<&str>) -> Vec<Line> {
        let mut found = Vec::new();
        let files = std::fs::read_dir(layout.logs()).into_iter().flatten().flatten();
        for file in files.map(|entry| entry.path()) {
            let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // web.1.1.log, and rotated web.1.1.log.1
            let Some((instance, rotation)) = name.split_once(".log") else { continue };
            let Ok(instance) = instance.parse::<InstanceId>() else { continue };
            if !is_wanted(&instance, of) || (!rotation.is_empty() && self.0.contains_key(&file)) {
                continue;
            }
            for entry in self.read_file(file) {
                let text = entry.log.trim_end_matches('\n').to_string();
                found.push(Line { time: entry.time, instance: instance.clone(), text });
            }
        }
        found.sort_by(|a, b| a.time.cmp(&b.time));
        found
    }

    fn read_file(&mut self, path: PathBuf) -> Vec<Entry> {
        let from = self.0.entry(path.clone()).or_default();
        let Ok(mut file) = File::open(&path) else { return Vec::new() };
        // Shorter than before: it was rotated, and this is the next one.
        if file.metadata().is_ok_and(|metadata| metadata.len() < *from) {
            *from = 0;
        }
        if file.seek(SeekFrom::Start(*from)).is_err() {
            return Vec::new();
        }
        let mut entries = Vec::new();
        let mut reader = BufReader::new(file);
        let mut line = String::new();
        while let Ok(length) = reader.read_line(&mut line) {
            if length == 0 || !line.ends_with('\n') {
                break; // the end, or a line that is being written
            }
            *from += length as u64;
            entries.extend(serde_json::from_str::<Entry>(&line));
            line.clear();
        }
        entries
    }
}

fn is_wanted(instance: &InstanceId, of: Option<&str>) -> bool {
    of.is_none_or(|of| {
        of == instance.slot.service.as_str()
            || of == instance.slot.to_string()
            || of == instance.to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_or_lengths_of_time() {
        assert_eq!(since("2026-01-31T12:00:00Z").unwrap(), "2026-01-31T12:00:00");
        assert_eq!(since("2026-01-31").unwrap(), "2026-01-31");
        assert!(since("10m").unwrap() < rfc3339(clock::wall_ms()));
        assert!(since("yesterday").is_err() && since("2026-01-31T12:00:00+09:00").is_err());
    }

    #[test]
    fn the_previous_instance_is_the_one_before_the_latest() {
        let line = |instance: &str| Line {
            time: String::new(),
            instance: instance.parse().unwrap(),
            text: instance.to_string(),
        };
        let all = ["web.1.9", "web.1.10", "web.1.8", "web.2.1"].map(line).to_vec();
        let texts: Vec<String> = previous(all).into_iter().map(|line| line.text).collect();
        assert_eq!(texts, ["web.1.9"]);
    }
}
