//! How the outcome of a command is told: once on stderr, once in the log.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use crate::error::Error;

/// Where messages go beside stderr.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    pub(crate) file: Option<PathBuf>,
    pub(crate) json: bool,
    pub(crate) debug: bool,
}

impl Log {
    /// Tells why a command failed. The log gets the error, people also get the remedy.
    ///
    /// With a JSON log that is exactly one object, whatever happened: Podman parses the whole file.
    pub(crate) fn error(&self, error: &Error) {
        let text = error.to_string();
        self.append("error", &text);
        let mut message = format!("minirun: {text}\n");
        if let Some(remedy) = error.remedy() {
            message += &format!("  what to do: {remedy}\n");
        }
        // Nobody to tell it to is no reason for another error.
        drop(std::io::stderr().write_all(message.as_bytes()));
    }

    /// Tells what is not as asked. The standard error of a detached container is the container's
    /// own, so that a warning goes there only when a person looks; and a JSON log holds errors
    /// only.
    pub(crate) fn warning(&self, text: &str) {
        if self.file.is_some() && !self.json {
            self.append("warning", text);
        } else if self.debug || std::io::stderr().is_terminal() {
            drop(writeln!(std::io::stderr(), "minirun: warning: {text}"));
        }
    }

    /// Tells something that a person must know and that is no failure of ours.
    pub(crate) fn notice(&self, text: &str) {
        if self.file.is_some() && !self.json {
            self.append("warning", text);
        }
        drop(writeln!(std::io::stderr(), "minirun: {text}"));
    }

    fn append(&self, level: &str, text: &str) {
        let Some(path) = &self.file else { return };
        let time = humantime::format_rfc3339_seconds(SystemTime::now());
        let line = if self.json {
            serde_json::json!({"level": level, "msg": text, "time": time.to_string()}).to_string()
        } else {
            format!("time=\"{time}\" level={level} msg={text:?}")
        };
        let opened = File::options().create(true).append(true).open(path);
        match opened.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes())) {
            Ok(()) => {}
            Err(error) => {
                drop(writeln!(std::io::stderr(), "minirun: write log {}: {error}", path.display()));
            }
        }
    }
}

/// A number of bytes as a person reads it: `512 MiB`, `1.5 GiB`, `4097 bytes`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 4] =
        [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let Some((unit, size)) = UNITS.into_iter().find(|(_, size)| count >= *size) else {
        return format!("{count} bytes");
    };
    // In tenths, cut and not rounded: a peak never looks higher than its limit.
    let (whole, tenth) = (count / size, count % size * 10 / size);
    match tenth {
        0 => format!("{whole} {unit}"),
        _ => format!("{whole}.{tenth} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_readable() {
        for (count, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (512 << 20, "512 MiB"),
            ((512 << 20) - 1, "511.9 MiB"),
            (1536 << 20, "1.5 GiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
