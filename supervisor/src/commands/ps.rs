//! `minisup ps`: every slot and its instances.

use anyhow::{Result, anyhow};
use clap::Args;
use minisup_core::event::Change;
use minisup_core::instance::{Instance, Phase};
use minisup_core::slot::{Slot, Standing};
use minisup_core::time::{Mono, Span};
use serde_json::{Map, Value, json};

use super::{explain, project, table};
use crate::brain::api::{EventView, StateView};
use crate::clock;
use crate::template::{Template, heading_of};

/// What `ps` can be told.
#[derive(Args, Debug)]
pub(crate) struct Ps {
    /// Only this service
    service: Option<String>,
    /// Also instances of the past, with the reason of their end
    #[arg(long, short)]
    all: bool,
    /// `table`, `json`, or a template: 'table {{.Name}}\t{{.CurrentState}}\t{{.Error}}'
    #[arg(long)]
    format: Option<String>,
}

/// The fields of a row: those of `docker service ps`, and some more.
const FIELDS: [&str; 12] = [
    "ID",
    "Name",
    "Image",
    "Node",
    "DesiredState",
    "CurrentState",
    "Error",
    "Ports",
    "Slot",
    "Instance",
    "Restarts",
    "PID",
];
/// The fields of the table that Swarm users know.
const USUAL: [&str; 8] =
    ["ID", "Name", "Image", "Node", "DesiredState", "CurrentState", "Error", "Ports"];
/// The fields of our own table.
const OWN: [&str; 6] = ["Slot", "Instance", "DesiredState", "CurrentState", "Restarts", "PID"];
/// Instances of the past that are shown of each slot.
const PAST: usize = 4;

type Row = Map<String, Value>;

/// Prints one line per instance, and one per slot without any.
pub(crate) async fn run(named: Option<&str>, wanted: Ps) -> Result<()> {
    let client = project(named).await?;
    let view = client.state().await?;
    let is_meant =
        |slot: &&Slot| wanted.service.as_ref().is_none_or(|name| name == slot.id.service.as_str());
    let mut rows = Vec::new();
    for slot in view.state.slots().filter(is_meant) {
        rows.extend(present(slot, &view));
        if wanted.all {
            let history = explain::all(&client, &slot.id.to_string()).await?;
            rows.extend(past(slot, &view, &history));
        }
    }
    match wanted.format.as_deref() {
        None if !wanted.all => columns(&OWN, &rows),
        None | Some("table") => columns(&USUAL, &rows),
        Some("json") => rows.iter().for_each(|row| println!("{}", Value::Object(row.clone()))),
        Some(text) => {
            let template =
                Template::parse(text, &FIELDS).map_err(|why| anyhow!("--format: {why}"))?;
            let cells = |line: String| line.split('\t').map(str::to_string).collect::<Vec<_>>();
            let lines = rows.iter().map(|row| template.row(row));
            if template.is_table {
                let heading = cells(template.heading());
                let heading: Vec<&str> = heading.iter().map(String::as_str).collect();
                table::print(&heading, &lines.map(cells).collect::<Vec<_>>());
            } else {
                lines.for_each(|line| println!("{line}"));
            }
        }
    }
    Ok(())
}

fn columns(fields: &[&str], rows: &[Row]) {
    let heading: Vec<String> = fields
        .iter()
        .map(|field| heading_of(field).replace("DESIRED STATE", "DESIRED"))
        .map(|heading| heading.replace("CURRENT STATE", "STATE"))
        .collect();
    let heading: Vec<&str> = heading.iter().map(String::as_str).collect();
    let text = |row: &Row, field: &str| match row.get(field) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => "-".to_string(),
        Some(other) => other.to_string(),
    };
    let cells = rows.iter().map(|row| fields.iter().map(|field| text(row, field)).collect());
    table::print(&heading, &cells.collect::<Vec<_>>());
}

/// The instances of a slot as they are now; of an empty slot one row without instance.
fn present(slot: &Slot, view: &StateView) -> Vec<Row> {
    let now = clock::now();
    if slot.instances.is_empty() {
        return vec![row(slot, view, None, standing(slot, now), None)];
    }
    let each = slot.instances.iter().map(|instance| {
        let pid = view.pids.get(&instance.id.to_string()).copied();
        let mut made = row(slot, view, Some(instance), phase(instance, now), pid);
        if let Phase::Exited { cause, .. } = &instance.phase {
            made.insert("Error".into(), json!(cause.to_string()));
        }
        // Its successor is there already.
        let is_succeeded = slot.instances.last().is_some_and(|last| last.id != instance.id);
        if is_succeeded && matches!(instance.phase, Phase::Stopping { .. } | Phase::Exited { .. }) {
            made.insert("DesiredState".into(), json!("shutdown"));
        }
        made
    });
    each.collect()
}

fn row(
    slot: &Slot,
    view: &StateView,
    instance: Option<&Instance>,
    state: String,
    pid: Option<i32>,
) -> Row {
    let spec = view.stack.services.get(slot.id.service.as_str());
    let desired = if slot.wanted { "running" } else { "removed" };
    let ports = spec.into_iter().flat_map(|spec| &spec.publish);
    let ports = ports.map(ToString::to_string).collect::<Vec<_>>();
    let image = spec.map(|spec| image(&spec.bundle)).unwrap_or_default();
    let id = instance.map(|instance| instance.id.to_string());
    let row = json!({
        "ID": id, "Name": slot.id.to_string(), "Image": image, "Node": node(),
        "DesiredState": desired, "CurrentState": state, "Error": "", "Ports": ports.join(", "),
        "Slot": slot.id.to_string(), "Instance": id, "Restarts": slot.history.restarts.len(),
        "PID": pid,
    });
    row.as_object().cloned().unwrap_or_default()
}

/// The latest instances that are gone, the youngest first, as Swarm shows them.
fn past(slot: &Slot, view: &StateView, history: &[EventView]) -> Vec<Row> {
    let gone = history.iter().rev().filter_map(|event| match &event.event.change {
        Change::Exited { instance, cause } if view.state.instance(instance).is_none() => {
            Some((instance, cause, event.wall_ms))
        }
        _ => None,
    });
    let each = gone.take(PAST).map(|(instance, cause, wall_ms)| {
        let ago = u64::try_from(clock::wall_ms() - wall_ms).unwrap_or(0);
        let state = format!("{} {} ago", ended(cause), Span::from_ms(ago));
        let mut made = row(slot, view, None, state, None);
        let id = instance.to_string();
        made.insert("Name".into(), json!(format!("\\_ {}", slot.id)));
        made.insert("ID".into(), json!(id));
        made.insert("Instance".into(), json!(id));
        made.insert("DesiredState".into(), json!("shutdown"));
        made.insert("Error".into(), json!(cause.to_string()));
        made
    });
    each.collect()
}

fn ended(cause: &minisup_core::restart::ExitCause) -> &'static str {
    if cause.is_success() { "complete" } else { "failed" }
}

/// The image that a bundle of ours was made of; else the bundle.
fn image(bundle: &std::path::Path) -> String {
    let config = std::fs::read(bundle.join("config.json")).unwrap_or_default();
    let config: Value = serde_json::from_slice(&config).unwrap_or_default();
    let name = config["annotations"]["org.minirun.image.name"].as_str().map(str::to_string);
    name.unwrap_or_else(|| bundle.display().to_string())
}

fn node() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    text.trim().to_string()
}

/// What is the matter with a slot, in words.
pub(super) fn in_words(slot: &Slot, now: Mono) -> String {
    match slot.instances.last() {
        Some(instance) => phase(instance, now),
        None => standing(slot, now),
    }
}

fn standing(slot: &Slot, now: Mono) -> String {
    match slot.standing {
        Standing::Failed => "failed: its restart budget is used up".to_string(),
        Standing::Completed => "completed".to_string(),
        Standing::BackOff { until } if until > now => format!("restart in {}", until.since(now)),
        _ => match &slot.waiting {
            Some(obstacle) => obstacle.to_string(),
            None => "vacant".to_string(),
        },
    }
}

fn phase(instance: &Instance, now: Mono) -> String {
    let since = now.since(instance.since);
    let doubt = if instance.condemned {
        ", unhealthy"
    } else if instance.health.is_doubtful() {
        ", in doubt"
    } else {
        ""
    };
    match &instance.phase {
        Phase::Launching => format!("launching for {since}"),
        Phase::Starting { .. } => format!("starting for {since}"),
        Phase::Ready => format!("ready for {since}{doubt}"),
        Phase::Unready => format!("unready for {since}"),
        Phase::Stopping { stage, why, .. } => format!("stopping ({stage:?}, {why}) for {since}"),
        Phase::Exited { cause, .. } => format!("{cause}, {since} ago"),
    }
}
