//! What callers are given of a new process: its number, its terminal, a descriptor for it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use linux::socket;

use crate::error::{Error, Result};

/// Writes a number without a newline, complete or not at all, as callers read it.
pub(crate) fn write_pid_file(file: &Path, pid: i32) -> Result<()> {
    let name = file.file_name().unwrap_or_default().display();
    let temporary = file.with_file_name(format!(".{name}"));
    let failed = || Error::file(format!("write pid file {}", file.display()));
    std::fs::write(&temporary, pid.to_string()).map_err(failed())?;
    std::fs::rename(&temporary, file).map_err(failed())
}

/// Sends a terminal's master to a console socket, with its name, as runc does.
pub(crate) fn send_terminal(path: &Path, master: &OwnedFd) -> Result<()> {
    send_descriptor(path, b"/dev/ptmx", master, "--console-socket")
}

/// Sends one descriptor to a socket of a caller.
pub(crate) fn send_descriptor(
    path: &Path,
    name: &[u8],
    descriptor: &OwnedFd,
    option: &str,
) -> Result<()> {
    let doing = || Error::kernel(format!("send a descriptor to {option} {}", path.display()));
    let stream = socket::connect_to(path).map_err(doing())?;
    socket::send(&stream, name, &[descriptor.as_fd()]).map_err(doing())
}
