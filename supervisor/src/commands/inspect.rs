//! `minisup inspect`: everything that is known, as JSON.

use anyhow::Result;

use super::project;

/// Prints the state.
pub(crate) async fn run(named: Option<&str>) -> Result<()> {
    let view = project(named).await?.state().await?;
    println!("{}", serde_json::to_string_pretty(&view)?);
    Ok(())
}
