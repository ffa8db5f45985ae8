//! The ends of children that nobody waits for by name: a subreaper gets those of strangers.

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::Result;
use crate::pidfd::Exit;
use crate::trace::observe;

/// Reaps one child that has ended, whoever it is, waitpid(2) with `-1` and `WNOHANG`. `None` when
/// none has.
pub fn reap_any() -> Result<Option<(Pid, Exit)>> {
    loop {
        let result = match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => Ok(Some((pid, Exit::Code(code)))),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                Ok(Some((pid, Exit::Signal(signal as i32))))
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => Ok(None),
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(errno) => Err(errno),
        };
        let seen = result.as_ref().map(drop).map_err(|errno| *errno);
        observe("wait4", || "-1, WNOHANG".into(), seen)?;
        return Ok(result.unwrap_or(None));
    }
}
