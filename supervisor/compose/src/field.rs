//! Reading typed values out of the tree, with every mistake recorded at its place.
//!
//! A mapping is opened as [`Fields`], its keys are taken one by one, and closing it judges every
//! key that nobody took: warned about, refused, an extension, or unknown. None can be forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::str::FromStr;

use crate::classes::{self, Class};
use crate::findings::Findings;
use crate::quantity::{Bytes, Cpus, FileMode, Millis, Percent, Ratio};
use crate::suggest;
use crate::yaml::{Map, Node, Scalar, Style, Value};

/// Where a value stands in the project.
#[derive(Debug, Clone, Default)]
pub(crate) struct Path {
    /// For people: `services.web.ports[0].target`.
    pub(crate) text: String,
    /// For the table of keys: `services.*.ports[].target`.
    pub(crate) pattern: String,
}

impl Path {
    pub(crate) fn key(&self, key: &str) -> Self {
        self.push(key, key)
    }

    /// A key that the user chose.
    pub(crate) fn named(&self, name: &str) -> Self {
        self.push(name, "*")
    }

    fn push(&self, text: &str, pattern: &str) -> Self {
        let dot = if self.text.is_empty() { "" } else { "." };
        Self {
            text: format!("{}{dot}{text}", self.text),
            pattern: format!("{}{dot}{pattern}", self.pattern),
        }
    }

    fn index(&self, index: usize) -> Self {
        Self { text: format!("{}[{index}]", self.text), pattern: format!("{}[]", self.pattern) }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Field<'a> {
    pub(crate) node: &'a Node,
    pub(crate) path: Path,
}

impl<'a> Field<'a> {
    pub(crate) fn error(
        &self,
        cx: &mut Findings,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        cx.error(self.node.span, &self.path.text, message, remedy);
    }

    pub(crate) fn warn(
        &self,
        cx: &mut Findings,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        cx.warn(self.node.span, &self.path.text, message, remedy);
    }

    fn must_be(&self, cx: &mut Findings, what: &str, remedy: &str) {
        self.error(cx, format!("must be {what}, and this is {}", self.node.kind()), remedy);
    }

    fn scalar(&self, cx: &mut Findings, what: &str) -> Option<&'a Scalar> {
        let scalar = self.node.as_scalar().filter(|scalar| !scalar.is_null());
        if scalar.is_none() {
            self.must_be(cx, what, "");
        }
        scalar
    }

    /// Any scalar, as it is written.
    pub(crate) fn any_text(&self, cx: &mut Findings) -> Option<String> {
        self.scalar(cx, "a text").map(|scalar| scalar.text.clone())
    }

    /// A text; a number or boolean must be quoted to be one.
    pub(crate) fn text(&self, cx: &mut Findings) -> Option<String> {
        let scalar = self.scalar(cx, "a text")?;
        if scalar.style == Style::Plain && (scalar.is_number() || scalar.boolean().is_some()) {
            self.must_be(cx, "a text", &format!("put it in quotes: \"{}\"", scalar.text));
            return None;
        }
        Some(scalar.text.clone())
    }

    /// A text that is not empty.
    pub(crate) fn word(&self, cx: &mut Findings) -> Option<String> {
        let text = self.text(cx)?;
        if text.is_empty() {
            self.error(cx, "must not be empty", "write a value, or remove the key");
            return None;
        }
        Some(text)
    }

    /// The name of something on the host, which may become that of a file.
    pub(crate) fn name(&self, cx: &mut Findings) -> Option<String> {
        let text = self.word(cx)?;
        let word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !begins || text.len() > 255 || !text.chars().all(word) {
            let shown: String = text.chars().take(40).collect();
            let remedy = "use letters, digits, `.`, `_` and `-`, a letter or digit first";
            self.error(cx, format!("`{shown}` cannot be a name"), remedy);
            return None;
        }
        Some(text)
    }

    /// A boolean; YAML 1.1's `yes` and `on` are understood with a warning.
    pub(crate) fn boolean(&self, cx: &mut Findings) -> Option<bool> {
        let scalar = self.scalar(cx, "true or false")?;
        if let Some(value) = scalar.boolean() {
            return Some(value);
        }
        let value = match scalar.text.to_ascii_lowercase().as_str() {
            "yes" | "y" | "on" => true,
            "no" | "n" | "off" => false,
            other => {
                let message = format!("must be true or false, and this is `{other}`");
                self.error(cx, message, "write `true` or `false`");
                return None;
            }
        };
        self.warn(cx, format!("`{}` is read as {value}", scalar.text), format!("write `{value}`"));
        Some(value)
    }

    /// A number between two bounds; as in the specification also in quotes.
    pub(crate) fn number<T>(&self, cx: &mut Findings, least: T, most: T) -> Option<T>
    where
        T: FromStr + PartialOrd + Display,
    {
        let scalar = self.scalar(cx, "a number")?;
        match scalar.text.parse::<T>() {
            Ok(value) if value >= least && value <= most => Some(value),
            _ => {
                let remedy = format!("write a number from {least} to {most}");
                self.error(cx, format!("`{}` is not a number that fits here", scalar.text), remedy);
                None
            }
        }
    }

    /// A scalar in a notation of its own.
    pub(crate) fn parsed<T>(
        &self,
        cx: &mut Findings,
        form: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let scalar = self.scalar(cx, form)?;
        let value = parse(&scalar.text);
        if value.is_none() {
            self.error(
                cx,
                format!("`{}` is not understood here", scalar.text),
                format!("write {form}"),
            );
        }
        value
    }

    pub(crate) fn millis(&self, cx: &mut Findings) -> Option<Millis> {
        self.parsed(cx, Millis::FORM, Millis::parse)
    }

    pub(crate) fn bytes(&self, cx: &mut Findings) -> Option<Bytes> {
        self.parsed(cx, Bytes::FORM, Bytes::parse)
    }

    pub(crate) fn cpus(&self, cx: &mut Findings) -> Option<Cpus> {
        self.parsed(cx, Cpus::FORM, Cpus::parse)
    }

    pub(crate) fn percent(&self, cx: &mut Findings) -> Option<Percent> {
        self.parsed(cx, Percent::FORM, Percent::parse)
    }

    pub(crate) fn ratio(&self, cx: &mut Findings) -> Option<Ratio> {
        self.parsed(cx, Ratio::FORM, Ratio::parse)
    }

    pub(crate) fn mode(&self, cx: &mut Findings) -> Option<FileMode> {
        let scalar = self.scalar(cx, FileMode::FORM)?;
        // Other tools read a number without a leading zero in decimal: 440 would be 0670.
        if scalar.style == Style::Plain && !scalar.text.starts_with('0') {
            self.error(
                cx,
                format!("`{}` could be octal or decimal", scalar.text),
                format!("write {}", FileMode::FORM),
            );
            return None;
        }
        self.parsed(cx, FileMode::FORM, FileMode::parse)
    }

    /// One of several words.
    pub(crate) fn one_of<T: Copy>(&self, cx: &mut Findings, choices: &[(&str, T)]) -> Option<T> {
        let scalar = self.scalar(cx, "one of several words")?;
        let found = choices.iter().find(|(word, _)| *word == scalar.text);
        if found.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            let remedy = suggest::remedy(&scalar.text, words.iter().copied(), "write one of");
            self.error(cx, format!("`{}` is not known here", scalar.text), remedy);
        }
        found.map(|(_, value)| *value)
    }

    /// The values of a list.
    pub(crate) fn items(&self, cx: &mut Findings) -> Vec<Field<'a>> {
        match &self.node.value {
            Value::Sequence(items) => {
                let mut fields = Vec::new();
                for (index, node) in items.iter().enumerate() {
                    let path = self.path.index(index);
                    cx.origins.insert(path.text.clone(), node.span);
                    fields.push(Field { node, path });
                }
                fields
            }
            _ => {
                self.must_be(cx, "a list", "write each value on its own line after `- `");
                Vec::new()
            }
        }
    }

    /// A list of texts.
    pub(crate) fn texts(&self, cx: &mut Findings) -> Vec<String> {
        self.items(cx).iter().filter_map(|item| item.text(cx)).collect()
    }

    /// A list in which each text stands once.
    pub(crate) fn unique(&self, cx: &mut Findings) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let mut texts = Vec::new();
        for item in self.items(cx) {
            let Some(text) = item.any_text(cx) else { continue };
            if seen.insert(text.clone()) {
                texts.push(text);
            } else {
                item.error(cx, format!("`{text}` is listed twice"), "keep one of the two");
            }
        }
        texts
    }

    /// The values of a mapping whose keys the user chose.
    pub(crate) fn named(&self, cx: &mut Findings) -> Vec<(&'a str, Field<'a>)> {
        let Some(map) = self.node.as_map() else {
            self.must_be(cx, "a mapping", "write each entry on its own line as `NAME: VALUE`");
            return Vec::new();
        };
        let mut fields = Vec::new();
        for (name, entry) in map {
            let path = self.path.named(name);
            cx.origins.insert(path.text.clone(), entry.key);
            fields.push((name.as_str(), Field { node: &entry.node, path }));
        }
        fields
    }

    /// `{KEY: text}`; a key without a value is given to `absent`.
    pub(crate) fn pairs(&self, cx: &mut Findings) -> BTreeMap<String, String> {
        let mut pairs = BTreeMap::new();
        for (name, field) in self.named(cx) {
            let value = if field.node.is_null() { Some(String::new()) } else { field.any_text(cx) };
            pairs.extend(value.map(|value| (name.to_owned(), value)));
        }
        pairs
    }
}

/// A mapping whose keys are being read.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    map: Option<&'a Map>,
    path: Path,
    known: BTreeSet<&'static str>,
}

impl<'a> Fields<'a> {
    /// Opens a mapping; nothing at all is an empty one.
    pub(crate) fn open(field: &Field<'a>, cx: &mut Findings) -> Self {
        let map = field.node.as_map();
        if map.is_none() && !field.node.is_null() {
            field.must_be(cx, "a mapping", "write each key on its own line as `KEY: VALUE`");
        }
        Self { map, path: field.path.clone(), known: BTreeSet::new() }
    }

    /// The value of a key, unless it is absent or nothing.
    pub(crate) fn take(&mut self, key: &'static str, cx: &mut Findings) -> Option<Field<'a>> {
        self.take_any(key, cx).filter(|field| !field.node.is_null())
    }

    /// The value of a key, also when it is nothing.
    pub(crate) fn take_any(&mut self, key: &'static str, cx: &mut Findings) -> Option<Field<'a>> {
        self.known.insert(key);
        let entry = self.map?.get(key)?;
        let path = self.path.key(key);
        cx.origins.insert(path.text.clone(), entry.node.span);
        Some(Field { node: &entry.node, path })
    }

    /// The value of a key read by `read`, or nothing.
    pub(crate) fn get<T>(
        &mut self,
        key: &'static str,
        cx: &mut Findings,
        read: impl FnOnce(&Field<'a>, &mut Findings) -> Option<T>,
    ) -> Option<T> {
        let field = self.take(key, cx)?;
        read(&field, cx)
    }

    /// The value of a key read by `read`, or the default.
    pub(crate) fn list<T: Default>(
        &mut self,
        key: &'static str,
        cx: &mut Findings,
        read: impl FnOnce(&Field<'a>, &mut Findings) -> T,
    ) -> T {
        self.take(key, cx).map(|field| read(&field, cx)).unwrap_or_default()
    }

    /// The first of these keys that is given.
    pub(crate) fn map_keys(&self, keys: &[&'static str]) -> Option<&'static str> {
        keys.iter().copied().find(|key| self.map.is_some_and(|map| map.contains_key(*key)))
    }

    /// The extensions (`x-…`) that are not ours, kept for other tools.
    pub(crate) fn extensions(&self) -> BTreeMap<String, serde_json::Value> {
        let foreign = |key: &str| key.starts_with("x-") && !self.known.contains(key);
        let entries = self.map.into_iter().flatten().filter(|(key, _)| foreign(key));
        entries.map(|(key, entry)| (key.clone(), plain(&entry.node))).collect()
    }

    /// Judges the keys that were not taken.
    pub(crate) fn close(self, cx: &mut Findings) {
        let ours = self.known.contains("x-minisup");
        for (key, entry) in self.map.into_iter().flatten() {
            if self.known.contains(key.as_str()) {
                continue;
            }
            let path = self.path.key(key);
            if key.starts_with("x-") {
                if ours && suggest::close("x-minisup", key) {
                    cx.warn(
                        entry.key,
                        &path.text,
                        "this extension is not read",
                        "did you mean `x-minisup`?",
                    );
                }
                continue;
            }
            match classes::of(&path.pattern) {
                Some(Class::Warned { effect, remedy }) => {
                    cx.warn(entry.key, &path.text, *effect, *remedy)
                }
                Some(Class::Refused { why, remedy }) => {
                    cx.error(entry.key, &path.text, *why, *remedy)
                }
                Some(Class::Needed | Class::Expected) | None => {
                    let table = classes::below(&self.path.pattern);
                    let known = self.known.iter().copied().chain(table);
                    let remedy = suggest::remedy(key, known, "known here are");
                    cx.error(entry.key, &path.text, "unknown key", remedy);
                }
            }
        }
    }
}

/// The value as plain data, with the types of the YAML core schema.
fn plain(node: &Node) -> serde_json::Value {
    use serde_json::Value as Json;
    match &node.value {
        Value::Sequence(items) => Json::Array(items.iter().map(plain).collect()),
        Value::Mapping(map) => {
            Json::Object(map.iter().map(|(key, e)| (key.clone(), plain(&e.node))).collect())
        }
        Value::Scalar(scalar) if scalar.style != Style::Plain => Json::String(scalar.text.clone()),
        Value::Scalar(scalar) if scalar.is_null() => Json::Null,
        Value::Scalar(scalar) => {
            match (scalar.boolean(), scalar.text.parse::<serde_json::Number>()) {
                (Some(value), _) => Json::Bool(value),
                (None, Ok(number)) => Json::Number(number),
                (None, Err(_)) => Json::String(scalar.text.clone()),
            }
        }
    }
}
