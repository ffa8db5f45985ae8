//! How commands answer on standard output.

use crate::error::{Error, Result};

/// Prints to stdout; a reader that has gone away is no failure of ours.
pub(super) fn print(text: &str) -> Result<()> {
    use std::io::{ErrorKind, Write};
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::File { doing: "write to standard output".into(), source: error })
        }
        _ => Ok(()),
    }
}

/// Prints a value as JSON, indented as runc does.
pub(super) fn print_json<T: serde::Serialize>(value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::Config(format!("write JSON: {error}")))?;
    print(&format!("{text}\n"))
}
