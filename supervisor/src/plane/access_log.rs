//! The access log: a line of JSON for each HTTP request, if it is asked for.
//!
//! Lines are gathered and written once a second or when there are many, so that a request never
//! waits for a disk. Three files of 10 MiB at most, like the logs of instances.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use minisup_core::name::InstanceId;
use serde_json::json;

use crate::brain::log::rfc3339;
use crate::clock;

/// Lines are written when so many bytes wait.
const WAITING: usize = 64 << 10;
/// The size at which a new file is begun.
const LARGEST: u64 = 10 << 20;
/// The pause between two writings.
const PAUSE: Duration = Duration::from_secs(1);

/// What a line says of the request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Line {
    client: SocketAddr,
    /// `GET /path HTTP/1.1`.
    request: String,
}

impl Line {
    /// Reads the first line of a head.
    pub(crate) fn of(client: SocketAddr, head: &[u8]) -> Line {
        let first = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        Line { client, request: String::from_utf8_lossy(first).into_owned() }
    }

    /// The line of a request that did not come as text.
    pub(crate) fn new(client: SocketAddr, request: String) -> Line {
        Line { client, request }
    }
}

/// The log of one service.
#[derive(Debug)]
pub(crate) struct AccessLog {
    path: PathBuf,
    waiting: RefCell<Vec<u8>>,
}

impl AccessLog {
    /// A log in this file. It is written by a task as long as it is used.
    pub(crate) fn open(path: PathBuf) -> Rc<AccessLog> {
        let log = Rc::new(AccessLog { path, waiting: RefCell::default() });
        let weak = Rc::downgrade(&log);
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(PAUSE).await;
                let Some(log) = weak.upgrade() else { return };
                log.flush();
            }
        });
        log
    }

    /// Adds a line.
    pub(crate) fn write(
        &self,
        line: Line,
        status: u16,
        bytes: u64,
        took: Duration,
        by: Option<&InstanceId>,
    ) {
        let entry = json!({
            "time": rfc3339(clock::wall_ms()),
            "client": line.client.to_string(),
            "request": line.request,
            "status": status,
            "bytes": bytes,
            "us": u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            "instance": by.map(ToString::to_string),
        });
        let mut waiting = self.waiting.borrow_mut();
        waiting.extend_from_slice(entry.to_string().as_bytes());
        waiting.push(b'\n');
        let many = waiting.len() >= WAITING;
        drop(waiting);
        if many {
            self.flush();
        }
    }

    /// Writes what waits. A disk that is full costs lines, not requests.
    fn flush(&self) {
        let lines = std::mem::take(&mut *self.waiting.borrow_mut());
        if !lines.is_empty()
            && let Err(error) = append(&self.path, &lines)
        {
            eprintln!("minisup plane: {}: {error}", self.path.display());
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}

fn append(path: &Path, lines: &[u8]) -> std::io::Result<()> {
    let mut file = File::options().append(true).create(true).open(path)?;
    if file.metadata()?.len() + lines.len() as u64 > LARGEST {
        let older = |number: u32| path.with_added_extension(number.to_string());
        let _ = std::fs::rename(older(1), older(2)); // there is none in the beginning
        std::fs::rename(path, older(1))?;
        file = File::options().append(true).create(true).open(path)?;
    }
    file.write_all(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_kept() {
        let client = SocketAddr::from(([1, 2, 3, 4], 5));
        let line = Line::of(client, b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(line, Line::new(client, "GET /a HTTP/1.1".to_string()));
    }

    #[test]
    fn old_lines_make_way() {
        let dir = std::env::temp_dir().join(format!("minisup-access-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("web.access.log");
        let lines = vec![b'x'; 4 << 20];
        (0..8).for_each(|_| append(&path, &lines).unwrap());
        let mut sizes: Vec<(String, u64)> = std::fs::read_dir(&dir)
            .unwrap()
            .flatten()
            .map(|f| (f.file_name().into_string().unwrap(), f.metadata().unwrap().len()))
            .collect();
        sizes.sort();
        let size = 8u64 << 20;
        let expected = ["web.access.log", "web.access.log.1", "web.access.log.2"];
        assert_eq!(sizes, expected.map(|name| (name.to_string(), size)));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
