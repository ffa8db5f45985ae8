//! `[SOURCE:]TARGET[:OPTIONS]` of volumes, and `HOST[:CONTAINER[:rwm]]` of devices.

use crate::findings::Findings;
use crate::yaml::{Entry, Node, Value};

const FORM: &str = "write `[SOURCE:]TARGET[:ro]`, as in `data:/var/lib/data` or \
                    `./conf:/etc/app:ro`; for a path with a colon, use the long form";

/// What is said about `z` and `Z` at volumes, which are ours.
const UNLABELLED: (&str, &str) =
    ("`z` and `Z` have no effect: volumes are not relabelled", "remove it");

pub(super) fn expand(item: Node, path: &str, findings: &mut Findings) -> Vec<Node> {
    let Some(scalar) = item.as_scalar().filter(|scalar| !scalar.is_null()) else {
        return vec![item];
    };
    let text = scalar.text.clone();
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => {
            findings.error(item.span, path, "too many colons in a mount", FORM);
            return Vec::new();
        }
    };
    if source == Some("") || target.is_empty() {
        findings.error(item.span, path, "a part of this mount is empty", FORM);
        return Vec::new();
    }
    let bind = source.is_some_and(|source| source.starts_with(['/', '.', '~']));
    let mut fields = vec![("type", if bind { "bind" } else { "volume" }), ("target", target)];
    fields.extend(source.map(|source| ("source", source)));
    let (mut of_bind, mut of_volume) = (vec![("create_host_path", "true")], Vec::new());
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "rw" => {}
            "ro" => fields.push(("read_only", "true")),
            "z" | "Z" if bind => of_bind.push(("selinux", option)),
            "z" | "Z" => findings.warn(item.span, path, UNLABELLED.0, UNLABELLED.1),
            "shared" | "slave" | "private" | "rshared" | "rslave" | "rprivate" if bind => {
                of_bind.push(("propagation", option));
            }
            "nocopy" if !bind => of_volume.push(("nocopy", "true")),
            "cached" | "consistent" | "delegated" => fields.push(("consistency", option)),
            other => {
                let remedy = "options are ro, rw, z, Z; for paths [r]shared, [r]slave, [r]private; \
                              for volumes nocopy";
                findings.error(item.span, path, format!("`{other}` is not a mount option"), remedy);
            }
        }
    }
    let mut node = fields_here(&item, &fields);
    let (key, nested) = if bind { ("bind", of_bind) } else { ("volume", of_volume) };
    if let Value::Mapping(map) = &mut node.value
        && !nested.is_empty()
    {
        let nested = fields_here(&item, &nested);
        map.insert(key.to_owned(), Entry { key: item.span, node: nested });
    }
    vec![node]
}

pub(super) fn expand_device(item: Node, path: &str, findings: &mut Findings) -> Vec<Node> {
    let Some(scalar) = item.as_scalar().filter(|scalar| !scalar.is_null()) else {
        return vec![item];
    };
    let parts: Vec<&str> = scalar.text.split(':').collect();
    let fields = match parts.as_slice() {
        [source] => vec![("source", *source)],
        [source, target] => vec![("source", *source), ("target", *target)],
        [source, target, access] => {
            vec![("source", *source), ("target", *target), ("permissions", *access)]
        }
        _ => {
            let remedy = "write `HOST[:CONTAINER[:rwm]]`, as in `/dev/ttyUSB0:/dev/ttyUSB0:rw`";
            findings.error(item.span, path, "too many colons in a device", remedy);
            return Vec::new();
        }
    };
    vec![fields_here(&item, &fields)]
}

fn fields_here(item: &Node, fields: &[(&str, &str)]) -> Node {
    let entry = |(key, text): &(&str, &str)| {
        ((*key).to_owned(), Entry { key: item.span, node: item.text_here(*text) })
    };
    let map = fields.iter().map(entry).collect();
    Node { span: item.span, tag: item.tag, value: Value::Mapping(map) }
}
