//! Networks, volumes, secrets and configs that are named must be there.

use std::collections::{BTreeMap, BTreeSet};

use crate::findings::Findings;
use crate::load::complain;
use crate::model::{MountKind, Project, Service};
use crate::suggest;

pub(super) fn check(project: &mut Project, cx: &mut Findings) {
    for (name, service) in &project.services {
        let path = format!("services.{name}");
        for network in service.networks.keys() {
            let path = format!("{path}.networks.{network}");
            must_be("network", network, project.networks.keys(), &path, cx);
        }
        for (index, mount) in service.volumes.iter().enumerate() {
            if let MountKind::Volume { source: Some(volume), .. } = &mount.kind {
                let path = format!("{path}.volumes[{index}].source");
                must_be("volume", volume, project.volumes.keys(), &path, cx);
            }
        }
        for (index, grant) in service.secrets.iter().enumerate() {
            let path = format!("{path}.secrets[{index}].source");
            must_be("secret", &grant.source, project.secrets.keys(), &path, cx);
        }
        for (index, grant) in service.configs.iter().enumerate() {
            let path = format!("{path}.configs[{index}].source");
            must_be("config", &grant.source, project.configs.keys(), &path, cx);
        }
        check_targets(name, service, cx);
        check_addresses(project, name, service, cx);
    }
}

fn must_be<'a>(
    what: &str,
    name: &str,
    known: impl Iterator<Item = &'a String>,
    path: &str,
    cx: &mut Findings,
) {
    let known: BTreeSet<&str> = known.map(String::as_str).collect();
    if !known.contains(name) {
        let near = known.iter().find(|candidate| suggest::close(name, candidate));
        let remedy = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("define it: `{what}s: {{{name}: {{…}}}}` at the top of the file"),
        };
        complain(cx, path, format!("there is no {what} `{name}`"), remedy);
    }
}

/// Two things cannot be mounted at one place.
fn check_targets(name: &str, service: &Service, cx: &mut Findings) {
    let path = format!("services.{name}");
    let volumes = service
        .volumes
        .iter()
        .enumerate()
        .map(|(i, m)| (format!("{path}.volumes[{i}]"), &m.target));
    let tmpfs =
        service.tmpfs.iter().enumerate().map(|(i, m)| (format!("{path}.tmpfs[{i}]"), &m.target));
    let secrets = service
        .secrets
        .iter()
        .enumerate()
        .map(|(i, m)| (format!("{path}.secrets[{i}]"), &m.target));
    let configs = service
        .configs
        .iter()
        .enumerate()
        .map(|(i, m)| (format!("{path}.configs[{i}]"), &m.target));
    let mut seen: BTreeMap<&str, String> = BTreeMap::new();
    for (path, target) in volumes.chain(tmpfs).chain(secrets).chain(configs) {
        let place = if target.len() > 1 { target.trim_end_matches('/') } else { target };
        if let Some(first) = seen.get(place) {
            let message = format!("`{target}` is already the target of {first}");
            complain(cx, &path, message, "mount one of the two somewhere else");
        } else {
            seen.insert(place, path);
        }
    }
}

/// A fixed address is in a subnet that the file gives.
fn check_addresses(project: &Project, name: &str, service: &Service, cx: &mut Findings) {
    for (key, attachment) in &service.networks {
        let Some(network) = project.networks.get(key).filter(|network| !network.external) else {
            continue;
        };
        let v4 = attachment.ipv4_address.map(|ip| ("ipv4_address", ip.into()));
        let v6 = attachment.ipv6_address.map(|ip| ("ipv6_address", ip.into()));
        for (field, address) in [v4, v6].into_iter().flatten() {
            let address: std::net::IpAddr = address;
            if !network.ipam.config.iter().any(|pool| pool.subnet.contains(&address)) {
                let path = format!("services.{name}.networks.{key}.{field}");
                let message = format!("{address} is in no subnet of the network `{key}`");
                let remedy = format!(
                    "give it a `subnet`, under `networks.{key}.ipam.config`, with room for it"
                );
                complain(cx, &path, message, remedy);
            }
        }
    }
}
