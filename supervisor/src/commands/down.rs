//! `minisup down`: stop everything, leave nothing.

use std::time::Duration;

use anyhow::{Result, bail};
use minisup_core::input::Command;

use super::project;

/// Stops a project, and waits until it is gone.
pub(crate) async fn run(named: Option<&str>) -> Result<()> {
    let client = project(named).await?;
    if !client.answers().await {
        bail!("project {} does not run", client.layout.project);
    }
    client.command(&Command::Down).await?;
    // Each slot has its own bounds (drain, grace, kill), so this ends.
    while client.answers().await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
