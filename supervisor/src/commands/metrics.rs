//! `minisup metrics`: Prometheus' text format, for whoever does not scrape the socket.

use anyhow::Result;

use super::project;

/// Prints the metrics.
pub(crate) async fn run(named: Option<&str>) -> Result<()> {
    print!("{}", project(named).await?.text("/v1/metrics").await?);
    Ok(())
}
