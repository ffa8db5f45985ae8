//! `network_mode`, `ipc` and `pid` of another service: it is there, has such a namespace to itself,
//! and is waited for; what belongs to the namespace is said where that is.

use std::collections::BTreeSet;

use crate::findings::Findings;
use crate::load::complain;
use crate::model::{Condition, Dependency, IpcMode, NetworkMode, PidMode, Project, Service};
use crate::suggest;

/// Checks who joins whom, and has every service depend on those it joins.
pub(super) fn check(project: &mut Project, cx: &mut Findings) {
    let mut implied = Vec::new();
    for (name, service) in &project.services {
        for (key, other) in joined(service) {
            let here = Here { project, name, service, key, other };
            if here.check(cx) {
                implied.push((name.clone(), other.to_owned()));
            }
        }
    }
    for (name, other) in implied {
        if let Some(service) = project.services.get_mut(&name) {
            service.depends_on.entry(other).or_insert(Dependency {
                condition: Condition::Started,
                restart: false,
                required: true,
            });
        }
    }
}

/// The key by which a service joins another.
pub(super) fn key(service: &Service, other: &str) -> Option<&'static str> {
    joined(service).into_iter().find(|(_, joined)| *joined == other).map(|(key, _)| key)
}

/// The services that one joins, by the keys that say so.
fn joined(service: &Service) -> Vec<(&'static str, &str)> {
    let network = match &service.network_mode {
        Some(NetworkMode::Service(other)) => Some(("network_mode", other.as_str())),
        _ => None,
    };
    let ipc = match &service.ipc {
        Some(IpcMode::Service(other)) => Some(("ipc", other.as_str())),
        _ => None,
    };
    let pid = match &service.pid {
        Some(PidMode::Service(other)) => Some(("pid", other.as_str())),
        _ => None,
    };
    [network, ipc, pid].into_iter().flatten().collect()
}

/// One service that joins another.
struct Here<'a> {
    project: &'a Project,
    name: &'a str,
    service: &'a Service,
    key: &'static str,
    other: &'a str,
}

impl Here<'_> {
    fn complain(&self, key: &str, message: String, remedy: String, cx: &mut Findings) {
        complain(cx, &format!("services.{}.{key}", self.name), message, remedy);
    }

    /// Whether the other is there at all.
    fn check(&self, cx: &mut Findings) -> bool {
        let Self { project, name, service, key, other } = self;
        if other == name {
            let remedy = "name another service, or remove it".to_owned();
            self.complain(key, "a service cannot join itself".to_owned(), remedy, cx);
            return false;
        }
        let Some(owner) = project.services.get(*other) else {
            self.missing(cx);
            return false;
        };
        if owner.deploy.replicas == 0 && service.deploy.replicas > 0 {
            let message = format!("`{other}` has no replicas: there is nothing to join");
            self.complain(key, message, format!("give `{other}` at least one"), cx);
        }
        if let Some((message, remedy)) = self.owns(owner) {
            self.complain(key, message, remedy, cx);
        }
        self.check_dependency(cx);
        self.check_keys(cx);
        true
    }

    fn missing(&self, cx: &mut Findings) {
        let other = self.other;
        if let Some(profiles) = self.project.disabled().get(other) {
            let message = format!("`{other}` is left out: no profile of it is active");
            let remedy = format!("activate {}", profiles.join(" or "));
            return self.complain(self.key, message, remedy, cx);
        }
        let known = self.project.services.keys().map(String::as_str);
        let remedy = suggest::remedy(other, known, "services there are");
        self.complain(self.key, format!("there is no service `{other}`"), remedy, cx);
    }

    /// Why the other has no such namespace to share, and what would be right.
    fn owns(&self, owner: &Service) -> Option<(String, String)> {
        let Self { key, other, .. } = self;
        let of_host = || {
            let message = format!("`{other}` has that of the host");
            Some((message, format!("write `{key}: host` here, too")))
        };
        let of_third = |third: &str| {
            let message = format!("`{other}` has none of its own: it is in that of `{third}`");
            Some((message, format!("write `{key}: \"service:{third}\"`")))
        };
        match *key {
            "network_mode" => match &owner.network_mode {
                None | Some(NetworkMode::None) => None,
                Some(NetworkMode::Host) => of_host(),
                Some(NetworkMode::Service(third)) => of_third(third),
            },
            "pid" => match &owner.pid {
                None => None,
                Some(PidMode::Host) => of_host(),
                Some(PidMode::Service(third)) => of_third(third),
            },
            _ => match &owner.ipc {
                Some(IpcMode::Shareable) => None,
                Some(IpcMode::Host) => of_host(),
                Some(IpcMode::Service(third)) => of_third(third),
                None | Some(IpcMode::Private | IpcMode::None) => {
                    let message = format!("`{other}` keeps it to itself");
                    Some((message, format!("write `ipc: shareable` in `{other}`")))
                }
            },
        }
    }

    /// What else is said of waiting for the other must agree: it runs as long as it is joined.
    fn check_dependency(&self, cx: &mut Findings) {
        let Self { service, key, other, .. } = self;
        let Some(dependency) = service.depends_on.get(*other) else { return };
        if dependency.condition == Condition::CompletedSuccessfully {
            let at = format!("depends_on.{other}.condition");
            let message = format!("what has ended cannot be joined by `{key}`");
            let remedy = "write `service_started` or `service_healthy`".to_owned();
            self.complain(&at, message, remedy, cx);
        }
        if !dependency.required {
            let at = format!("depends_on.{other}.required");
            let message = format!("nothing runs without what `{key}` joins");
            self.complain(&at, message, "remove it".to_owned(), cx);
        }
    }

    /// Refuses keys that speak of what belongs to the other.
    fn check_keys(&self, cx: &mut Findings) {
        let Self { service, other, .. } = self;
        let mut found: BTreeSet<String> = BTreeSet::new();
        let given = match self.key {
            "network_mode" => &[
                ("expose", !service.expose.is_empty()),
                ("hostname", service.hostname.is_some()),
                ("domainname", service.domainname.is_some()),
                ("extra_hosts", !service.extra_hosts.is_empty()),
                ("dns", !service.dns.is_empty()),
                ("dns_opt", !service.dns_opt.is_empty()),
                ("dns_search", !service.dns_search.is_empty()),
            ][..],
            "ipc" => &[("shm_size", service.shm_size.is_some())][..],
            _ => &[][..],
        };
        found
            .extend(given.iter().filter(|(_, is_given)| *is_given).map(|(key, _)| key.to_string()));
        let parameters = match self.key {
            "network_mode" => &["net."][..],
            "ipc" => &["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."][..],
            _ => &[][..],
        };
        let is_its = |name: &&String| parameters.iter().any(|start| name.starts_with(start));
        found.extend(service.sysctls.keys().filter(is_its).map(|name| format!("sysctls.{name}")));
        let what = if self.key == "ipc" { "IPC namespace" } else { "network" };
        for key in found {
            let message = format!("the {what} belongs to `{other}`");
            self.complain(&key, message, format!("write it in `{other}`"), cx);
        }
    }
}
