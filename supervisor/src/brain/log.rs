//! What containers print: from their pipes into files of JSON lines, with rotation.
//!
//! The format is Docker's (`{"log":…,"stream":…,"time":…}`), so the tools that read it work. A
//! file is renamed to `.1` when it reaches ten megabytes, and so on up to three files unless
//! `logging` says otherwise: logs that fill the disk are the commonest accident elsewhere. The pipes
//! belong to the keeper; a new brain goes on reading where the old one stopped.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use linux::Errno;
use serde_json::json;

use super::compress;
use crate::clock;
use crate::settings::LogRules;

/// Files of an instance that may be there, whatever its rules were.
const MOST: u32 = 1000;
/// A line longer than this is cut into several entries.
const LINE: usize = 16 << 10;

/// The log of one instance. Both of its streams write here.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: Option<File>,
    length: u64,
    rules: LogRules,
    /// This log, for whoever compresses its files.
    this: Weak<Mutex<Log>>,
    /// Whether somebody does.
    is_compressing: bool,
}

impl Log {
    pub(crate) fn open(path: &Path, rules: LogRules) -> Arc<Mutex<Log>> {
        let open = || OpenOptions::new().append(true).create(true).open(path).ok();
        let file = if rules.keep { open() } else { None };
        let length = file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |m| m.len());
        let path = path.to_path_buf();
        let log = Arc::new_cyclic(|this| {
            let this = this.clone();
            Mutex::new(Log { path, file, length, rules, this, is_compressing: false })
        });
        // What a brain before us did not come to.
        log.lock().unwrap_or_else(PoisonError::into_inner).compress();
        log
    }

    /// Has the files compressed that nobody writes to any more, beside the loop.
    fn compress(&mut self) {
        let this = self.this.upgrade().filter(|_| self.rules.compress && !self.is_compressing);
        if let Some(this) = this {
            self.is_compressing = compress::begin(self.path.clone(), this);
        }
    }

    /// Nobody compresses any more.
    pub(super) fn compressed(&mut self) {
        self.is_compressing = false;
    }

    /// Appends one line. When the disk is full the line is lost, not the container.
    fn write(&mut self, stream: &str, line: &str) {
        if !self.rules.keep {
            return;
        }
        let entry = json!({"log": line, "stream": stream, "time": rfc3339(clock::wall_ms())});
        let text = format!("{entry}\n");
        if self.length + text.len() as u64 > self.rules.longest {
            self.rotate();
        }
        if let Some(file) = &mut self.file
            && file.write_all(text.as_bytes()).is_ok()
        {
            self.length += text.len() as u64;
        }
    }

    fn rotate(&mut self) {
        let numbered = |n: u32| PathBuf::from(format!("{}.{n}", self.path.display()));
        let others = self.rules.files.saturating_sub(1);
        let oldest = numbered(others);
        let _ = std::fs::remove_file(compress::of(&oldest));
        let _ = std::fs::remove_file(oldest);
        for n in (1..others).rev() {
            let _ = std::fs::rename(numbered(n), numbered(n + 1));
            let packed = |n: u32| compress::of(&numbered(n));
            let _ = std::fs::rename(packed(n), packed(n + 1));
        }
        let _ = match others {
            0 => std::fs::remove_file(&self.path),
            _ => std::fs::rename(&self.path, numbered(1)),
        };
        self.file = OpenOptions::new().append(true).create(true).open(&self.path).ok();
        self.length = 0;
        self.compress();
    }
}

/// Removes an instance's log with its rotated parts.
pub(crate) fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
    let numbered = |n: &u32| {
        let file = PathBuf::from(format!("{}.{n}", path.display()));
        let packed = std::fs::remove_file(compress::of(&file)).is_ok();
        std::fs::remove_file(&file).is_ok() || packed
    };
    let _ = (1..MOST).take_while(numbered).count();
}

/// Carries one stream to its end.
pub(crate) async fn carry(pipe: Arc<OwnedFd>, stream: &'static str, log: Arc<Mutex<Log>>) {
    let _ = linux::fd::set_nonblocking(pipe.as_fd());
    let Ok(pipe) = crate::ready::readable(pipe) else { return };
    let mut rest = Vec::new();
    let mut chunk = vec![0; LINE];
    loop {
        let Ok(mut ready) = pipe.readable().await else { return };
        match linux::fd::read(pipe.get_ref().as_fd(), &mut chunk) {
            Ok(0) => break,
            Ok(count) => {
                rest.extend_from_slice(&chunk[..count]);
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                for line in lines(&mut rest) {
                    log.write(stream, &line);
                }
            }
            Err(error) if error.errno == Errno::EAGAIN => ready.clear_ready(),
            Err(_) => break,
        }
    }
    if !rest.is_empty() {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.write(stream, &String::from_utf8_lossy(&rest));
    }
}

/// Takes the complete lines out of `rest`, newlines included, as Docker's format wants it.
fn lines(rest: &mut Vec<u8>) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = rest.drain(..=end).collect();
        found.push(String::from_utf8_lossy(&line).into_owned());
    }
    if rest.len() >= LINE {
        found.push(String::from_utf8_lossy(&std::mem::take(rest)).into_owned());
    }
    found
}

/// A time as RFC 3339 in UTC with milliseconds. Days to dates after Howard Hinnant's
/// `civil_from_days`.
pub(crate) fn rfc3339(wall_ms: i64) -> String {
    let (days, ms) = (wall_ms.div_euclid(86_400_000), wall_ms.rem_euclid(86_400_000));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    let ms = ms % 1000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_at_newlines_and_when_too_long() {
        let mut rest = b"one\ntwo\nthr".to_vec();
        assert_eq!(lines(&mut rest), ["one\n", "two\n"]);
        assert_eq!(rest, b"thr");
        let mut long = vec![b'x'; LINE + 5];
        assert_eq!(lines(&mut long).len(), 1);
        assert!(long.is_empty());
    }

    #[test]
    fn times_are_written_as_dates() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(rfc3339(1_735_689_599_999), "2024-12-31T23:59:59.999Z");
    }

    #[test]
    fn a_full_file_is_rotated_and_the_oldest_goes() {
        let path = std::env::temp_dir().join(format!("minisup-log-{}", std::process::id()));
        let log = Log::open(&path, LogRules::default());
        let mut log = log.lock().unwrap();
        for round in 0..4 {
            log.length = log.rules.longest;
            log.write("stdout", &format!("round {round}\n"));
        }
        let read = |suffix: &str| {
            std::fs::read_to_string(format!("{}{suffix}", path.display())).unwrap_or_default()
        };
        assert!(read("").contains("round 3") && read(".1").contains("round 2"));
        assert!(read(".2").contains("round 1") && read(".3").is_empty());
        remove(&path);
        assert!(read("").is_empty() && read(".1").is_empty() && read(".2").is_empty());
    }

    #[test]
    fn rules_say_how_much_is_kept() {
        let path = std::env::temp_dir().join(format!("minisup-log-rules-{}", std::process::id()));
        let log = Log::open(&path, LogRules { files: 1, longest: 200, ..LogRules::default() });
        for round in 0..10 {
            log.lock().unwrap().write("stdout", &format!("round {round}\n"));
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("round 9") && !text.contains("round 0"), "{text}");
        assert!(text.len() <= 200 && !path.with_extension("1").exists());
        remove(&path);
        let silent = Log::open(&path, LogRules { keep: false, ..LogRules::default() });
        silent.lock().unwrap().write("stdout", "nothing\n");
        assert!(!path.exists());
    }
}
