//! The commands, one file each.

pub(crate) mod down;
pub(crate) mod events;
pub(crate) mod inspect;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod ps;
pub(crate) mod service;
pub(crate) mod simulate;
mod table;
pub(crate) mod up;

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
