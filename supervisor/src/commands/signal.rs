//! `minisup kill`, `pause` and `unpause`: what is done to containers behind the supervisor's back,
//! on purpose.
//!
//! A killed replica is a crash like any other, and is replaced. A paused one is frozen by its
//! cgroup; its probes count nothing until it is thawed, so it is not replaced for being silent.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{project, target};

/// Calls the runtime with `verb` for every instance that is meant.
pub(crate) async fn run(
    named: Option<&str>,
    whom: &[String],
    verb: &str,
    argument: Option<&str>,
) -> Result<()> {
    let client = project(named).await?;
    let view = client.state().await?;
    let mut meant = Vec::new();
    for name in whom {
        meant.extend(target::running(&view, name)?); // all are looked up before one is touched
    }
    for instance in meant {
        let id = instance.id.to_string();
        let mut command = Command::new(&view.stack.runtime);
        command.arg("--root").arg(client.layout.runtime()).arg(verb);
        command.arg(client.layout.container(&id)).args(argument);
        let output = command.output().with_context(|| format!("cannot {verb} {id}"))?;
        if !output.status.success() {
            bail!("{verb} {id}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        println!("{id}");
    }
    Ok(())
}
