//! Sending signals to a container: to its first process, or to all.

use linux::pidfd;

use super::open_cgroup;
use super::state::{Home, Status};
use crate::error::{Error, Result};

const SIGKILL: i32 = 9;

/// Sends `number` to the container's first process, or with `all` to every process of its cgroup.
pub(crate) fn send(home: &Home, number: i32, all: bool) -> Result<()> {
    let state = home.load()?.ok_or(Error::NotRunning)?;
    let status = state.status(home);
    if all {
        let cgroup = open_cgroup(state.cgroup.as_ref());
        if let Some(cgroup) = cgroup {
            if number == SIGKILL {
                return Ok(cgroup.kill_all()?);
            }
            for pid in cgroup.processes()? {
                // One that has just ended needs no signal.
                if let Ok(process) = pidfd::open(linux::Pid::from_raw(pid)) {
                    drop(pidfd::signal(&process, number));
                }
            }
            return Ok(());
        }
    }
    if status == Status::Stopped || status == Status::Creating {
        return Err(Error::NotRunning);
    }
    let process =
        state.init.as_ref().and_then(super::state::Init::open).ok_or(Error::NotRunning)?;
    match pidfd::signal(&process, number) {
        Err(error) if error.errno == linux::Errno::ESRCH => Err(Error::NotRunning),
        sent => sent.map_err(Error::kernel(format!("send signal {number}"))),
    }
}
