//! `["name:address", "name=address"]` and `{name: address}` to `{name: [address, …]}`.

use crate::findings::Findings;
use crate::yaml::{Entry, Map, Node, Tag, Value};

pub(super) fn expand(node: &mut Node, path: &str, findings: &mut Findings) {
    match &mut node.value {
        Value::Mapping(map) => {
            for entry in map.values_mut() {
                super::into_list(&mut entry.node);
            }
        }
        Value::Sequence(items) => {
            let mut map = Map::new();
            for (index, item) in items.iter().enumerate() {
                let split = item.as_scalar().and_then(|scalar| scalar.text.split_once(['=', ':']));
                let Some((name, address)) = split.filter(|(name, _)| !name.is_empty()) else {
                    let remedy = "write `- name=address`, as in `- db=10.0.0.5`";
                    findings.error(
                        item.span,
                        &format!("{path}[{index}]"),
                        "must be `name=address`",
                        remedy,
                    );
                    continue;
                };
                let address = item.text_here(address);
                let empty =
                    Node { span: item.span, tag: Tag::None, value: Value::Sequence(Vec::new()) };
                let entry =
                    map.entry(name.to_owned()).or_insert(Entry { key: item.span, node: empty });
                if let Value::Sequence(addresses) = &mut entry.node.value {
                    addresses.push(address);
                }
            }
            node.value = Value::Mapping(map);
        }
        Value::Scalar(_) => {}
    }
}
