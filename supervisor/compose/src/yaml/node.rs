//! The tree: mappings, sequences and scalars with their places.

use std::collections::BTreeMap;

use crate::source::Span;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) tag: Tag,
    pub(crate) value: Value,
}

/// What a tag asks the merge of several files to do (Compose Specification, 13-merge.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    /// No tag: merge as usual.
    None,
    /// `!reset`: forget what earlier files say.
    Reset,
    /// `!override`: replace what earlier files say.
    Override,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    Mapping(Map),
}

/// Text and how it was written, from which its type follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    pub(crate) style: Style,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Without quotes: null, boolean, number or text, by its look.
    Plain,
    /// In quotes, or a block: text.
    Quoted,
    /// Without quotes, but with a variable in it: whatever the key wants.
    Interpolated,
}

/// A mapping by key. Compose gives no meaning to the order of keys.
pub(crate) type Map = BTreeMap<String, Entry>;

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Span,
    pub(crate) node: Node,
}

impl Scalar {
    /// Null of the YAML 1.2 core schema.
    pub(crate) fn is_null(&self) -> bool {
        self.style == Style::Plain
            && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }

    /// Boolean of the YAML 1.2 core schema.
    pub(crate) fn boolean(&self) -> Option<bool> {
        match self.text.as_str() {
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            _ => None,
        }
    }

    /// Whether the text without quotes is a number of the YAML 1.2 core schema.
    pub(crate) fn is_number(&self) -> bool {
        let text = self.text.as_str();
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let radix = digits.strip_prefix("0x").is_some_and(|d| u64::from_str_radix(d, 16).is_ok())
            || digits.strip_prefix("0o").is_some_and(|d| u64::from_str_radix(d, 8).is_ok());
        radix
            || matches!(digits, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN")
            || (digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
                && digits.parse::<f64>().is_ok())
    }
}

impl Node {
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.is_null())
    }

    pub(crate) fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Mapping(map) => Some(map),
            _ => None,
        }
    }

    pub(crate) fn as_scalar(&self) -> Option<&Scalar> {
        match &self.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// The value under a key of a mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.as_map()?.get(key).map(|entry| &entry.node)
    }

    /// A text at the place of this value.
    pub(crate) fn text_here(&self, text: impl Into<String>) -> Self {
        let scalar = Scalar { text: text.into(), style: Style::Quoted };
        Self { span: self.span, tag: Tag::None, value: Value::Scalar(scalar) }
    }

    /// A null at the place of this value.
    pub(crate) fn null_here(&self) -> Self {
        let scalar = Scalar { text: String::new(), style: Style::Plain };
        Self { span: self.span, tag: Tag::None, value: Value::Scalar(scalar) }
    }

    /// How many values the tree has.
    pub(crate) fn count(&self) -> usize {
        1 + match &self.value {
            Value::Scalar(_) => 0,
            Value::Sequence(items) => items.iter().map(Self::count).sum(),
            Value::Mapping(map) => map.values().map(|entry| entry.node.count()).sum(),
        }
    }

    /// What the value is, in the words of the error messages.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Mapping(_) => "a mapping",
            Value::Sequence(_) => "a list",
            Value::Scalar(scalar) if scalar.is_null() => "nothing",
            Value::Scalar(Scalar { style: Style::Plain, .. }) if self.is_boolean() => "a boolean",
            Value::Scalar(scalar) if scalar.style == Style::Plain && scalar.is_number() => {
                "a number"
            }
            Value::Scalar(_) => "a text",
        }
    }

    fn is_boolean(&self) -> bool {
        self.as_scalar().is_some_and(|s| s.style == Style::Plain && s.boolean().is_some())
    }
}
