//! `include`: other projects taken in, each with its own directory and variables.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::assembly::{Assembly, Setting, empty_at};
use crate::classes::{self, Class};
use crate::limits;
use crate::merge::identity;
use crate::source::join;
use crate::suggest;
use crate::yaml::{Entry, Node, Value};

const SECTIONS: [&str; 5] = ["services", "networks", "volumes", "secrets", "configs"];

impl Assembly<'_> {
    /// Takes in what a document includes.
    pub(crate) fn include(&mut self, document: &mut Node, setting: &Setting) {
        let Value::Mapping(root) = &mut document.value else { return };
        let Some(include) = root.remove("include").map(|entry| entry.node) else { return };
        let items = match &include.value {
            Value::Sequence(items) => items.as_slice(),
            _ if include.is_null() => &[],
            _ => {
                let message = format!("must be a list, and this is {}", include.kind());
                self.cx.error(include.span, "include", message, "write `- PATH` on its own line");
                return;
            }
        };
        for (index, item) in items.iter().enumerate() {
            let path = format!("include[{index}]");
            if let Some(included) = self.load_included(item, &path, setting) {
                self.take_in(document, included);
            }
        }
    }

    fn load_included(&mut self, item: &Node, path: &str, setting: &Setting) -> Option<Node> {
        let Some(keys) = item.as_map() else {
            let message = format!("must be a path or a mapping, and this is {}", item.kind());
            self.cx.error(item.span, path, message, "write `- PATH` or `- path: PATH`");
            return None;
        };
        let known = ["path", "project_directory", "env_file"];
        for (key, entry) in keys.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
            let remedy = suggest::remedy(key, known.into_iter(), "known here are");
            self.cx.error(entry.key, &format!("{path}.{key}"), "unknown key", remedy);
        }
        let base = self.cx.sources.get(item.span.file).base.clone();
        let paths = self.paths(item, "path", path, &base)?;
        let Some(first) = paths.first().filter(|_| !paths.is_empty()) else {
            self.cx.error(item.span, path, "`path` is missing", "write the path of a Compose file");
            return None;
        };
        if let Some(again) = paths.iter().find(|path| self.including.contains(path)) {
            let message = format!("`{}` includes itself, perhaps through others", again.display());
            self.cx.error(item.span, path, message, "remove one `include` of the circle");
            return None;
        }
        if self.including.len() >= limits::REFERENCES {
            let message = format!("`include` is nested more than {} deep", limits::REFERENCES);
            self.cx.error(item.span, path, message, "include fewer files");
            return None;
        }
        let directory = match item.get("project_directory").and_then(Node::as_scalar) {
            Some(text) => join(&base, Path::new(&text.text)),
            None => first.parent().unwrap_or(Path::new("/")).to_owned(),
        };
        let given = self.paths(item, "env_file", path, &base)?;
        let (env_files, required) = match given.is_empty() {
            true => (vec![directory.join(".env")], false),
            false => (given, true),
        };
        let own = Setting { base: directory.clone(), variables: setting.variables.clone() };
        let variables = self.variables(&env_files, required, &own, Some((item.span, path)));
        let own = Setting { base: directory, variables: Arc::new(variables) };
        let depth = self.including.len();
        self.including.extend(paths.iter().cloned());
        let included = self.load_all(&paths, &own, Some((item.span, path)));
        self.including.truncate(depth);
        included
    }

    fn paths(&mut self, item: &Node, key: &str, path: &str, base: &Path) -> Option<Vec<PathBuf>> {
        let Some(node) = item.get(key).filter(|node| !node.is_null()) else {
            return Some(Vec::new());
        };
        let texts: Option<Vec<String>> = match &node.value {
            Value::Sequence(items) => {
                items.iter().map(|item| Some(item.as_scalar()?.text.clone())).collect()
            }
            _ => None,
        };
        let Some(texts) = texts else {
            let message = format!("must be a path or a list of paths, and this is {}", node.kind());
            self.cx.error(node.span, &format!("{path}.{key}"), message, "write `path: FILE`");
            return None;
        };
        Some(texts.iter().map(|text| join(base, Path::new(text))).collect())
    }

    /// A key of an included file that is not copied.
    fn judge_outside(&mut self, key: &str, entry: &Entry) {
        match (key, classes::of(key)) {
            ("name" | "x-minisup", _) => {
                let remedy = "set it in the file that includes this one";
                self.cx.warn(entry.key, key, "has no effect in an included file", remedy);
            }
            (_, Some(Class::Warned { effect, remedy })) => {
                self.cx.warn(entry.key, key, *effect, *remedy)
            }
            (_, Some(Class::Refused { why, remedy })) => {
                self.cx.error(entry.key, key, *why, *remedy)
            }
            _ if key.starts_with("x-") => {}
            _ => {
                let remedy = suggest::remedy(key, classes::below(""), "known here are");
                self.cx.error(entry.key, key, "unknown key", remedy);
            }
        }
    }

    /// Copies the objects of an included project. Two that differ may not have one name.
    fn take_in(&mut self, document: &mut Node, included: Node) {
        let empty = empty_at(document);
        let Value::Mapping(root) = &mut document.value else { return };
        let Value::Mapping(sections) = included.value else { return };
        for (section, entry) in sections {
            if !SECTIONS.contains(&section.as_str()) {
                self.judge_outside(&section, &entry);
                continue;
            }
            let Value::Mapping(objects) = entry.node.value else {
                if !entry.node.is_null() {
                    let message = format!("must be a mapping, and this is {}", entry.node.kind());
                    self.cx.error(
                        entry.key,
                        &section,
                        message,
                        "write each entry as `NAME: VALUE`",
                    );
                }
                continue;
            };
            let place = Entry { key: entry.key, node: empty.clone() };
            let target = root.entry(section.clone()).or_insert(place);
            if target.node.is_null() {
                target.node.value = empty.value.clone();
            }
            let Value::Mapping(known) = &mut target.node.value else { continue };
            for (name, object) in objects {
                match known.get(&name) {
                    None => {
                        known.insert(name, object);
                    }
                    Some(same) if identity(&same.node) == identity(&object.node) => {}
                    Some(other) => {
                        let here = self.cx.sources.location(object.key);
                        let message =
                            format!("`{name}` is also defined in an included file, at {here}");
                        let remedy =
                            "rename one of the two, or change the included one in an override file";
                        self.cx.error(other.key, &format!("{section}.{name}"), message, remedy);
                    }
                }
            }
        }
    }
}
