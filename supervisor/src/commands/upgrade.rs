//! `minisup upgrade`: this program takes over a project from the one that started it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::brain::api::SupervisorView;
use crate::client::Client;
use crate::layout::Layout;
use crate::programs;

/// How long the new processes may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The time between two questions.
const LOOK: Duration = Duration::from_millis(20);

/// Replaces keeper, brain and data plane of a project by those of this program.
pub(crate) async fn run(project: Option<&str>) -> Result<()> {
    one(&super::project(project).await?).await
}

/// The same for every project that runs. One that fails does not stop the others.
pub(crate) async fn all() -> Result<()> {
    let mut failed = Vec::new();
    for name in Layout::projects() {
        let Ok(layout) = Layout::of(&name) else { continue };
        let client = Client { layout };
        if client.answers().await
            && let Err(error) = one(&client).await
        {
            eprintln!("minisup: {name}: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("not upgraded: {}", failed.join(", "));
    }
    Ok(())
}

async fn one(client: &Client) -> Result<()> {
    let name = &client.layout.project;
    let program = std::env::current_exe().context("this program's own path is unknown")?;
    let before = supervisor(client).await.context(
        "the project's minisup cannot be replaced while it runs: `minisup down` with the old \
         program and `minisup up` with this one",
    )?;
    client.upgrade(&program).await?;
    let after = successor(client, &before).await?;
    if programs::is_this(after.brain) == Some(false) {
        bail!(
            "this program did not come up, and the old one goes on: see {}",
            client.layout.complaints().display()
        );
    }
    println!(
        "{name}: supervised by minisup {} ({}), before by {}; containers went on",
        after.version,
        after.program.display(),
        before.version
    );
    if after.plane == before.plane {
        bail!(
            "the old data plane goes on: it could not be told to let go; once more \
             `minisup -P {name} upgrade` replaces it"
        );
    }
    Ok(())
}

/// Waits until another brain answers, and has a data plane.
async fn successor(client: &Client, before: &SupervisorView) -> Result<SupervisorView> {
    let since = Instant::now();
    loop {
        let now = supervisor(client).await;
        if let Ok(now) = now
            && now.brain != before.brain
            && now.plane != 0
        {
            return Ok(now);
        }
        if since.elapsed() > PATIENCE {
            bail!(
                "no successor has answered in {PATIENCE:?}; see {}",
                client.layout.complaints().display()
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn supervisor(client: &Client) -> Result<SupervisorView> {
    client.get("/v1/supervisor").await
}
