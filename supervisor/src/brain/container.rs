//! A running container, as far as the brain holds on to it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use linux::{Pid, pidfd};
use minisup_core::name::InstanceId;
use minisup_core::restart::{ExitCause, OomScope};
use tokio::sync::mpsc::UnboundedSender;

use super::News;
use crate::netns;

/// A process that cannot be mistaken for another, and the way into its network.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) pid: i32,
    pub(crate) pidfd: Arc<OwnedFd>,
    pub(crate) namespace: Arc<OwnedFd>,
    /// The file that counts the kernel's memory kills in its cgroup.
    kills: Option<PathBuf>,
}

impl Running {
    /// Takes hold of a process.
    ///
    /// # Errors
    /// It has ended: its number may already be another's.
    pub(crate) fn hold(pid: i32) -> Result<Running> {
        let pidfd = pidfd::open(Pid::from_raw(pid))?;
        let namespace = netns::of_process(pid)?;
        let kills = kill_counter(pid);
        // Looked at after everything was opened: if it still runs, all of it was this process's.
        if pidfd::has_ended(&pidfd)? {
            bail!("process {pid} has ended");
        }
        Ok(Running { pid, pidfd: Arc::new(pidfd), namespace: Arc::new(namespace), kills })
    }

    /// How often the kernel has killed for memory in the container.
    pub(crate) fn memory_kills(&self) -> u64 {
        let text = self.kills.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        text.iter().flat_map(|text| text.lines()).find_map(kill_count).unwrap_or(0)
    }

    /// Refines how it ended by what its cgroup says. To be asked before the cgroup is deleted.
    pub(crate) fn refine(&self, cause: ExitCause) -> ExitCause {
        if cause == ExitCause::Signal(9) && self.memory_kills() > 0 {
            return ExitCause::OutOfMemory(OomScope::Limit);
        }
        cause
    }
}

fn kill_count(line: &str) -> Option<u64> {
    line.strip_prefix("oom_kill ")?.trim().parse().ok()
}

/// `memory.events` of cgroup v2, `memory.oom_control` of v1: both have a line `oom_kill N`.
fn kill_counter(pid: i32) -> Option<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let (mut v1, mut v2) = (None, None);
    for line in text.lines() {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let path = path.trim_start_matches('/');
        if controllers.split(',').any(|name| name == "memory") {
            v1 = Some(PathBuf::from("/sys/fs/cgroup/memory").join(path).join("memory.oom_control"));
        } else if controllers.is_empty() {
            v2 = Some(PathBuf::from("/sys/fs/cgroup").join(path).join("memory.events"));
        }
    }
    v1.or(v2)
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
    fn memory_kills_are_counted_in_both_formats() {
        let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n";
        let v2 = "low 0\nhigh 0\nmax 4\noom 1\noom_kill 1\n";
        assert_eq!(v1.lines().find_map(kill_count), Some(2));
        assert_eq!(v2.lines().find_map(kill_count), Some(1));
    }

    #[test]
    fn an_ended_process_is_not_held() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id().cast_signed();
        child.wait().unwrap();
        assert!(Running::hold(pid).is_err());
        let own = Running::hold(std::process::id().cast_signed()).unwrap();
        assert_eq!(own.memory_kills(), own.memory_kills());
    }
}
