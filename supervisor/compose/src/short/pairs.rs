//! `["KEY=value", "KEY"]` to `{KEY: value, KEY: }`, and `[a, b]` to `{a: …, b: …}`.

use crate::findings::Findings;
use crate::yaml::{Entry, Map, Node, Value};

/// Lists of `KEY=value`; a key without `=` has no value.
pub(super) fn expand(node: &mut Node, path: &str, findings: &mut Findings) {
    let Value::Sequence(items) = &node.value else { return };
    let mut map = Map::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(scalar) = item.as_scalar().filter(|scalar| !scalar.is_null()) else {
            let message = format!("must be a text `KEY=value`, and this is {}", item.kind());
            findings.error(
                item.span,
                &path,
                message,
                "write `- KEY=value`, or a mapping `KEY: value`",
            );
            continue;
        };
        let (key, value) = match scalar.text.split_once('=') {
            Some((key, value)) => (key, item.text_here(value)),
            None => (scalar.text.as_str(), item.null_here()),
        };
        insert(&mut map, key, item, Node { tag: item.tag, ..value }, &path, findings);
    }
    node.value = Value::Mapping(map);
}

/// Lists of names, each given a value.
pub(super) fn names(
    node: &mut Node,
    path: &str,
    findings: &mut Findings,
    value: impl Fn(Node) -> Node,
) {
    let Value::Sequence(items) = &node.value else { return };
    let mut map = Map::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        match item.as_scalar().filter(|scalar| !scalar.is_null()) {
            Some(scalar) => {
                insert(&mut map, &scalar.text, item, value(item.clone()), &path, findings);
            }
            None => {
                let message = format!("must be a name, and this is {}", item.kind());
                findings.error(
                    item.span,
                    &path,
                    message,
                    "write `- NAME`, or a mapping `NAME: {…}`",
                );
            }
        }
    }
    node.value = Value::Mapping(map);
}

fn insert(map: &mut Map, key: &str, item: &Node, node: Node, path: &str, findings: &mut Findings) {
    if key.is_empty() {
        findings.error(item.span, path, "the name before `=` is empty", "write `NAME=value`");
    } else if let Some(first) = map.get(key) {
        let message = format!("`{key}` is already listed on line {}", first.key.line);
        findings.error(item.span, path, message, "keep one of the two");
    } else {
        map.insert(key.to_owned(), Entry { key: item.span, node });
    }
}
