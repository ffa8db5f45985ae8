//! A running container, as far as the brain holds on to it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use linux::{Pid, pidfd};
use minisup_core::name::InstanceId;
use tokio::sync::mpsc::UnboundedSender;

use super::News;
use crate::netns;

/// A process that cannot be mistaken for another, and the way into its network.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) pid: i32,
    pub(crate) pidfd: Arc<OwnedFd>,
    pub(crate) namespace: Arc<OwnedFd>,
}

impl Running {
    /// Takes hold of a process.
    ///
    /// # Errors
    /// It has ended: its number may already be another's.
    pub(crate) fn hold(pid: i32) -> Result<Running> {
        let pidfd = pidfd::open(Pid::from_raw(pid))?;
        let namespace = netns::of_process(pid)?;
        // Looked at after everything was opened: if it still runs, all of it was this process's.
        if pidfd::has_ended(&pidfd)? {
            bail!("process {pid} has ended");
        }
        Ok(Running { pid, pidfd: Arc::new(pidfd), namespace: Arc::new(namespace) })
    }
}

/// Waits for the end of a container's first process and tells.
pub(crate) async fn watch(
    instance: InstanceId,
    running: Running,
    news: UnboundedSender<News>,
) -> Result<()> {
    let end = crate::ready::readable(running.pidfd.as_fd().try_clone_to_owned()?)
        .context("cannot watch a process")?;
    let _ = end.readable().await?;
    let _ = news.send(News::Ended { instance, pid: running.pid });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_process_is_not_held() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id().cast_signed();
        child.wait().unwrap();
        assert!(Running::hold(pid).is_err());
        assert!(Running::hold(std::process::id().cast_signed()).is_ok());
    }
}
