//! What cannot be had more than once, and what this host is not.

use crate::findings::Findings;
use crate::load::complain;
use crate::model::{Mode, PortMode, Project, RestartCondition, Service};

pub(super) fn check(project: &mut Project, platform: &str, cx: &mut Findings) {
    for (name, service) in &project.services {
        let path = format!("services.{name}");
        check_single(&path, service, cx);
        check_job(&path, service, cx);
        check_placement(&path, service, platform, cx);
    }
}

/// How many replicas there may be at a time.
fn most(service: &Service) -> u32 {
    let scaled = service.minisup.autoscale.as_ref().map_or(0, |autoscale| autoscale.max);
    service.deploy.replicas.max(scaled).saturating_add(service.minisup.spare)
}

fn check_single(path: &str, service: &Service, cx: &mut Findings) {
    let most = most(service);
    if most <= 1 {
        return;
    }
    if service.container_name.is_some() {
        let message = format!("{most} containers cannot have one name");
        complain(
            cx,
            &format!("{path}.container_name"),
            message,
            "remove it; replicas are named SERVICE-NUMBER",
        );
    }
    for (index, port) in service.ports.iter().enumerate() {
        let fixed =
            port.published.is_some_and(|range| u32::from(range.last - range.first) + 1 < most);
        if port.mode == PortMode::Host && fixed {
            let message = format!("{most} replicas cannot share a port of the host");
            let remedy = "write `mode: ingress`, or a range with a port for each replica";
            complain(cx, &format!("{path}.ports[{index}].mode"), message, remedy);
        }
    }
    for (network, attachment) in &service.networks {
        let field = match (attachment.ipv4_address, attachment.ipv6_address) {
            (Some(_), _) => "ipv4_address",
            (None, Some(_)) => "ipv6_address",
            (None, None) => continue,
        };
        let message = format!("{most} replicas cannot have one address");
        let remedy = "remove it; the name of the service finds every replica";
        complain(cx, &format!("{path}.networks.{network}.{field}"), message, remedy);
    }
}

/// A job ends, and is then done.
fn check_job(path: &str, service: &Service, cx: &mut Findings) {
    let job = matches!(service.deploy.mode, Mode::ReplicatedJob | Mode::GlobalJob);
    let forever = matches!(
        service.deploy.restart_policy.condition,
        RestartCondition::Any | RestartCondition::UnlessStopped
    );
    if job && forever {
        let message = "a job that is always restarted never ends";
        let remedy = "write `on-failure` or `none`, or remove `mode`";
        complain(cx, &format!("{path}.deploy.restart_policy.condition"), message, remedy);
    }
}

fn check_placement(path: &str, service: &Service, platform: &str, cx: &mut Findings) {
    let placement = &service.deploy.placement;
    if let Some(limit) =
        placement.max_replicas_per_node.filter(|limit| *limit > 0 && *limit < most(service))
    {
        let message = format!("{} replicas on the only host are more than {limit}", most(service));
        let remedy = "raise it, or lower `replicas`";
        complain(cx, &format!("{path}.deploy.placement.max_replicas_per_node"), message, remedy);
    }
    let (os, architecture) = platform.split_once('/').unwrap_or((platform, ""));
    for (index, constraint) in placement.constraints.iter().enumerate() {
        let is = match constraint.attribute.as_str() {
            "node.platform.os" => os,
            "node.platform.arch" => architecture,
            // Compared with the host's name by whoever starts the service.
            _ => continue,
        };
        let same = is == constraint.value
            || matches!(
                (is, constraint.value.as_str()),
                ("amd64", "x86_64") | ("arm64", "aarch64")
            );
        if same != constraint.equal {
            let message = format!("can never be met: this host is {platform}");
            complain(
                cx,
                &format!("{path}.deploy.placement.constraints[{index}]"),
                message,
                "remove it",
            );
        }
    }
    if let Some(wanted) = &service.platform {
        // A variant (`linux/arm/v7`) narrows the architecture; the image's own is checked later.
        let base: Vec<&str> = wanted.split('/').take(2).collect();
        let names_host = base.join("/") == platform || wanted == os;
        if !names_host {
            let message = format!("this host is {platform}, and runs nothing else");
            complain(
                cx,
                &format!("{path}.platform"),
                message,
                "remove it, or take an image for this host",
            );
        }
    }
}
