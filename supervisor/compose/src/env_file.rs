//! `env_file` and `label_file`: files of variables become `environment` and `labels`.
//!
//! Also here: a variable that is named without a value takes the value of the environment, and is
//! left out when the environment has none.

use std::collections::BTreeMap;

use crate::assembly::{Assembly, Setting};
use crate::dotenv::Format;
use crate::source::Variables;
use crate::suggest;
use crate::yaml::{Entry, Map, Node, Tag, Value};

impl Assembly<'_> {
    /// Resolves the files of the services that `enabled` names; of the others they are not read.
    pub(crate) fn read_env_files(&mut self, root: &mut Node, enabled: impl Fn(&str) -> bool) {
        let Value::Mapping(root) = &mut root.value else { return };
        let Some(Value::Mapping(services)) = root.get_mut("services").map(|e| &mut e.node.value)
        else {
            return;
        };
        for (name, entry) in services.iter_mut() {
            let Value::Mapping(service) = &mut entry.node.value else { continue };
            let (env_files, label_files) =
                (service.remove("env_file"), service.remove("label_file"));
            let path = format!("services.{name}");
            if enabled(name) {
                let variables =
                    env_files.map(|e| self.env_files(&e.node, &format!("{path}.env_file")));
                put_below(service, "environment", variables.unwrap_or_default());
                let labels =
                    label_files.map(|e| self.label_files(&e.node, &format!("{path}.label_file")));
                put_below(service, "labels", labels.unwrap_or_default());
            }
            self.take_from_environment(service);
        }
    }

    fn env_files(&mut self, node: &Node, path: &str) -> BTreeMap<String, Node> {
        let Value::Sequence(items) = &node.value else {
            let message = format!("must be a path or a list of paths, and this is {}", node.kind());
            self.cx.error(node.span, path, message, "write `env_file: FILE`");
            return BTreeMap::new();
        };
        let mut variables = BTreeMap::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            for (name, value) in self.env_file(item, &path, &variables) {
                variables.insert(name, item.text_here(value));
            }
        }
        variables
    }

    fn env_file(
        &mut self,
        item: &Node,
        path: &str,
        earlier: &BTreeMap<String, Node>,
    ) -> Vec<(String, String)> {
        let known = ["path", "required", "format"];
        for (key, entry) in item.as_map().into_iter().flatten() {
            if !known.contains(&key.as_str()) {
                let remedy = suggest::remedy(key, known.into_iter(), "known here are");
                self.cx.error(entry.key, &format!("{path}.{key}"), "unknown key", remedy);
            }
        }
        let text = |key: &str| Some(item.get(key)?.as_scalar()?.text.clone());
        let Some(file) = text("path").filter(|text| !text.is_empty()) else {
            self.cx.error(item.span, path, "`path` is missing", "write `- FILE` or `- path: FILE`");
            return Vec::new();
        };
        let required = match text("required").as_deref() {
            None | Some("true") => true,
            Some("false") => false,
            Some(other) => {
                let message = format!("`required` must be true or false, and is `{other}`");
                self.cx.error(item.span, path, message, "write `required: false`");
                true
            }
        };
        let format = match text("format").as_deref() {
            None => Format::Compose,
            Some("raw") => Format::Raw,
            Some(other) => {
                let message = format!("`{other}` is not a format of variables");
                self.cx.error(item.span, path, message, "write `format: raw`, or remove it");
                return Vec::new();
            }
        };
        let source = self.cx.sources.get(item.span.file);
        let setting = Setting { base: source.base.clone(), variables: source.variables.clone() };
        let file = self.cx.sources.resolve(item.span.file, &file);
        if !required && self.is_missing(&file) {
            return Vec::new();
        }
        let mut known: Variables = (*setting.variables).clone();
        for (name, node) in earlier {
            let text = node.as_scalar().map(|scalar| scalar.text.clone()).unwrap_or_default();
            known.entry(name.clone()).or_insert(text);
        }
        let pairs = self.defined(&file, format, &known, &setting, Some((item.span, path)));
        let inherited = |name: &String| setting.variables.get(name).cloned();
        pairs
            .into_iter()
            .filter_map(|(name, value)| {
                let value = value.or_else(|| inherited(&name))?;
                Some((name, value))
            })
            .collect()
    }

    fn label_files(&mut self, node: &Node, path: &str) -> BTreeMap<String, Node> {
        let Value::Sequence(items) = &node.value else {
            let message = format!("must be a path or a list of paths, and this is {}", node.kind());
            self.cx.error(node.span, path, message, "write `label_file: FILE`");
            return BTreeMap::new();
        };
        let mut labels = BTreeMap::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let Some(scalar) = item.as_scalar().filter(|scalar| !scalar.is_null()) else {
                let message = format!("must be a path, and this is {}", item.kind());
                self.cx.error(item.span, &path, message, "write `- FILE`");
                continue;
            };
            let source = self.cx.sources.get(item.span.file);
            let setting =
                Setting { base: source.base.clone(), variables: source.variables.clone() };
            let file = self.cx.sources.resolve(item.span.file, &scalar.text);
            let known = (*setting.variables).clone();
            for (name, value) in
                self.defined(&file, Format::Compose, &known, &setting, Some((item.span, &path)))
            {
                labels.insert(name, item.text_here(value.unwrap_or_default()));
            }
        }
        labels
    }

    fn take_from_environment(&self, service: &mut Map) {
        let Some(Value::Mapping(environment)) =
            service.get_mut("environment").map(|entry| &mut entry.node.value)
        else {
            return;
        };
        environment.retain(|name, entry| {
            if !entry.node.is_null() {
                return true;
            }
            let variables = &self.cx.sources.get(entry.node.span.file).variables;
            match variables.get(name) {
                Some(value) => {
                    entry.node = entry.node.text_here(value.clone());
                    true
                }
                None => false,
            }
        });
    }
}

/// Adds what a mapping does not say yet.
fn put_below(service: &mut Map, key: &str, pairs: BTreeMap<String, Node>) {
    let Some(first) = pairs.values().next() else { return };
    let span = first.span;
    let empty = Node { span, tag: Tag::None, value: Value::Mapping(Map::new()) };
    let entry = service.entry(key.to_owned()).or_insert(Entry { key: span, node: empty.clone() });
    if entry.node.is_null() {
        entry.node.value = empty.value;
    }
    if let Value::Mapping(map) = &mut entry.node.value {
        for (name, node) in pairs {
            map.entry(name).or_insert(Entry { key: node.span, node });
        }
    }
}
