//! Rotated logs, compressed (`logging.options.compress`): `web.1.1.log.1` becomes
//! `web.1.1.log.1.gz`.
//!
//! Ten megabytes take long enough to keep every probe waiting, so a thread of its own does it, one
//! for each log at most. The log may be rotated meanwhile, so what was read is found again by its
//! inode, and takes its place while the log's lock is held. A file that was not finished has a name
//! that says whose it was, and is removed by the next who begins.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flate2::{Compression, GzBuilder, GzHeader};

use super::log::Log;

/// Whether the project is gone, and no file of it may be made any more.
static ENDED: Mutex<bool> = Mutex::new(false);

/// The name of a file when it is compressed.
pub(super) fn of(file: &Path) -> PathBuf {
    PathBuf::from(format!("{}.gz", file.display()))
}

/// The inode of the file that a compressed one was made from.
pub(crate) fn made_from(header: &GzHeader) -> Option<u64> {
    std::str::from_utf8(header.comment()?).ok()?.parse().ok()
}

/// Makes no more files: they would be in the way of removing the directory.
pub(super) fn end() {
    *ENDED.lock().unwrap_or_else(PoisonError::into_inner) = true;
}

/// Begins to compress what a log has rotated; whether somebody does so now.
pub(super) fn begin(path: PathBuf, log: Arc<Mutex<Log>>) -> bool {
    let work = move || {
        sweep(&path);
        while let Some(source) = next(&path, &log) {
            if let Err(error) = compress(&path, &source, &log) {
                eprintln!("minisup brain: {} is not compressed: {error}", source.display());
                lock(&log).compressed();
                return;
            }
        }
    };
    std::thread::Builder::new().name("minisup-gzip".into()).spawn(work).is_ok()
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The rotated files that are not compressed, the oldest first.
fn plain(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = beside(path)
        .into_iter()
        .filter_map(|(rest, file)| Some((rest.strip_prefix('.')?.parse().ok()?, file)))
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, file)| file).collect()
}

/// The files whose names begin with the log's, each behind the rest of its name.
fn beside(path: &Path) -> Vec<(String, PathBuf)> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Vec::new() };
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let rest = |entry: fs::DirEntry| {
        let file = entry.file_name().into_string().ok()?;
        Some((file.strip_prefix(name.to_str()?)?.to_string(), entry.path()))
    };
    entries.filter_map(rest).collect()
}

/// Where a file is while it is made.
fn unfinished(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.gz-{}", path.display(), std::process::id()))
}

/// Removes what others have left unfinished.
fn sweep(path: &Path) {
    for (rest, file) in beside(path) {
        if rest.starts_with(".gz-") {
            let _ = fs::remove_file(file);
        }
    }
}

/// What is to be done next. When there is nothing, whoever rotates next begins again.
fn next(path: &Path, log: &Mutex<Log>) -> Option<PathBuf> {
    let mut log = lock(log);
    let found = plain(path).into_iter().next();
    if found.is_none() {
        log.compressed();
    }
    found
}

/// Makes a file, unless the project is gone.
fn create(file: &Path) -> io::Result<File> {
    let ended = ENDED.lock().unwrap_or_else(PoisonError::into_inner);
    if *ended {
        return Err(io::Error::other("the project is gone"));
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)
}

fn compress(path: &Path, source: &Path, log: &Mutex<Log>) -> io::Result<()> {
    let file = match File::open(source) {
        // It was rotated since, and has another name.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let inode = file.metadata()?.ino();
    let made = unfinished(path);
    let packed = (|| {
        // Whoever has read some of it knows by this what is left.
        let header = GzBuilder::new().comment(inode.to_string());
        let mut encoder = header.write(create(&made)?, Compression::default());
        io::copy(&mut BufReader::new(file), &mut encoder)?;
        encoder.finish()?.flush()
    })();
    let placed = packed.and_then(|()| {
        let _log = lock(log);
        place(path, inode, &made)
    });
    // Its place, if it has one, is another by now.
    let _ = fs::remove_file(&made);
    placed
}

/// Puts a finished file into the place of what it was made from, if that is still there.
fn place(path: &Path, inode: u64, made: &Path) -> io::Result<()> {
    let is_it = |file: &PathBuf| fs::metadata(file).is_ok_and(|found| found.ino() == inode);
    let Some(file) = plain(path).into_iter().find(is_it) else { return Ok(()) };
    fs::rename(made, of(&file))?;
    fs::remove_file(file)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::settings::LogRules;

    fn unpacked(file: &Path) -> String {
        let mut text = String::new();
        let file = File::open(file).unwrap();
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn what_is_rotated_is_compressed_and_its_place_is_found_again() {
        let dir = std::env::temp_dir().join(format!("minisup-gz-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("web.1.1.log");
        let numbered = |n: u32| dir.join(format!("web.1.1.log.{n}"));
        fs::write(&path, "now\n").unwrap();
        fs::write(numbered(1), "later\n").unwrap();
        fs::write(numbered(2), "early\n").unwrap();
        fs::write(dir.join("web.1.1.log.gz-1"), "half").unwrap();
        // Without a thread of its own.
        let log = Log::open(&path, LogRules::default());
        sweep(&path);
        assert_eq!(beside(&path).len(), 3);
        while let Some(source) = next(&path, &log) {
            compress(&path, &source, &log).unwrap();
        }
        assert_eq!(unpacked(&of(&numbered(1))), "later\n");
        assert_eq!(unpacked(&of(&numbered(2))), "early\n");
        assert!(!numbered(1).exists() && !numbered(2).exists());
        assert_eq!(fs::read_to_string(&path).unwrap(), "now\n");
        // Rotated while it was compressed.
        fs::write(numbered(1), "moved\n").unwrap();
        let inode = fs::metadata(numbered(1)).unwrap().ino();
        fs::rename(numbered(1), numbered(3)).unwrap();
        let made = dir.join("made");
        fs::write(&made, "x").unwrap();
        place(&path, inode, &made).unwrap();
        assert!(of(&numbered(3)).exists() && !numbered(3).exists() && !made.exists());
        fs::write(&made, "x").unwrap();
        place(&path, inode, &made).unwrap();
        assert!(made.exists(), "it is nowhere any more");
        crate::brain::log::remove(&path);
        assert!(!of(&numbered(3)).exists() && !path.exists());
        fs::remove_dir_all(&dir).unwrap();
    }
}
