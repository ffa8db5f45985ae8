//! `minisup logs`: what containers printed, merged by time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use minisup_core::name::InstanceId;
use serde::Deserialize;

use super::project;
use crate::layout::Layout;

/// How often new lines are looked for while following.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
struct Entry {
    log: String,
    time: String,
}

/// Where each log file has been read to.
#[derive(Default)]
pub(crate) struct Reader(BTreeMap<PathBuf, u64>);

/// Prints the logs of a service, a slot, an instance or of all; with `follow`, as they go on.
pub(crate) async fn run(
    named: Option<&str>,
    of: Option<&str>,
    follow: bool,
    tail: Option<usize>,
) -> Result<()> {
    let client = project(named).await?;
    let mut reader = Reader::default();
    let mut lines = reader.read(&client.layout, of);
    if let Some(tail) = tail {
        let surplus = lines.len().saturating_sub(tail);
        lines.drain(..surplus);
    }
    loop {
        lines.iter().for_each(|line| println!("{line}"));
        if !follow {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
        lines = reader.read(&client.layout, of);
    }
}

impl Reader {
    /// The lines since the last reading, in the order of their times.
    pub(crate) fn read(&mut self, layout: &Layout, of: Option<&str>) -> Vec<String> {
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
                let line = format!("{instance:14} | {}", entry.log.trim_end_matches('\n'));
                found.push((entry.time, line));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found.into_iter().map(|(_, line)| line).collect()
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
