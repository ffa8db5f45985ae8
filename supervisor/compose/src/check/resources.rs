//! Limits, reservations and switches that contradict each other.

use crate::findings::Findings;
use crate::load::complain;
use crate::model::{Project, Service, Swap};

pub(super) fn check(project: &mut Project, cx: &mut Findings) {
    for (name, service) in &project.services {
        check_service(&format!("services.{name}"), service, cx);
    }
}

fn check_service(path: &str, service: &Service, cx: &mut Findings) {
    let resources = &service.deploy.resources;
    let (limits, reservations) = (&resources.limits, &resources.reservations);
    let promised = format!("{path}.deploy.resources.reservations");
    if let (Some(limit), Some(reserved)) = (limits.memory, reservations.memory)
        && reserved > limit
    {
        let message = format!("the reservation ({reserved}) is above the limit ({limit})");
        complain(
            cx,
            &format!("{promised}.memory"),
            message,
            "lower the reservation, or raise the limit",
        );
    }
    if let (Some(limit), Some(reserved)) = (limits.cpus, reservations.cpus)
        && reserved > limit
    {
        let message = format!("the reservation ({reserved}) is above the limit ({limit})");
        complain(
            cx,
            &format!("{promised}.cpus"),
            message,
            "lower the reservation, or raise the limit",
        );
    }
    if limits.memory.is_some_and(|limit| limit.0 < 6 << 20) {
        let message = "no container starts with less than 6 MiB";
        complain(
            cx,
            &format!("{path}.deploy.resources.limits.memory"),
            message,
            "write at least `6m`",
        );
    }
    if limits.cpus.is_some_and(|cpus| cpus.0 == 0) {
        complain(
            cx,
            &format!("{path}.deploy.resources.limits.cpus"),
            "no time at all",
            "write more than 0",
        );
    }
    let swap = format!("{path}.memswap_limit");
    match (service.memswap_limit, limits.memory) {
        (Some(Swap::Limit(all)), Some(memory)) if all < memory => {
            let message =
                format!("memory and swap together ({all}) are below the memory limit ({memory})");
            complain(cx, &swap, message, "write the sum of both");
        }
        (Some(Swap::Limit(_)), None) => {
            complain(cx, &swap, "has no meaning without a memory limit", "set `mem_limit` too");
        }
        _ => {}
    }
    if service.oom_kill_disable && limits.memory.is_some() {
        let message = "a container at its memory limit would hang for ever";
        complain(
            cx,
            &format!("{path}.oom_kill_disable"),
            message,
            "remove it, or the memory limit",
        );
    }
    if limits.cpus.is_some() && service.cpu_quota.is_some() {
        let message = "`cpus` and `cpu_quota` limit the same time";
        complain(cx, &format!("{path}.cpu_quota"), message, "keep one of the two");
    }
}
