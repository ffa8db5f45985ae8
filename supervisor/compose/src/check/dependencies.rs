//! `depends_on` names services that are there, and no service waits for itself.

use std::collections::BTreeSet;

use super::joins;
use crate::findings::Findings;
use crate::load::complain;
use crate::model::{Condition, Project, RestartCondition};
use crate::suggest;

pub(super) fn check(project: &mut Project, cx: &mut Findings) {
    drop_missing(project, cx);
    for (name, service) in &project.services {
        for (other, dependency) in &service.depends_on {
            let Some(needed) = project.services.get(other) else { continue };
            let path = format!("services.{name}.depends_on.{other}");
            let disabled = needed.healthcheck.as_ref().is_some_and(|check| check.disable)
                && needed.minisup.probes.ready.is_none();
            if dependency.condition == Condition::Healthy && disabled {
                let message =
                    format!("`{other}` never becomes healthy: its health check is disabled");
                complain(
                    cx,
                    &path,
                    message,
                    "wait for `service_started`, or give it a health check",
                );
            }
            let forever = matches!(
                needed.deploy.restart_policy.condition,
                RestartCondition::Any | RestartCondition::UnlessStopped
            );
            if dependency.condition == Condition::CompletedSuccessfully && forever {
                let message = format!("`{other}` never completes: it is always restarted");
                complain(
                    cx,
                    &path,
                    message,
                    format!("set `restart: no` or `on-failure` for `{other}`"),
                );
            }
        }
    }
    if let Some(circle) = circle(project) {
        let joined = project.services.get(circle[0]).and_then(|s| joins::key(s, circle[1]));
        let written = format!("depends_on.{}", circle[1]);
        let path = format!("services.{}.{}", circle[0], joined.unwrap_or(&written));
        let message = format!("services wait for each other: {}", circle.join(" → "));
        complain(cx, &path, message, "remove one dependency of the circle");
    }
}

fn drop_missing(project: &mut Project, cx: &mut Findings) {
    let known: BTreeSet<String> = project.services.keys().cloned().collect();
    let disabled = project.disabled().clone();
    for (name, service) in &mut project.services {
        service.depends_on.retain(|other, dependency| {
            if known.contains(other) {
                return true;
            }
            let path = format!("services.{name}.depends_on.{other}");
            match disabled.get(other) {
                Some(_) if !dependency.required => {}
                Some(profiles) => {
                    let message = format!("`{other}` is left out: no profile of it is active");
                    let remedy =
                        format!("activate {}, or write `required: false`", profiles.join(" or "));
                    complain(cx, &path, message, remedy);
                }
                None => {
                    let remedy = suggest::remedy(
                        other,
                        known.iter().map(String::as_str),
                        "services there are",
                    );
                    complain(cx, &path, format!("there is no service `{other}`"), remedy);
                }
            }
            false
        });
    }
}

/// Services that wait for each other, the first again at the end.
fn circle(project: &Project) -> Option<Vec<&str>> {
    let mut done = BTreeSet::new();
    for start in project.services.keys() {
        // Depth first, without recursion: a chain may be as long as the file.
        let mut trail: Vec<(&str, Vec<&str>)> = vec![(start, needs(project, start))];
        while let Some((_, waiting)) = trail.last_mut() {
            let Some(next) = waiting.pop() else {
                if let Some((name, _)) = trail.pop() {
                    done.insert(name);
                }
                continue;
            };
            if let Some(at) = trail.iter().position(|(name, _)| *name == next) {
                let mut circle: Vec<&str> = trail[at..].iter().map(|(name, _)| *name).collect();
                circle.push(next);
                return Some(circle);
            }
            if !done.contains(next) {
                trail.push((next, needs(project, next)));
            }
        }
    }
    None
}

fn needs<'a>(project: &'a Project, name: &str) -> Vec<&'a str> {
    let service = project.services.get(name);
    service
        .into_iter()
        .flat_map(|service| service.depends_on.keys().rev())
        .map(String::as_str)
        .collect()
}
