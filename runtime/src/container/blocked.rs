//! Why a container was killed by its filter: the call, from the kernel's log.
//!
//! The kernel says which call it was only there (and to an audit daemon, where one runs, and then
//! nowhere else). What is not found is told as far as it is known.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use linux::pidfd::Exit;

use crate::seccomp;

/// SIGSYS, signal(7); the status of a process that a filter has killed.
const SIGSYS: i32 = 31;
/// The longest record of /dev/kmsg.
const RECORD: usize = 8192;

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
    let mut record = vec![0; RECORD];
    loop {
        match log.read(&mut record) {
            Ok(0) => return found,
            Ok(length) => {
                let text = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
                found = seccomp::killed_for(&text, pid).or(found);
            }
            // Overwritten while we read: the next read goes on behind it.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            Err(_) => return found,
        }
    }
}
