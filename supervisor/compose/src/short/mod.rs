//! The short syntaxes of the Compose Specification, rewritten into the long ones.
//!
//! `"8080:80"` becomes `{target: 80, published: "8080", …}` at the same place in the file, so that
//! merging and reading know one form only. A value of a wrong kind is left as it is, for the
//! reader of the long form says better what would be right.

mod hosts;
mod mounts;
mod pairs;
mod ports;

pub(crate) use ports::range as port_range;

use crate::findings::Findings;
use crate::yaml::{Entry, Map, Node, Tag, Value};

/// Rewrites everything below the root of one file.
pub(crate) fn expand(root: &mut Node, findings: &mut Findings) {
    let Value::Mapping(root) = &mut root.value else { return };
    for (section, entry) in root.iter_mut() {
        match (section.as_str(), &mut entry.node.value) {
            ("services", Value::Mapping(services)) => {
                for (name, service) in services.iter_mut() {
                    if let Value::Mapping(service) = &mut service.node.value {
                        expand_service(service, &format!("services.{name}"), findings);
                    }
                }
            }
            ("networks" | "volumes" | "secrets" | "configs", Value::Mapping(objects)) => {
                for (name, object) in objects.iter_mut() {
                    if let Value::Mapping(object) = &mut object.node.value {
                        expand_object(object, &format!("{section}.{name}"), findings);
                    }
                }
            }
            ("include", Value::Sequence(items)) => items.iter_mut().for_each(expand_include),
            _ => {}
        }
    }
}

fn expand_service(service: &mut Map, path: &str, findings: &mut Findings) {
    for (key, entry) in service.iter_mut() {
        let (node, path) = (&mut entry.node, format!("{path}.{key}"));
        match key.as_str() {
            "ports" => each(node, &path, findings, ports::expand),
            "volumes" => each(node, &path, findings, mounts::expand),
            "devices" => each(node, &path, findings, mounts::expand_device),
            "secrets" | "configs" => {
                each(node, &path, findings, |item, _, _| vec![wrap(item, "source")])
            }
            "env_file" => {
                into_list(node);
                each(node, &path, findings, |item, _, _| vec![wrap(item, "path")]);
            }
            "dns" | "dns_search" | "tmpfs" | "label_file" => into_list(node),
            "environment" | "labels" | "annotations" | "sysctls" => {
                pairs::expand(node, &path, findings);
            }
            "extra_hosts" => hosts::expand(node, &path, findings),
            "depends_on" => pairs::names(node, &path, findings, |item| {
                let condition = item.text_here("service_started");
                mapping(&item, [("condition", condition)])
            }),
            "networks" => pairs::names(node, &path, findings, |item| item.null_here()),
            "command" | "entrypoint" => words(node, &path, findings),
            "extends" => replace(node, |item| wrap(item, "service")),
            "build" => {
                replace(node, |item| wrap(item, "context"));
                inside(node, "args", |args| {
                    pairs::expand(args, &format!("{path}.args"), findings);
                });
            }
            "healthcheck" => inside(node, "test", |test| replace(test, shell_test)),
            "deploy" => inside(node, "labels", |labels| {
                pairs::expand(labels, &format!("{path}.labels"), findings);
            }),
            "ulimits" => {
                if let Value::Mapping(limits) = &mut node.value {
                    limits.values_mut().for_each(|limit| replace(&mut limit.node, both_limits));
                }
            }
            "post_start" | "pre_stop" => each(node, &path, findings, expand_hook),
            _ => {}
        }
    }
}

fn expand_hook(mut hook: Node, path: &str, findings: &mut Findings) -> Vec<Node> {
    inside(&mut hook, "command", |node| words(node, &format!("{path}.command"), findings));
    inside(&mut hook, "environment", |node| {
        pairs::expand(node, &format!("{path}.environment"), findings);
    });
    vec![hook]
}

fn expand_object(object: &mut Map, path: &str, findings: &mut Findings) {
    if let Some(labels) = object.get_mut("labels") {
        pairs::expand(&mut labels.node, &format!("{path}.labels"), findings);
    }
    // `external: {name: x}` of old files is `external: true` and `name: x`.
    let old = object.get("external").map(|entry| &entry.node).filter(|n| n.as_map().is_some());
    if let Some(old) = old.cloned() {
        let path = format!("{path}.external");
        findings.warn(
            old.span,
            &path,
            "a mapping here is deprecated",
            "write `external: true` and `name:`",
        );
        if let (Some(name), false) =
            (old.as_map().and_then(|m| m.get("name")), object.contains_key("name"))
        {
            object.insert("name".into(), name.clone());
        }
        if let Some(external) = object.get_mut("external") {
            external.node = old.text_here("true");
        }
    }
}

fn expand_include(item: &mut Node) {
    replace(item, |item| wrap(item, "path"));
    inside(item, "path", into_list);
    inside(item, "env_file", into_list);
}

/// A mapping at the place of a value.
fn mapping<const N: usize>(at: &Node, pairs: [(&str, Node); N]) -> Node {
    let entry = |(key, node): (&str, Node)| (key.to_owned(), Entry { key: at.span, node });
    Node {
        span: at.span,
        tag: at.tag,
        value: Value::Mapping(pairs.into_iter().map(entry).collect()),
    }
}

/// `x` to `{key: x}`; a mapping stays.
fn wrap(item: Node, key: &str) -> Node {
    match item.value {
        Value::Scalar(_) if !item.is_null() => {
            let inner = Node { tag: Tag::None, ..item.clone() };
            mapping(&item, [(key, inner)])
        }
        _ => item,
    }
}

/// `x` to `[x]`.
fn into_list(node: &mut Node) {
    if matches!(node.value, Value::Scalar(_)) && !node.is_null() {
        let inner = Node { tag: Tag::None, ..node.clone() };
        node.value = Value::Sequence(vec![inner]);
    }
}

fn replace(node: &mut Node, with: impl FnOnce(Node) -> Node) {
    if matches!(node.value, Value::Scalar(_)) && !node.is_null() {
        *node = with(node.clone());
    }
}

fn inside(node: &mut Node, key: &str, then: impl FnOnce(&mut Node)) {
    if let Value::Mapping(map) = &mut node.value
        && let Some(entry) = map.get_mut(key)
    {
        then(&mut entry.node);
    }
}

fn each(
    node: &mut Node,
    path: &str,
    findings: &mut Findings,
    expand: impl Fn(Node, &str, &mut Findings) -> Vec<Node>,
) {
    if let Value::Sequence(items) = &mut node.value {
        let expanded = std::mem::take(items).into_iter().enumerate();
        *items = expanded
            .flat_map(|(i, item)| expand(item, &format!("{path}[{i}]"), findings))
            .collect();
    }
}

/// A command line in one text is split as a shell would, without running one.
fn words(node: &mut Node, path: &str, findings: &mut Findings) {
    let Some(scalar) = node.as_scalar().filter(|scalar| !scalar.is_null()) else { return };
    match shlex::split(&scalar.text) {
        Some(words) => {
            let items = words.into_iter().map(|word| node.text_here(word)).collect();
            node.value = Value::Sequence(items);
        }
        None => {
            let remedy = "close it, or write the command as a list: [\"sh\", \"-c\", \"…\"]";
            findings.error(node.span, path, "a quote in this command is not closed", remedy);
            node.value = Value::Sequence(Vec::new());
        }
    }
}

fn shell_test(test: Node) -> Node {
    let shell = test.text_here("CMD-SHELL");
    let inner = Node { tag: Tag::None, ..test.clone() };
    Node { value: Value::Sequence(vec![shell, inner]), ..test }
}

fn both_limits(limit: Node) -> Node {
    let inner = Node { tag: Tag::None, ..limit.clone() };
    mapping(&limit, [("soft", inner.clone()), ("hard", inner)])
}
