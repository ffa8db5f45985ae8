//! `minisup down`: stop everything, leave nothing.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use minisup_core::input::Command;

use super::project;
use crate::discovery::uplink;

/// Stops a project, and waits until it is gone; with `volumes`, the data of its named volumes, too.
pub(crate) async fn run(named: Option<&str>, volumes: bool) -> Result<()> {
    let client = project(named).await?;
    if !client.answers().await {
        if !client.layout.exists() {
            // Of a killed project whose directories are gone the host's network may be left.
            uplink::sweep()?;
            bail!("project {} does not run", client.layout.project);
        }
        // Its supervisor was killed, or the machine was: what it left must end as well.
        client.start().await?;
    }
    let names = client.state().await?.stack.volumes;
    client.command(&Command::Down).await?;
    // Each slot has its own bounds (drain, grace, kill), so this ends.
    while client.answers().await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for name in names.iter().filter(|_| volumes) {
        let dir = client.layout.volume(name);
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove the volume {name}"));
            }
            _ => {
                let _ = dir.parent().map(std::fs::remove_dir); // when it was the last
            }
        }
    }
    Ok(())
}
