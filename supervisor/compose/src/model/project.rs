//! A project: everything the files say, resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path as FilePath, PathBuf};

use serde::Serialize;

use super::{Condition, Config, Network, RestartCondition, Secret, Service, Volume, unset};
use crate::diagnostic::{Diagnostic, Severity};
use crate::field::{Field, Fields};
use crate::findings::Findings;
use crate::minisup::ProjectExtension;
use crate::source::{Location, Sources, Span};
use crate::yaml::Node;

/// A resolved project. Equal projects say the same, wherever it was written.
#[derive(Debug, Serialize)]
pub struct Project {
    /// Given, or from `COMPOSE_PROJECT_NAME`, `name:` or the directory.
    pub name: String,
    /// Those whose profiles are active.
    pub services: BTreeMap<String, Service>,
    /// With `default`, when a service names none.
    #[serde(skip_serializing_if = "unset")]
    pub networks: BTreeMap<String, Network>,
    /// Named volumes.
    #[serde(skip_serializing_if = "unset")]
    pub volumes: BTreeMap<String, Volume>,
    /// Secrets.
    #[serde(skip_serializing_if = "unset")]
    pub secrets: BTreeMap<String, Secret>,
    /// Configs.
    #[serde(skip_serializing_if = "unset")]
    pub configs: BTreeMap<String, Config>,
    /// What Compose has no word for.
    #[serde(skip_serializing_if = "unset", rename = "x-minisup")]
    pub minisup: ProjectExtension,
    /// Extensions of other tools.
    #[serde(flatten)]
    pub extensions: BTreeMap<String, serde_json::Value>,
    #[serde(skip)]
    provenance: Provenance,
}

/// Where a project comes from; no part of what it says.
#[derive(Debug, Default)]
struct Provenance {
    directory: PathBuf,
    disabled: BTreeMap<String, Vec<String>>,
    sources: Sources,
    origins: BTreeMap<String, Span>,
}

impl PartialEq for Project {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.services == other.services
            && self.networks == other.networks
            && self.volumes == other.volumes
            && self.secrets == other.secrets
            && self.configs == other.configs
            && self.minisup == other.minisup
            && self.extensions == other.extensions
    }
}

impl Eq for Project {}

impl Project {
    /// The directory that relative paths of the first file start in.
    #[must_use]
    pub fn directory(&self) -> &FilePath {
        &self.provenance.directory
    }

    /// Services that are left out, with the profiles any of which would bring them in.
    #[must_use]
    pub fn disabled(&self) -> &BTreeMap<String, Vec<String>> {
        &self.provenance.disabled
    }

    /// The files that take part, in the order in which they were read.
    pub fn files(&self) -> impl Iterator<Item = &FilePath> {
        self.provenance.sources.paths()
    }

    /// Where a value was read: `services.web.image`, or the nearest place above it.
    #[must_use]
    pub fn locate(&self, path: &str) -> Option<Location> {
        let span = nearest(&self.provenance.origins, path)?;
        Some(self.provenance.sources.location(span))
    }

    /// An error about a value of this project that shows only later, with its line and a caret: an
    /// image that is not in the store, an external network that does not exist.
    #[must_use]
    pub fn error_at(&self, path: &str, message: &str, remedy: &str) -> Diagnostic {
        let span = nearest(&self.provenance.origins, path);
        let at = span.map(|span| (&self.provenance.sources, span));
        Diagnostic::new(Severity::Error, at, path, message, remedy)
    }

    /// A warning in the manner of [`Project::error_at`].
    #[must_use]
    pub fn warning_at(&self, path: &str, message: &str, remedy: &str) -> Diagnostic {
        let span = nearest(&self.provenance.origins, path);
        let at = span.map(|span| (&self.provenance.sources, span));
        Diagnostic::new(Severity::Warning, at, path, message, remedy)
    }

    /// The named services and all that they depend on; every service when none is named.
    #[must_use]
    pub fn with_dependencies(&self, names: &[&str]) -> BTreeSet<String> {
        if names.is_empty() {
            return self.services.keys().cloned().collect();
        }
        let mut found = BTreeSet::new();
        let mut waiting: Vec<&str> = names.to_vec();
        while let Some(name) = waiting.pop() {
            let Some((name, service)) = self.services.get_key_value(name) else { continue };
            if found.insert(name.clone()) {
                waiting.extend(service.depends_on.keys().map(String::as_str));
            }
        }
        found
    }

    /// All services, each after those it depends on, otherwise by name.
    #[must_use]
    pub fn startup_order(&self) -> Vec<&str> {
        let mut order: Vec<&str> = Vec::new();
        let mut done: BTreeSet<&str> = BTreeSet::new();
        let needs = |name: &str| -> Vec<&str> {
            let service = self.services.get(name);
            let names = service.into_iter().flat_map(|service| service.depends_on.keys().rev());
            names.map(String::as_str).filter(|name| self.services.contains_key(*name)).collect()
        };
        for start in self.services.keys() {
            // Depth first: a service comes when all it needs have come. There are no circles.
            let mut trail: Vec<(&str, Vec<&str>)> = vec![(start, needs(start))];
            while let Some((name, waiting)) = trail.last_mut() {
                let name = *name;
                match waiting.pop() {
                    Some(next) if done.contains(next) => {}
                    Some(next) => trail.push((next, needs(next))),
                    None => {
                        trail.pop();
                        if done.insert(name) {
                            order.push(name);
                        }
                    }
                }
            }
        }
        order
    }

    /// Reads the merged tree. `enabled` are the services whose profiles are active.
    pub(crate) fn read(
        root: &Node,
        name: String,
        directory: PathBuf,
        disabled: BTreeMap<String, Vec<String>>,
        cx: &mut Findings,
    ) -> Self {
        let field = Field { node: root, path: Default::default() };
        let mut f = Fields::open(&field, cx);
        // Resolved before, from the raw text; taken so that it is known.
        f.get("name", cx, |x, cx| x.word(cx));
        let mut services = BTreeMap::new();
        if let Some(field) = f.take("services", cx) {
            for (service, field) in names(&field, cx) {
                let read = Service::read(&field, cx, service, &name);
                if !disabled.contains_key(service) {
                    services.insert(service.to_owned(), read);
                }
            }
        }
        let mut networks =
            objects(&mut f, "networks", &name, cx, |x, cx, n| Some(Network::read(x, cx, n)));
        let volumes =
            objects(&mut f, "volumes", &name, cx, |x, cx, n| Some(Volume::read(x, cx, n)));
        let secrets =
            objects(&mut f, "secrets", &name, cx, |x, cx, n| Secret::read(x, cx, n, false));
        let configs =
            objects(&mut f, "configs", &name, cx, |x, cx, n| Secret::read(x, cx, n, true));
        let minisup = f.get("x-minisup", cx, ProjectExtension::read).unwrap_or_default();
        let extensions = f.extensions();
        f.close(cx);
        if services.values().any(|service| service.networks.contains_key("default")) {
            let default = || Network { name: format!("{name}_default"), ..Network::default() };
            networks.entry("default".to_owned()).or_insert_with(default);
        }
        settle_restarts(&mut services);
        let provenance = Provenance { directory, disabled, ..Provenance::default() };
        Self {
            name,
            services,
            networks,
            volumes,
            secrets,
            configs,
            minisup,
            extensions,
            provenance,
        }
    }

    /// Takes what the stages have found, once the project is known to be good.
    pub(crate) fn keep_provenance(&mut self, sources: Sources, origins: BTreeMap<String, Span>) {
        self.provenance.sources = sources;
        self.provenance.origins = origins;
    }
}

/// Here a service is kept running, as in Swarm, unless the file says otherwise. One whose end
/// another service waits for is meant to end: it is run once, as in Compose.
fn settle_restarts(services: &mut BTreeMap<String, Service>) {
    let awaited: BTreeSet<String> = services
        .values()
        .flat_map(|service| &service.depends_on)
        .filter(|(_, dependency)| dependency.condition == Condition::CompletedSuccessfully)
        .map(|(name, _)| name.clone())
        .collect();
    for (name, service) in services {
        if !service.restart_given && awaited.contains(name) {
            service.deploy.restart_policy.condition = RestartCondition::None;
        }
        service.restart_given = true;
    }
}

/// Entries whose names may be used in DNS, paths and labels.
fn names<'a>(field: &Field<'a>, cx: &mut Findings) -> Vec<(&'a str, Field<'a>)> {
    let good = |name: &str| {
        let word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let is_dots = name.chars().all(|c| c == '.'); // the names of directories
        !is_dots && name.len() <= 128 && name.chars().all(word)
    };
    let named = field.named(cx);
    for (name, field) in named.iter().filter(|(name, _)| !good(name)) {
        let remedy = "use letters, digits, `.`, `_` and `-`, at most 128";
        let shown: String = name.chars().take(40).collect();
        field.error(cx, format!("`{shown}` cannot be a name"), remedy);
    }
    named
}

fn objects<'a, T>(
    f: &mut Fields<'a>,
    section: &'static str,
    project: &str,
    cx: &mut Findings,
    read: impl Fn(&Field<'a>, &mut Findings, String) -> Option<T>,
) -> BTreeMap<String, T> {
    let mut objects = BTreeMap::new();
    if let Some(field) = f.take(section, cx) {
        for (name, field) in names(&field, cx) {
            let external = field.node.get("external").and_then(Node::as_scalar);
            let external = external.and_then(|scalar| scalar.boolean()) == Some(true);
            let full = if external { name.to_owned() } else { format!("{project}_{name}") };
            objects.extend(read(&field, cx, full).map(|object| (name.to_owned(), object)));
        }
    }
    objects
}

/// The place of a value, or of the nearest value above it.
pub(crate) fn nearest(origins: &BTreeMap<String, Span>, path: &str) -> Option<Span> {
    let mut path = path;
    loop {
        if let Some(span) = origins.get(path) {
            return Some(*span);
        }
        let cut = path.rfind(['.', '['])?;
        path = &path[..cut];
    }
}
