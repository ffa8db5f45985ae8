//! `minisup ls`: the projects that run.

use anyhow::Result;

use super::table;
use crate::client::Client;
use crate::layout::Layout;

/// Prints one line per project.
pub(crate) async fn run() -> Result<()> {
    let mut rows = Vec::new();
    for name in Layout::projects() {
        let client = Client { layout: Layout::of(&name)? };
        let Ok(view) = client.state().await else {
            rows.push(vec![name, "-".into(), "no supervisor".into(), String::new()]);
            continue;
        };
        for service in view.stack.services.keys() {
            let key = service.as_str().into();
            let ready = view.state.slots_of(&key).filter(|slot| slot.is_ready()).count();
            let replicas = format!("{ready}/{}", view.state.replicas(&key));
            let ports = view.stack.services.get(service).map(|s| ports(&s.publish));
            rows.push(vec![name.clone(), service.clone(), replicas, ports.unwrap_or_default()]);
        }
    }
    table::print(&["PROJECT", "SERVICE", "REPLICAS", "PORTS"], &rows);
    Ok(())
}

fn ports(publish: &[crate::model::Publish]) -> String {
    let each = publish.iter().map(ToString::to_string);
    each.collect::<Vec<_>>().join(", ")
}
