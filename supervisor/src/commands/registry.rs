//! `minisup registry`: who can be reached, and where.

use std::time::Duration;

use anyhow::Result;
use minisup_core::instance::Route;

use super::{project, table};
use crate::brain::api::views::RegistryView;
use crate::clock;

/// Prints the registry; with `watch` again whenever routes change.
pub(crate) async fn run(named: Option<&str>, watch: bool, json: bool) -> Result<()> {
    let client = project(named).await?;
    let mut shown = None;
    loop {
        let registry: RegistryView = client.get("/v1/registry").await?;
        if shown != Some(registry.generation) {
            shown = Some(registry.generation);
            if json {
                println!("{}", serde_json::to_string(&registry)?);
            } else {
                if watch {
                    let time = crate::brain::log::rfc3339(clock::wall_ms());
                    println!("-- change {} at {time}", registry.generation);
                }
                table::print(
                    &["SERVICE", "PUBLISHED", "INSTANCE", "ROUTE", "PID"],
                    &rows(&registry),
                );
            }
        }
        if !watch {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn rows(registry: &RegistryView) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for (name, service) in &registry.services {
        let ports = service.publish.iter().map(ToString::to_string);
        let ports = ports.collect::<Vec<_>>().join(", ");
        if service.instances.is_empty() {
            rows.push(vec![name.clone(), ports.clone(), "-".into(), "-".into(), "-".into()]);
        }
        for (id, entry) in &service.instances {
            let pid = entry.pid.map_or("-".into(), |pid| pid.to_string());
            let route = in_words(entry.route).to_string();
            rows.push(vec![name.clone(), ports.clone(), id.clone(), route, pid]);
        }
    }
    rows
}

/// A route in a word.
pub(super) fn in_words(route: Route) -> &'static str {
    match route {
        Route::Absent => "none",
        Route::Active => "active",
        Route::Suspect => "suspect",
        Route::Failing => "failing",
        Route::Draining => "draining",
    }
}
