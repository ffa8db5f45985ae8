//! `minisup exec`: a command in a container, with our own terminal and streams.

use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use super::{project, target};

/// Becomes the runtime's `exec` in the first instance that is meant; its status is ours.
pub(crate) async fn run(
    named: Option<&str>,
    whom: &str,
    tty: bool,
    words: &[String],
) -> Result<()> {
    let client = project(named).await?;
    let view = client.state().await?;
    let instances = target::running(&view, whom)?;
    let first = instances.first().context("nothing runs")?;
    let mut command = Command::new(&view.stack.runtime);
    command.arg("--root").arg(client.layout.runtime()).arg("exec");
    if tty || (std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
        command.arg("--tty");
    }
    command.arg(client.layout.container(&first.id.to_string())).args(words);
    // Nothing of ours is needed any more: signals and the terminal are the runtime's business.
    Err(command.exec()).with_context(|| format!("cannot run {}", view.stack.runtime.display()))
}
