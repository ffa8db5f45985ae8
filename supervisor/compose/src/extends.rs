//! `extends`: a service laid over another one, of this file, an earlier one, or one named.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::assembly::{Assembly, Setting, services};
use crate::limits;
use crate::merge::merge;
use crate::source::join;
use crate::suggest;
use crate::yaml::{Entry, Map, Node, Value};

/// Where a base service is looked for.
struct Scope<'a> {
    services: &'a Map,
    /// Those of the files before; only for a file of the project itself.
    earlier: Option<&'a Map>,
    /// The file, to tell services of the same name apart.
    file: PathBuf,
}

impl Assembly<'_> {
    /// Resolves every `extends` of a document.
    pub(crate) fn extend(&mut self, document: &mut Node, earlier: Option<&Node>) {
        let Some(all) = services(document).cloned() else { return };
        if !all.values().any(|entry| entry.node.get("extends").is_some()) {
            return;
        }
        let file = self.cx.sources.get(document.span.file).path.clone();
        let scope = Scope { services: &all, earlier: earlier.and_then(services), file };
        let mut resolved = Map::new();
        for (name, entry) in &all {
            let node = match entry.node.get("extends") {
                Some(_) => self.resolve(name, &entry.node, &scope, &mut Vec::new()),
                None => entry.node.clone(),
            };
            resolved.insert(name.clone(), Entry { key: entry.key, node });
        }
        if let Value::Mapping(root) = &mut document.value
            && let Some(entry) = root.get_mut("services")
        {
            entry.node.value = Value::Mapping(resolved);
        }
    }

    /// The service with what it extends. On a mistake: the service alone, and an error.
    fn resolve(
        &mut self,
        name: &str,
        service: &Node,
        scope: &Scope<'_>,
        chain: &mut Vec<(PathBuf, String)>,
    ) -> Node {
        let mut own = service.clone();
        let Value::Mapping(keys) = &mut own.value else { return own };
        let Some(entry) = keys.remove("extends") else { return own };
        let path = format!("services.{name}.extends");
        let link = (scope.file.clone(), name.to_owned());
        if let Some(start) = chain.iter().position(|seen| *seen == link) {
            let names: Vec<&str> = chain[start..].iter().map(|(_, name)| name.as_str()).collect();
            let message = format!("services extend each other: {} → {name}", names.join(" → "));
            self.cx.error(entry.node.span, &path, message, "remove one `extends` of the circle");
            return own;
        }
        if chain.len() >= limits::REFERENCES {
            let message = format!("`extends` goes over more than {} services", limits::REFERENCES);
            self.cx.error(entry.node.span, &path, message, "extend fewer services");
            return own;
        }
        chain.push(link);
        let base = self.base(&entry.node, &path, scope, chain);
        chain.pop();
        let Some(base) = base else { return own };
        self.nodes += base.count();
        if self.nodes > limits::PROJECT_NODES {
            let message = format!("`extends` makes more than {} values", limits::PROJECT_NODES);
            self.cx.error(entry.node.span, &path, message, "extend smaller services, or fewer");
            return own;
        }
        merge(base, own, &["services", name], self.cx)
    }

    fn base(
        &mut self,
        extends: &Node,
        path: &str,
        scope: &Scope<'_>,
        chain: &mut Vec<(PathBuf, String)>,
    ) -> Option<Node> {
        let text = |key: &str| Some(extends.get(key)?.as_scalar()?.text.clone());
        for (key, entry) in extends.as_map().into_iter().flatten() {
            if !matches!(key.as_str(), "service" | "file") {
                let remedy =
                    suggest::remedy(key, ["service", "file"].into_iter(), "known here are");
                self.cx.error(entry.key, &format!("{path}.{key}"), "unknown key", remedy);
            }
        }
        let Some(name) = text("service") else {
            let remedy = "write `extends: {service: NAME}`, perhaps with `file:`";
            self.cx.error(extends.span, path, "`service` is missing", remedy);
            return None;
        };
        let Some(file) = text("file") else {
            return self.base_here(extends, path, &name, scope, chain);
        };
        let source = self.cx.sources.get(extends.span.file);
        let file = join(&source.base, Path::new(&file));
        let setting = Setting {
            base: file.parent().unwrap_or(Path::new("/")).to_owned(),
            variables: source.variables.clone(),
        };
        if !self.extended.contains_key(&file) {
            let documents = self.load(&file, &setting, Some((extends.span, path)));
            let found = documents.first().and_then(services).cloned().map(Rc::new);
            self.extended.insert(file.clone(), found);
        }
        let all = self.extended.get(&file).cloned().flatten()?;
        let scope = Scope { services: &all, earlier: None, file };
        self.base_here(extends, path, &name, &scope, chain)
    }

    fn base_here(
        &mut self,
        extends: &Node,
        path: &str,
        name: &str,
        scope: &Scope<'_>,
        chain: &mut Vec<(PathBuf, String)>,
    ) -> Option<Node> {
        if let Some(entry) = scope.services.get(name) {
            return Some(self.resolve(name, &entry.node, scope, chain));
        }
        if let Some(entry) = scope.earlier.and_then(|earlier| earlier.get(name)) {
            return Some(entry.node.clone());
        }
        let known = scope.services.keys().map(String::as_str);
        let remedy = suggest::remedy(name, known, "services there are");
        let message = format!("`{}` has no service `{name}`", scope.file.display());
        self.cx.error(extends.span, path, message, remedy);
        None
    }
}
