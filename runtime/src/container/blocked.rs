//! Why a container was killed by its filter: the call, from the kernel's log.
//!
//! The kernel says which call it was only there (and to an audit daemon, where one runs, and then
//! nowhere else). What is not found is told as far as it is known.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use linux::pidfd::Exit;
use linux::poll;

use crate::seccomp;

/// SIGSYS, signal(7); the status of a process that a filter has killed.
const SIGSYS: i32 = 31;
/// The longest record of /dev/kmsg.
const RECORD: usize = 8192;
/// How long its record may be on its way.
const PATIENCE: Duration = Duration::from_millis(200);

/// What to tell about the container's end, when its filter was the reason.
pub(crate) fn explain(id: &str, exit: Exit, pid: i32) -> Option<String> {
    if exit != Exit::Signal(SIGSYS) {
        return None;
    }
    let what = match call_of(pid) {
        Some(call) => format!("the system call {call}"),
        None => "a system call (the audit log may say which: `ausearch -m SECCOMP`)".to_owned(),
    };
    Some(format!(
        "container {id} was killed: its seccomp profile forbids {what}; `minirun explain --seccomp \
         config.json SYSCALL` tells which rule"
    ))
}

/// The last call that the kernel's log says process `pid` was killed for.
fn call_of(pid: i32) -> Option<String> {
    let mut how = File::options();
    how.read(true).custom_flags(linux::OFlag::O_NONBLOCK.bits());
    let mut log = how.open("/dev/kmsg").ok()?;
    let mut found = None;
    let end = Instant::now() + PATIENCE;
    let mut record = vec![0; RECORD];
    loop {
        match log.read(&mut record) {
            Ok(0) => return found,
            Ok(length) => {
                let text = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
                found = seccomp::killed_for(&text, pid).or(found);
            }
            // The kernel writes it a moment after the death.
            Err(error) if error.kind() == ErrorKind::WouldBlock && found.is_none() => {
                let left = end.saturating_duration_since(Instant::now());
                if !poll::wait_readable(&log, Some(left)).unwrap_or(false) {
                    return None;
                }
            }
            // Overwritten while we read: the next read goes on behind it.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(_) => return found,
        }
    }
}
