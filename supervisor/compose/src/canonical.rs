//! The canonical output: one file that says all, sorted, without variables left to fill in.
//!
//! It loads to the same project again (with the same profiles and the same variables for secrets),
//! so a dollar sign is written as `$$`.

use serde_json::Value;

use crate::model::Project;

impl Project {
    /// The project as one JSON document, which is also a Compose file.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(&self.to_value()).unwrap_or_default();
        text.push('\n');
        text
    }

    /// The project as one YAML document, for people.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let mut out = String::new();
        write(&self.to_value(), 0, &mut out);
        out
    }

    /// The project as plain data, with `$` as `$$`.
    #[must_use]
    pub fn to_value(&self) -> Value {
        // Only maps with keys that are no texts and failing `Serialize`s can fail; there are none.
        let mut value = serde_json::to_value(self).unwrap_or_default();
        escape(&mut value);
        value
    }
}

fn escape(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('$') => *text = text.replace('$', "$$"),
        Value::Array(items) => items.iter_mut().for_each(escape),
        Value::Object(map) => map.values_mut().for_each(escape),
        _ => {}
    }
}

/// Writes a mapping or a list that begins on its own line.
fn write(value: &Value, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                out.push_str(&format!("{pad}{}:", scalar(key)));
                write_after(value, indent + 2, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                out.push_str(&format!("{pad}-"));
                match item {
                    Value::Object(map) if !map.is_empty() => {
                        // The first key stands behind the dash, the others below it.
                        let mut nested = String::new();
                        write(item, indent + 2, &mut nested);
                        out.push(' ');
                        out.push_str(nested.trim_start_matches(' '));
                    }
                    _ => write_after(item, indent + 2, out),
                }
            }
        }
        other => out.push_str(&format!("{pad}{}\n", inline(other))),
    }
}

/// Writes a value behind `key:` or `-`.
fn write_after(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            write(value, indent, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            write(value, indent, out);
        }
        other => out.push_str(&format!(" {}\n", inline(other))),
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// A text without quotes where nothing could take it for something else; JSON's quotes are YAML's.
fn scalar(text: &str) -> String {
    let first = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_');
    let word = |c: char| c.is_ascii_alphanumeric() || "/_.-+@".contains(c);
    let lower = text.to_ascii_lowercase();
    let special =
        ["true", "false", "yes", "no", "on", "off", "null", "y", "n"].contains(&lower.as_str());
    // A colon is safe inside a word, as in `app:v2`.
    let colons = !text.ends_with(':') && !text.contains(": ");
    if first && !special && colons && text.chars().all(|c| word(c) || c == ':') {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}
