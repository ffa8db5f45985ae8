//! The OCI runtime, as a program: create, start, kill, delete, exec, list.
//!
//! The contract is the command line that Docker, containerd and Podman use, so any OCI runtime
//! will do. What it says goes to a log file of ours, because its standard error is the
//! container's.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tokio::process::Command;

use super::streams::{self, Streams};

/// The longest a runtime command may take before it is given up.
const LIMIT: Duration = Duration::from_secs(30);

/// A runtime and where it keeps its state.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    pub(crate) program: PathBuf,
    pub(crate) root: PathBuf,
}

/// One line of `list --format json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) pid: i32,
    pub(crate) status: String,
}

impl Runtime {
    /// A call of the runtime, with its state root.
    pub(crate) fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).arg(verb).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Whether something of a container is there.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.root.join(id).exists()
    }

    /// Creates a container; the answer is its first process, and its terminal if it has one.
    pub(super) async fn create(
        &self,
        id: &str,
        bundle: &Path,
        streams: Streams,
    ) -> Result<(i32, Option<OwnedFd>)> {
        let (log, pid_file) = (bundle.join("runtime.log"), bundle.join("pid"));
        let mut command = Command::new(&self.program);
        command
            .arg("--root")
            .arg(&self.root)
            .arg("--log")
            .arg(&log)
            .args(["--log-format", "json", "create", "--bundle"])
            .arg(bundle)
            .arg("--pid-file")
            .arg(&pid_file)
            .current_dir(bundle)
            .kill_on_drop(true);
        let terminal = streams.hand_to(&mut command);
        command.arg(id);
        let mut child =
            command.spawn().with_context(|| format!("cannot run {}", self.program.display()))?;
        drop(command); // and with it our ends of the container's pipes
        let waited = tokio::time::timeout(LIMIT, child.wait()).await;
        if !waited.with_context(|| format!("create took more than {LIMIT:?}"))??.success() {
            bail!("{}", complaint(&log));
        }
        let terminal = terminal.map(streams::take_terminal).transpose()?;
        let pid = std::fs::read_to_string(&pid_file).context("the runtime wrote no pid file")?;
        let pid = pid.trim().parse().context("the runtime's pid file holds no number")?;
        Ok((pid, terminal))
    }

    /// Starts the workload of a created container.
    pub(crate) async fn start(&self, id: &str) -> Result<()> {
        self.quiet("start", &[id]).await
    }

    /// Sends a signal to a container's first process.
    pub(crate) async fn kill(&self, id: &str, signal: &str) -> Result<()> {
        self.quiet("kill", &[id, signal]).await
    }

    /// Removes a container, killing what is left in it.
    pub(crate) async fn delete(&self, id: &str) -> Result<()> {
        if !self.has(id) {
            return Ok(());
        }
        self.quiet("delete", &["--force", id]).await
    }

    /// All containers by their id.
    pub(crate) async fn list(&self) -> Result<BTreeMap<String, Listed>> {
        let empty = std::fs::read_dir(&self.root).map_or(true, |mut dir| dir.next().is_none());
        if empty {
            return Ok(BTreeMap::new());
        }
        let output = self.command("list").args(["--format", "json"]).output().await?;
        if !output.status.success() {
            bail!("list: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        // runc prints `null` for none.
        let found: Option<Vec<Listed>> =
            if text.trim().is_empty() { None } else { serde_json::from_str(&text)? };
        Ok(found.into_iter().flatten().map(|listed| (listed.id.clone(), listed)).collect())
    }

    async fn quiet(&self, verb: &str, arguments: &[&str]) -> Result<()> {
        let output = self.command(verb).args(arguments).output();
        let output = tokio::time::timeout(LIMIT, output)
            .await
            .with_context(|| format!("{verb} took more than {LIMIT:?}"))??;
        if !output.status.success() {
            bail!("{verb}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}

/// The last message of a runtime's JSON log.
fn complaint(log: &Path) -> String {
    #[derive(Deserialize)]
    struct Entry {
        msg: String,
    }
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    let message = last.and_then(|line| serde_json::from_str::<Entry>(line).ok());
    message.map_or_else(|| "create failed without a message".to_string(), |entry| entry.msg)
}
