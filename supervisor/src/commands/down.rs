//! `minisup down`: stop everything, leave nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use minisup_core::input::Command;

use super::project;
use crate::client::Client;
use crate::discovery::uplink;
use crate::layout::Place;

/// The pause between two looks at what goes away.
const LOOK: Duration = Duration::from_millis(20);
/// How long a supervisor that has ended everything may take to remove its directories, or one that
/// was killed to be there again.
const GOING: Duration = Duration::from_secs(1);
/// How often a supervisor that is killed before it has ended everything is asked again.
const TRIES: u32 = 20;

/// Stops a project, and waits until it is gone; with `volumes`, the data of its named volumes, too.
pub(crate) async fn run(named: Option<&str>, volumes: bool) -> Result<()> {
    let client = project(named).await?;
    if !client.answers().await && !client.layout.exists() {
        // Of a killed project whose directories are gone the host's network may be left.
        uplink::sweep()?;
        bail!("project {} does not run", client.layout.project);
    }
    let mut names = BTreeSet::new();
    let mut tries = 0;
    loop {
        // Its supervisor was killed, or the machine was: what it left must end as well.
        client.start().await?;
        let place = client.layout.place();
        let asked = end(&client, &mut names).await;
        if is_gone(&client, place).await {
            break;
        }
        tries += 1;
        if tries == TRIES {
            asked?;
            bail!("{} does not go; `minisup doctor` looks into it", client.layout.project);
        }
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

/// Has the supervisor end everything, and waits until it does not answer any more; `names` are
/// those of the volumes.
async fn end(client: &Client, names: &mut BTreeSet<String>) -> Result<()> {
    let known = client.state().await?.stack.volumes;
    if !known.is_empty() {
        *names = known;
    }
    client.command(&Command::Down).await?;
    // Each slot has its own bounds (drain, grace, kill), so this ends.
    while client.answers().await {
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Whether the project has gone from its place; another one may be there by now, of somebody who
/// has started it again.
async fn is_gone(client: &Client, place: Option<Place>) -> bool {
    let until = tokio::time::Instant::now() + GOING;
    while place.is_some() && client.layout.place() == place {
        if tokio::time::Instant::now() > until {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
    true
}
