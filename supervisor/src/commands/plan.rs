//! `minisup plan`: what `up` would change, and what that does to those who send requests.
//!
//! Pure: the state and what is wanted go in, lines come out. Nothing is started for it.

use std::collections::BTreeSet;

use minisup_core::spec::{Condition, Order, Reserve};
use serde_json::{Map, Value};

use crate::brain::api::StateView;
use crate::model::{Publish, ServiceSpec, Stack};

/// What `up` would do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Plan {
    /// In words, one service after another.
    pub(crate) lines: Vec<String>,
    /// How many services would be added, replaced, scaled or removed.
    pub(crate) changes: usize,
}

impl Plan {
    fn change(&mut self, line: String) {
        self.changes += 1;
        self.lines.push(line);
    }

    fn note(&mut self, line: impl Into<String>) {
        self.lines.push(format!("    {}", line.into()));
    }
}

/// Compares what runs with what is wanted. `view` is `None` when nothing of the project runs.
pub(crate) fn plan(view: Option<&StateView>, wanted: &Stack) -> Plan {
    let mut plan = Plan::default();
    let empty = Stack::default();
    let before = view.map_or(&empty, |view| &view.stack);
    let names: BTreeSet<&String> = before.services.keys().chain(wanted.services.keys()).collect();
    for name in names {
        match (before.services.get(name), wanted.services.get(name)) {
            (None, Some(new)) => added(&mut plan, name, new),
            (Some(_), None) => {
                plan.change(format!("- {name}: removed"));
                plan.note("its requests drain, then its containers stop; its port is closed");
            }
            (Some(old), Some(new)) => {
                let with = replaced_with(name, before, wanted);
                changed(&mut plan, name, (old, new), with, view);
            }
            (None, None) => {}
        }
    }
    room(&mut plan, view, wanted);
    plan
}

fn added(plan: &mut Plan, name: &str, new: &ServiceSpec) {
    plan.change(format!("+ {name}: {} new", replicas(new.replicas)));
    plan.note(format!("made from {}", new.bundle.display()));
    for publish in &new.publish {
        plan.note(format!("{} is published and leads to port {}", publish.outside(), publish.port));
    }
    for (kind, of) in &new.settings.joins {
        plan.note(format!("joins the {kind} namespace of {of}"));
    }
    for (on, need) in &new.needs {
        plan.note(match need.condition {
            Condition::Started => format!("starts after {on} has started"),
            Condition::Healthy => format!("starts when {on} is healthy"),
            Condition::Completed => format!("starts when {on} has ended with success"),
        });
    }
}

fn changed(
    plan: &mut Plan,
    name: &str,
    (old, new): (&ServiceSpec, &ServiceSpec),
    with: Option<&str>,
    view: Option<&StateView>,
) {
    let running = view.map_or(old.replicas, |view| view.state.scale(&name.into()));
    let is_new = old.revision() != new.revision();
    // What was scaled by command stays so while the file's number does not change.
    let count = if old.replicas == new.replicas { running } else { new.replicas };
    let moves = moves(old, new);
    if !is_new && count == running && moves.is_empty() && with.is_none() {
        plan.lines.push(format!("  {name}: no change"));
        return;
    }
    if is_new {
        plan.change(format!("~ {name}: {} replaced", replicas(running.min(count))));
        for difference in differences(old, new) {
            plan.note(difference);
        }
        impact(plan, new, count);
    } else if let Some(with) = with {
        let replicas = replicas(running.min(count));
        plan.change(format!(
            "~ {name}: {replicas} replaced with {with}, whose namespaces it joins"
        ));
    } else if count != running {
        plan.change(format!("~ {name}: from {running} to {}", replicas(count)));
    } else {
        plan.change(format!("~ {name}: published elsewhere, its containers stay"));
    }
    if !is_new {
        moves.into_iter().for_each(|line| plan.note(line));
    }
    if count < running {
        plan.note(format!("{} drain and stop, the highest numbers first", running - count));
    }
}

/// The service with which this one is replaced, because it is in its namespaces, or in those of one
/// that is in turn.
fn replaced_with<'a>(name: &str, before: &Stack, wanted: &'a Stack) -> Option<&'a str> {
    let joined = |name: &str| -> Vec<&'a str> {
        let spec = wanted.services.get(name);
        spec.into_iter().flat_map(|s| s.settings.joins.values()).map(String::as_str).collect()
    };
    let is_new = |of: &str| match (before.services.get(of), wanted.services.get(of)) {
        (Some(old), Some(new)) => old.revision() != new.revision(),
        _ => false,
    };
    let mut found = joined(name);
    let mut next = 0;
    while let Some(of) = found.get(next).copied() {
        if is_new(of) {
            return Some(of);
        }
        let further: Vec<&str> = joined(of).into_iter().filter(|o| !found.contains(o)).collect();
        found.extend(further);
        next += 1;
    }
    None
}

/// How the replacement goes, and whether a request can fail.
fn impact(plan: &mut Plan, new: &ServiceSpec, count: u32) {
    let at_once = new.parallelism.min(count).max(1);
    let by = if at_once == 1 { "one".to_string() } else { at_once.to_string() };
    match new.order {
        Order::StartFirst => {
            plan.note(format!(
                "{by} at a time, the new one first: no request waits, as long as the host has \
                 room for {at_once} more"
            ));
        }
        Order::StopFirst if at_once >= count => {
            plan.note(
                "all stop before one starts: requests wait until the first is ready, at most 10 s",
            );
        }
        Order::StopFirst => {
            plan.note(format!(
                "{by} at a time, the old one first: {} serve meanwhile",
                count - at_once
            ));
        }
    }
    if new.health().is_none() {
        plan.note("without a health check, a new container gets requests as soon as it runs");
    }
    if !new.publish.is_empty() && new.drain_ms == 0 {
        plan.note("drain is 0: requests under way in a container that stops are lost");
    }
}

/// The keys whose values differ, without the number of replicas.
fn differences(old: &ServiceSpec, new: &ServiceSpec) -> Vec<String> {
    let object = |spec: &ServiceSpec| match serde_json::to_value(spec) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (old, new) = (object(old), object(new));
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut found = Vec::new();
    for key in keys.into_iter().filter(|key| *key != "replicas") {
        let (before, after) = (old.get(key), new.get(key));
        if before != after && key == "env" {
            found.extend(variables(before, after)); // their values may be secrets
        } else if let (Some(Value::Object(old)), Some(Value::Object(new)), "settings") =
            (before, after, key.as_str())
        {
            found.extend(changed_keys(old, new));
        } else if before != after {
            let text = |value: Option<&Value>| value.map_or("unset".into(), Value::to_string);
            found.push(format!("{key}: {} → {}", text(before), text(after)));
        }
    }
    found
}

/// The keys of settings that differ. What they say can be long, and secret.
fn changed_keys(old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<String> {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differ = keys.into_iter().filter(|key| old.get(*key) != new.get(*key));
    differ.map(|key| format!("{} differs", key.replace('_', " "))).collect()
}

/// Where it is published and was not before, and the other way round.
fn moves(old: &ServiceSpec, new: &ServiceSpec) -> Vec<String> {
    let missing = |of: &ServiceSpec, among: &ServiceSpec| -> Vec<Publish> {
        let known = |publish: &Publish| among.publish.iter().any(|one| one.asks_like(publish));
        of.publish.iter().filter(|publish| !known(publish)).cloned().collect()
    };
    let opened = missing(new, old).into_iter().map(|publish| {
        format!("{} is published and leads to port {}", publish.outside(), publish.port)
    });
    let closed = missing(old, new).into_iter().map(|publish| {
        format!("{} is closed; open connections go on to their end", publish.outside())
    });
    opened.chain(closed).collect()
}

/// Which variables differ, by their names.
fn variables(before: Option<&Value>, after: Option<&Value>) -> Vec<String> {
    let list = |value: Option<&Value>| -> BTreeSet<String> {
        let items = value.and_then(Value::as_array).into_iter().flatten();
        items.filter_map(|item| item.as_str().map(str::to_string)).collect()
    };
    let (before, after) = (list(before), list(after));
    let changed = before.symmetric_difference(&after);
    let names: BTreeSet<&str> =
        changed.map(|variable| variable.split('=').next().unwrap_or_default()).collect();
    names.into_iter().map(|name| format!("env {name} differs")).collect()
}

/// Whether the host has what is reserved.
fn room(plan: &mut Plan, view: Option<&StateView>, wanted: &Stack) {
    let Some(host) = view.map(|view| view.state.host()).filter(|host| host.memory_bytes > 0) else {
        return;
    };
    let project = wanted.to_core();
    let each = project.services.values().map(|service| service.reserve.times(service.replicas));
    let sum = each.fold(Reserve::default(), Reserve::plus);
    if !sum.fits(host) {
        plan.lines.push(format!(
            "! refused: {} MiB and {} m of CPU are reserved, the host has {} MiB and {} m",
            sum.memory_bytes >> 20,
            sum.cpu_millis,
            host.memory_bytes >> 20,
            host.cpu_millis
        ));
    }
}

fn replicas(count: u32) -> String {
    if count == 1 { "1 replica".to_string() } else { format!("{count} replicas") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(change: impl FnOnce(&mut ServiceSpec)) -> ServiceSpec {
        let mut spec: ServiceSpec = serde_json::from_value(json!({
            "bundle": "/b", "replicas": 3, "command": null, "env": ["A=1"], "memory_bytes": null,
            "reserved_bytes": null, "cpu_millis": null, "reserved_cpu_millis": 0, "pids": null,
            "needs": {}, "publish": [{"host": "0.0.0.0:80", "port": 3000, "protocol": "auto"}],
            "health": null, "stop_signal": "TERM", "stop_grace_ms": 1, "drain_ms": 1,
            "restart": minisup_core::restart::RestartPolicy::default(),
            "order": "start-first", "parallelism": 1
        }))
        .unwrap();
        change(&mut spec);
        spec
    }

    fn stack(spec: Option<ServiceSpec>) -> Stack {
        let services = spec.into_iter().map(|spec| ("web".to_string(), spec)).collect();
        Stack { runtime: "/minirun".into(), services, ..Stack::default() }
    }

    fn view(spec: ServiceSpec) -> StateView {
        let stack = stack(Some(spec));
        let mut state = minisup_core::state::State::default();
        let change = minisup_core::event::Change::Configured(stack.to_core());
        let rule = minisup_core::event::Rule::Command;
        let reason = minisup_core::event::Reason { rule, evidence: "a test".into() };
        let at = minisup_core::time::Mono::from_ms(1);
        state.apply(&minisup_core::event::Event { at, change, reason });
        StateView { state, stack, pids: Default::default(), networks: Vec::new() }
    }

    fn lines(view: Option<&StateView>, new: Option<ServiceSpec>) -> (usize, String) {
        let plan = plan(view, &stack(new));
        (plan.changes, plan.lines.join("\n"))
    }

    #[test]
    fn what_is_new_unchanged_or_gone_is_told() {
        let (count, text) = lines(None, Some(spec(|_| ())));
        assert_eq!(count, 1);
        assert!(text.starts_with("+ web: 3 replicas new"), "{text}");
        let there = view(spec(|_| ()));
        assert_eq!(lines(Some(&there), Some(spec(|_| ()))), (0, "  web: no change".to_string()));
        assert!(lines(Some(&there), None).1.starts_with("- web: removed"));
        let (count, text) = lines(Some(&there), Some(spec(|spec| spec.replicas = 1)));
        assert_eq!(count, 1);
        assert!(text.contains("from 3 to 1 replica\n    2 drain and stop"), "{text}");
    }

    #[test]
    fn who_joins_another_is_replaced_with_it() {
        let joining = |of: &str| {
            let joins = [("network".to_string(), of.to_string())].into();
            let settings = crate::settings::Settings { joins, ..Default::default() };
            spec(|spec| spec.settings = settings)
        };
        let web = |env: &str| spec(|spec| spec.env = vec![env.to_string()]);
        let of = |services: [(&str, ServiceSpec); 3]| {
            let services = services.map(|(name, spec)| (name.to_string(), spec)).into();
            Stack { services, ..Stack::default() }
        };
        let old = of([("a", joining("b")), ("b", joining("web")), ("web", web("A=1"))]);
        let new = of([("a", joining("b")), ("b", joining("web")), ("web", web("A=2"))]);
        assert_eq!(replaced_with("a", &old, &new), Some("web"));
        assert_eq!(replaced_with("a", &old, &old), None);
        assert_eq!(replaced_with("web", &old, &new), None);
    }

    #[test]
    fn a_replacement_tells_its_impact_and_no_secret() {
        let there = view(spec(|_| ()));
        let (_, text) = lines(Some(&there), Some(spec(|spec| spec.env = vec!["A=hush".into()])));
        assert!(text.contains("~ web: 3 replicas replaced"), "{text}");
        assert!(text.contains("env A differs") && !text.contains("hush"), "{text}");
        assert!(text.contains("one at a time, the new one first: no request waits"), "{text}");
        let stop_first = spec(|spec| {
            spec.order = Order::StopFirst;
            spec.parallelism = 3;
        });
        let (_, text) = lines(Some(&there), Some(stop_first));
        assert!(text.contains("all stop before one starts"), "{text}");
        assert!(text.contains("order: \"start-first\" → \"stop-first\""), "{text}");
    }
}
