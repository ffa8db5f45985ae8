//! Commands about one service: scale, restart, stop, start, reset.

use anyhow::{Context, Result};
use minisup_core::input::Command;

use super::project;

/// Has one command done.
pub(crate) async fn run(named: Option<&str>, command: Command) -> Result<()> {
    project(named).await?.command(&command).await
}

/// Sets numbers of replicas: `web=6`.
pub(crate) async fn scale(named: Option<&str>, wanted: &[String]) -> Result<()> {
    let client = project(named).await?;
    let understood: Result<Vec<Command>> = wanted.iter().map(|text| scale_command(text)).collect();
    for command in understood? {
        client.command(&command).await?;
    }
    Ok(())
}

fn scale_command(text: &str) -> Result<Command> {
    let wrong = || format!("{text:?} is not SERVICE=NUMBER; write web=6");
    let (service, replicas) = text.split_once('=').with_context(wrong)?;
    let replicas = replicas.parse().with_context(wrong)?;
    Ok(Command::Scale { service: service.into(), replicas })
}
