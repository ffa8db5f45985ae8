//! Laying one file over another: the rules of the Compose Specification, 13-merge.md.
//!
//! Both trees are in the long syntax (see [`crate::short`]), so that only four rules remain:
//! mappings merge by key, lists append what they do not hold yet, lists of ports and mounts merge
//! by what identifies an entry, and commands replace each other.

use crate::findings::Findings;
use crate::yaml::{Entry, Map, Node, Tag, Value};

/// How two lists become one.
#[derive(Debug, Clone, Copy)]
enum Rule {
    Append,
    Replace,
    /// Entries with the same values under these keys are one.
    Unique(&'static [&'static str]),
}

fn rule(path: &[&str]) -> Rule {
    match path {
        ["services", _, rest @ ..] => match rest {
            ["command" | "entrypoint"] | ["healthcheck", "test"] => Rule::Replace,
            ["x-minisup", "probes", _, "exec"] => Rule::Replace,
            ["ports"] => Rule::Unique(&["host_ip", "target", "published", "protocol"]),
            ["volumes" | "secrets" | "configs" | "devices"] => Rule::Unique(&["target"]),
            ["env_file"] => Rule::Unique(&["path"]),
            _ => Rule::Append,
        },
        ["networks", _, "ipam", "config"] => Rule::Unique(&["subnet"]),
        _ => Rule::Append,
    }
}

/// Lays `over` over `base`. `path` is where both stand.
pub(crate) fn merge(base: Node, over: Node, path: &[&str], findings: &mut Findings) -> Node {
    if over.tag != Tag::None {
        return over;
    }
    if base.tag == Tag::Reset {
        // What an earlier file forgot stays forgotten for the files before it.
        return Node { tag: Tag::Override, ..over };
    }
    let tag = base.tag;
    let span = over.span;
    let (base_kind, over_kind) = (base.kind(), over.kind());
    let value = match (base.value, over.value) {
        (Value::Mapping(base), Value::Mapping(over)) => {
            Value::Mapping(merge_mappings(base, over, path, findings))
        }
        (Value::Sequence(base), Value::Sequence(over)) => {
            Value::Sequence(merge_lists(base, over, path, findings))
        }
        (base @ (Value::Mapping(_) | Value::Sequence(_)), Value::Scalar(over))
            if over.is_null() && !matches!(rule(path), Rule::Replace) =>
        {
            // `deploy:` with nothing below it adds nothing and takes nothing away.
            base
        }
        (Value::Mapping(_), over @ Value::Sequence(_))
        | (Value::Sequence(_), over @ Value::Mapping(_)) => {
            let message =
                format!("{over_kind} cannot be merged into {base_kind} of an earlier file");
            findings.error(
                span,
                &path.join("."),
                message,
                "write both alike, or tag this with `!override`",
            );
            over
        }
        (_, over) => over,
    };
    Node { span, tag, value }
}

fn merge_mappings(mut base: Map, over: Map, path: &[&str], findings: &mut Findings) -> Map {
    // The driver gives the options their meaning; another driver starts with none.
    if matches!(path, ["services", _, "logging"]) {
        let driver =
            |map: &Map| map.get("driver").and_then(|e| Some(e.node.as_scalar()?.text.clone()));
        if let (Some(old), Some(new)) = (driver(&base), driver(&over))
            && old != new
        {
            return over;
        }
    }
    for (key, entry) in over {
        let merged = match base.remove(&key) {
            None => entry,
            Some(earlier) => {
                let mut path = path.to_vec();
                path.push(&key);
                Entry { key: entry.key, node: merge(earlier.node, entry.node, &path, findings) }
            }
        };
        base.insert(key, merged);
    }
    base
}

fn merge_lists(
    base: Vec<Node>,
    over: Vec<Node>,
    path: &[&str],
    findings: &mut Findings,
) -> Vec<Node> {
    match rule(path) {
        Rule::Replace => over,
        Rule::Append => {
            let mut merged = base;
            let mut seen: std::collections::BTreeSet<String> =
                merged.iter().map(identity).collect();
            for item in over {
                if seen.insert(identity(&item)) {
                    merged.push(item);
                }
            }
            merged
        }
        Rule::Unique(keys) => {
            let mut merged = base;
            let mut places = std::collections::BTreeMap::new();
            for (index, item) in merged.iter().enumerate() {
                places.insert(key_of(item, keys), index);
            }
            for item in over {
                match places.get(&key_of(&item, keys)) {
                    Some(&index) => {
                        let null = merged[index].null_here();
                        let earlier = std::mem::replace(&mut merged[index], null);
                        let mut path = path.to_vec();
                        path.push("[]");
                        merged[index] = merge_entry(earlier, item, &path, findings);
                    }
                    None => merged.push(item),
                }
            }
            merged
        }
    }
}

/// Two entries with one identity. A mount of another kind shares nothing with the one it replaces.
fn merge_entry(base: Node, over: Node, path: &[&str], findings: &mut Findings) -> Node {
    let kind = |node: &Node| node.get("type").map(identity);
    if kind(&base) == kind(&over) { merge(base, over, path, findings) } else { over }
}

fn key_of(item: &Node, keys: &[&str]) -> Vec<String> {
    let fallback = if keys == ["target"] { item.get("source") } else { None };
    // A port without a protocol is TCP, as the short form says in full.
    let absent = |key: &str| if key == "protocol" { "\"tcp\"".to_owned() } else { String::new() };
    let part = |key: &&str| item.get(key).or(fallback).map_or_else(|| absent(key), identity);
    keys.iter().map(part).collect()
}

/// The value as a text that differs when the value does.
pub(crate) fn identity(node: &Node) -> String {
    match &node.value {
        Value::Scalar(scalar) => format!("{:?}", scalar.text),
        Value::Sequence(items) => {
            format!("[{}]", items.iter().map(identity).collect::<Vec<_>>().join(","))
        }
        Value::Mapping(map) => {
            let pair =
                |(key, entry): (&String, &Entry)| format!("{key:?}:{}", identity(&entry.node));
            format!("{{{}}}", map.iter().map(pair).collect::<Vec<_>>().join(","))
        }
    }
}

/// Takes away what was reset and the tags, once every file is merged.
pub(crate) fn settle(node: &mut Node) {
    node.tag = Tag::None;
    match &mut node.value {
        Value::Scalar(_) => {}
        Value::Sequence(items) => {
            items.retain(|item| item.tag != Tag::Reset);
            items.iter_mut().for_each(settle);
        }
        Value::Mapping(map) => {
            map.retain(|_, entry| entry.node.tag != Tag::Reset);
            map.values_mut().for_each(|entry| settle(&mut entry.node));
        }
    }
}
