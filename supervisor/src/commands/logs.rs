//! `minisup logs`: what containers printed, merged by time.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use flate2::read::GzDecoder;
use minisup_core::name::{InstanceId, SlotId};
use serde::Deserialize;

use super::project;
use crate::brain::compress;
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
pub(crate) struct Reader {
    /// By inode, because a file that is rotated has another name.
    known: BTreeMap<u64, u64>,
    /// Those that were being written to.
    held: BTreeMap<InstanceId, File>,
}

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
        let mut take = |instance: &InstanceId, entries: Vec<Entry>| {
            found.extend(entries.into_iter().map(|entry| Line {
                time: entry.time,
                instance: instance.clone(),
                text: entry.log.trim_end_matches('\n').to_string(),
            }));
        };
        // What was written to until now may be renamed, or be compressed, by now.
        for (instance, file) in std::mem::take(&mut self.held) {
            take(&instance, self.read_on(&file));
        }
        let names = std::fs::read_dir(layout.logs()).into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let mut parts: Vec<Part> = names.filter_map(|name| part(&name)).collect();
        parts.retain(|(instance, ..)| is_wanted(instance, of));
        parts.sort();
        for (instance, Reverse(number), is_packed) in parts {
            let path = layout.log(&instance.to_string());
            let path =
                if number == 0 { path } else { format!("{}.{number}", path.display()).into() };
            let packed = PathBuf::from(format!("{}.gz", path.display()));
            match if is_packed { None } else { File::open(&path).ok() } {
                Some(file) => {
                    take(&instance, self.read_on(&file));
                    if number == 0 {
                        self.held.insert(instance, file);
                    }
                }
                // Or it was compressed just now.
                None => take(&instance, self.read_packed(&packed)),
            }
        }
        found.sort_by(|a, b| a.time.cmp(&b.time));
        found
    }

    /// What has come to a file since it was read last, under whatever name.
    fn read_on(&mut self, mut file: &File) -> Vec<Entry> {
        let Ok(metadata) = file.metadata() else { return Vec::new() };
        let from = self.known.entry(metadata.ino()).or_default();
        if metadata.len() < *from {
            *from = 0; // another file with the number of one that is gone
        }
        if file.seek(SeekFrom::Start(*from)).is_err() {
            return Vec::new();
        }
        let (entries, length) = entries(BufReader::new(file));
        *from += length;
        entries
    }

    /// What a compressed file has beyond what was read of it before it was compressed.
    fn read_packed(&mut self, path: &Path) -> Vec<Entry> {
        let Ok(file) = File::open(path) else { return Vec::new() };
        let Ok(inode) = file.metadata().map(|metadata| metadata.ino()) else { return Vec::new() };
        let mut reader = GzDecoder::new(file);
        let before = reader.header().and_then(compress::made_from);
        let before = before.and_then(|before| self.known.get(&before)).copied().unwrap_or(0);
        if self.known.insert(inode, u64::MAX).is_some() {
            return Vec::new();
        }
        let skipped = std::io::copy(&mut (&mut reader).take(before), &mut std::io::sink());
        skipped.map_or_else(|_| Vec::new(), |_| entries(BufReader::new(reader)).0)
    }
}

/// A file of an instance's log: its number, 0 for the one that is written to, and whether it is
/// compressed. In the order in which they were written, and plain before compressed.
type Part = (InstanceId, Reverse<u32>, bool);

/// `web.1.1.log`, rotated `web.1.1.log.1`, and compressed `web.1.1.log.1.gz`.
fn part(name: &str) -> Option<Part> {
    let (instance, rest) = name.split_once(".log")?;
    let (rest, is_packed) = match rest.strip_suffix(".gz") {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let number = if rest.is_empty() { 0 } else { rest.strip_prefix('.')?.parse().ok()? };
    Some((instance.parse().ok()?, Reverse(number), is_packed))
}

/// All complete lines, and how long they are together.
fn entries(mut reader: impl BufRead) -> (Vec<Entry>, u64) {
    let (mut found, mut all, mut line) = (Vec::new(), 0, String::new());
    while let Ok(length) = reader.read_line(&mut line) {
        if length == 0 || !line.ends_with('\n') {
            break; // the end, or a line that is being written
        }
        all += length as u64;
        found.extend(serde_json::from_str::<Entry>(&line));
        line.clear();
    }
    (found, all)
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
    fn parts_come_in_the_order_in_which_they_were_written() {
        let names = ["web.1.1.log", "web.1.1.log.1", "web.1.1.log.10.gz", "web.1.1.log.9"];
        let mut parts: Vec<Part> = names.iter().filter_map(|name| part(name)).collect();
        parts.sort();
        let numbers: Vec<u32> = parts.iter().map(|(_, Reverse(number), _)| *number).collect();
        assert_eq!(numbers, [10, 9, 1, 0]);
        for other in ["web.1.1.log.gz-77", "web.1.1.autopsy.json", "web.log", "web.1.1.log1"] {
            assert_eq!(part(other), None, "{other}");
        }
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
