//! `minisup explain`: why a service or a slot is as it is, from the recorded reasons.
//!
//! Nothing is guessed: every line about the past is an event with the rule that decided and what
//! the rule saw. What would have had to be different stands in the specification above it.

use anyhow::{Result, bail};
use minisup_core::event::{Change, Rule};
use minisup_core::name::SlotId;
use minisup_core::restart::RestartOn;
use minisup_core::slot::Slot;
use minisup_core::spec::Order;

use super::{events, project, ps, registry};
use crate::brain::api::{EventView, StateView};
use crate::client::Client;
use crate::clock;
use crate::model::{Health, Probe, ServiceSpec};

/// Explains a service (`web`), or one slot of it (`web.2`).
pub(crate) async fn run(named: Option<&str>, whom: &str, lines: usize) -> Result<()> {
    let client = project(named).await?;
    let view = client.state().await?;
    let (service, slot) = match whom.parse::<SlotId>() {
        Ok(slot) => (slot.service.as_str().to_string(), Some(slot)),
        Err(_) => (whom.to_string(), None),
    };
    let Some(spec) = view.stack.services.get(&service) else {
        let known: Vec<&str> = view.stack.services.keys().map(String::as_str).collect();
        bail!("there is no service {service}; the project has {}", known.join(", "));
    };
    wanted(&service, spec, &view);
    let key = service.as_str().into();
    for known in view.state.slots_of(&key) {
        if slot.as_ref().is_none_or(|slot| *slot == known.id) {
            about(&client, &view, known, lines).await?;
        }
    }
    Ok(())
}

/// What is asked for, and the rules that follow from it.
fn wanted(name: &str, spec: &ServiceSpec, view: &StateView) {
    let key = name.into();
    println!(
        "{name}: revision {}, {} replicas wanted",
        spec.revision().as_str(),
        view.state.replicas(&key)
    );
    let control = view.state.control(&key);
    if let Some(scaled) = control.scaled {
        println!("  scaled to {scaled} by command; the file says {}", spec.replicas);
    }
    if control.halted {
        println!("  stopped by command; `minisup start {name}` starts it again");
    }
    match spec.health() {
        None => println!("  no health check: a container that runs counts as ready"),
        Some(health) => println!("  healthy is: {}", check(&health)),
    }
    let restart = &spec.restart;
    let most = restart.max_attempts.map_or("without end".into(), |most| format!("{most} times"));
    match restart.on {
        RestartOn::Never => println!("  after an exit: it stays ended"),
        RestartOn::Failure => {
            println!("  after a failure: another start, {most}; pauses double from 0.1 s to 30 s");
        }
        RestartOn::Any => {
            println!("  after any exit: another start, {most}; pauses double from 0.1 s to 30 s");
        }
    }
    let order = match spec.order {
        Order::StartFirst => "the new container starts first",
        Order::StopFirst => "the old container stops first",
    };
    println!("  a replacement: {order}, {} at a time", spec.parallelism);
}

fn check(health: &Health) -> String {
    let what = match &health.probe {
        Probe::Exec(words) => format!("`{}` ends with 0", words.join(" ")),
        Probe::Http { port, path, .. } => format!("GET :{port}{path} answers 200 to 399"),
        Probe::Tcp { port } => format!("port {port} accepts a connection"),
        Probe::Grpc { port, service } if service.is_empty() => {
            format!("gRPC's health service at :{port} answers SERVING")
        }
        Probe::Grpc { port, service } => {
            format!("gRPC's health service at :{port} answers SERVING for {service}")
        }
        Probe::Unix { path } => format!("{path} accepts a connection"),
    };
    let Health { interval_ms, timeout_ms, retries, .. } = health;
    format!(
        "{what}, within {timeout_ms} ms, every {interval_ms} ms; {retries} failures in a row \
             mean a replacement"
    )
}

/// One slot: how it is, and how it came to be so.
async fn about(client: &Client, view: &StateView, slot: &Slot, lines: usize) -> Result<()> {
    println!("\n{}: {}", slot.id, ps::in_words(slot, clock::now()));
    let routes = view.state.routes();
    for instance in &slot.instances {
        let route = routes
            .services
            .get(&slot.id.service)
            .and_then(|routed| routed.get(&instance.id))
            .map_or("none", |route| registry::in_words(*route));
        println!("  {}: revision {}, route {route}", instance.id, instance.revision.as_str());
    }
    let history = all(client, &slot.id.to_string()).await?;
    let told: Vec<&EventView> = history.iter().filter(|event| is_telling(event)).collect();
    let surplus = told.len().saturating_sub(lines);
    if surplus > 0 {
        println!("  … {surplus} earlier reasons; `minisup events {}` has them all", slot.id);
    }
    for event in told.into_iter().skip(surplus) {
        println!("  {}", events::line(event));
    }
    Ok(())
}

/// The whole history of a slot.
pub(super) async fn all(client: &Client, slot: &str) -> Result<Vec<EventView>> {
    let mut history: Vec<EventView> = Vec::new();
    loop {
        let after = history.last().map_or(0, |event| event.seq);
        let more = client.events(after, Some(slot), false).await?;
        if more.is_empty() {
            return Ok(history);
        }
        history.extend(more);
    }
}

/// Routine has reasons too, but none that anybody asks for.
fn is_telling(view: &EventView) -> bool {
    !matches!(view.event.reason.rule, Rule::Routing)
        && !matches!(view.event.change, Change::Deleted(_) | Change::Acknowledged { .. })
}
