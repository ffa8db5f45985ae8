//! The commands, one file each.

pub(crate) mod autopsy;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod explain;
pub(crate) mod inspect;
pub(crate) mod install;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod metrics;
pub(crate) mod plan;
pub(crate) mod ps;
pub(crate) mod registry;
pub(crate) mod replay;
pub(crate) mod service;
pub(crate) mod signal;
pub(crate) mod simulate;
pub(crate) mod stats;
mod table;
mod target;
pub(crate) mod top;
pub(crate) mod up;
pub(crate) mod upgrade;

use anyhow::{Result, bail};

use crate::client::Client;
use crate::layout::Layout;

/// The project a command is about: the one that was named, or the only one that runs.
///
/// # Errors
/// None was named, and not exactly one runs.
pub(crate) async fn project(named: Option<&str>) -> Result<Client> {
    if let Some(name) = named {
        return Ok(Client { layout: Layout::of(name)? });
    }
    let mut running = Vec::new();
    for name in Layout::projects() {
        let Ok(layout) = Layout::of(&name) else { continue };
        let client = Client { layout };
        if client.answers().await {
            running.push(client);
        }
    }
    match running.as_slice() {
        [only] => Ok(only.clone()),
        [] => bail!("no project runs; `minisup up BUNDLE` starts one"),
        several => {
            let names: Vec<&str> = several.iter().map(|c| c.layout.project.as_str()).collect();
            bail!("several projects run ({}); say which with --project", names.join(", "))
        }
    }
}
