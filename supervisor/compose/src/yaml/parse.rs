//! Parser events to the tree: anchors and merge keys are resolved here, within limits.
//!
//! An alias is a copy of what its anchor holds. A few lines can so name millions of values
//! ("billion laughs"); the size of every anchored value is known before it is copied, and the sum
//! has a limit.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span as YamlSpan};

use super::node::{Entry, Map, Node, Scalar, Style, Tag, Value};
use crate::limits;
use crate::source::{FileId, Span};

/// Why a text is not YAML that Compose accepts.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) span: Span,
    pub(crate) message: String,
    pub(crate) remedy: String,
}

/// Reads the documents of a file, usually one.
pub(crate) fn parse(file: FileId, text: &str) -> Result<Vec<Node>, Fault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder::new(file);
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let mark = error.marker();
            let span = YamlSpan::empty(*mark);
            let line = text.lines().nth(mark.line().saturating_sub(1)).unwrap_or("");
            let remedy = if line.contains("${") { VARIABLE_REMEDY } else { REMEDY };
            fault(builder.span(&span), format!("not valid YAML: {}", error.info()), remedy)
        })?;
        builder.event(event, &span)?;
    }
    Ok(builder.documents)
}

const VARIABLE_REMEDY: &str = "inside `{…}` and `[…]` a variable needs quotes: \"${NAME}\"";

const REMEDY: &str = "check the indentation, the quotes and the colons on this line and before it";

fn fault(span: Span, message: impl Into<String>, remedy: impl Into<String>) -> Fault {
    Fault { span, message: message.into(), remedy: remedy.into() }
}

/// What copying a value costs.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    nodes: usize,
    bytes: usize,
    height: usize,
}

/// A mapping or sequence that is not yet complete.
struct Open {
    span: Span,
    tag: Tag,
    anchor: usize,
    items: Vec<Node>,
    map: Option<OpenMap>,
    size: Size,
}

/// A mapping that is not yet complete.
#[derive(Default)]
struct OpenMap {
    complete: Map,
    /// The key that waits for its value.
    waiting: Option<(String, Span)>,
    /// The values of `<<`.
    merges: Vec<Node>,
}

struct Builder {
    file: FileId,
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: BTreeMap<usize, (Node, Size)>,
    total: Size,
}

impl Builder {
    fn new(file: FileId) -> Self {
        Self {
            file,
            documents: Vec::new(),
            open: Vec::new(),
            anchors: BTreeMap::new(),
            total: Size::default(),
        }
    }

    fn span(&self, span: &YamlSpan) -> Span {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let one_line = span.start.line() == span.end.line();
        let end = if one_line { span.end.col() } else { usize::MAX };
        Span {
            file: self.file,
            line: number(span.start.line().max(1)),
            column: number(span.start.col()).saturating_add(1),
            width: number(end.saturating_sub(span.start.col()).max(1)),
        }
    }

    fn event(&mut self, event: Event<'_>, span: &YamlSpan) -> Result<(), Fault> {
        let span = self.span(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let (tag, quoted) = read_tag(tag.as_deref(), span)?;
                let plain = style == ScalarStyle::Plain && !quoted;
                let style = if plain { Style::Plain } else { Style::Quoted };
                let size = Size { nodes: 1, bytes: text.len(), height: 0 };
                let value = Value::Scalar(Scalar { text: text.into_owned(), style });
                self.spend(size, span)?;
                self.complete(Node { span, tag, value }, anchor, size)
            }
            Event::SequenceStart(anchor, tag) => {
                let (tag, _) = read_tag(tag.as_deref(), span)?;
                self.begin(Open {
                    span,
                    tag,
                    anchor,
                    items: Vec::new(),
                    map: None,
                    size: Size::default(),
                })
            }
            Event::MappingStart(anchor, tag) => {
                let (tag, _) = read_tag(tag.as_deref(), span)?;
                let map = Some(OpenMap::default());
                self.begin(Open {
                    span,
                    tag,
                    anchor,
                    items: Vec::new(),
                    map,
                    size: Size::default(),
                })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(id) => self.alias(id, span),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn spend(&mut self, size: Size, span: Span) -> Result<(), Fault> {
        self.total.nodes = self.total.nodes.saturating_add(size.nodes);
        self.total.bytes = self.total.bytes.saturating_add(size.bytes);
        if self.total.nodes > limits::NODES {
            let message = format!("the file has more than {} values", limits::NODES);
            return Err(fault(span, message, "use fewer aliases, or several files"));
        }
        if self.total.bytes > limits::TEXT_BYTES {
            let message = format!("the file has more than {} bytes of text", limits::TEXT_BYTES);
            return Err(fault(span, message, "use fewer aliases, or name a file instead"));
        }
        if self.open.len() + size.height > limits::DEPTH {
            let message = format!("values are nested more than {} deep", limits::DEPTH);
            return Err(fault(span, message, "no Compose file needs this; flatten it"));
        }
        Ok(())
    }

    fn begin(&mut self, open: Open) -> Result<(), Fault> {
        self.spend(Size { nodes: 1, bytes: 0, height: 1 }, open.span)?;
        self.open.push(open);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let value = match open.map {
            None => Value::Sequence(open.items),
            Some(mut map) => {
                for merge in map.merges {
                    merge_into(&mut map.complete, merge)?;
                }
                Value::Mapping(map.complete)
            }
        };
        let size = Size { nodes: open.size.nodes + 1, height: open.size.height + 1, ..open.size };
        self.complete(Node { span: open.span, tag: open.tag, value }, open.anchor, size)
    }

    fn alias(&mut self, id: usize, span: Span) -> Result<(), Fault> {
        let Some(size) = self.anchors.get(&id).map(|(_, size)| *size) else {
            let message = "this alias stands inside the value that its anchor names";
            return Err(fault(
                span,
                message,
                "an alias copies a complete value; name another anchor",
            ));
        };
        // The copy is made only when it is known to fit.
        self.spend(size, span)?;
        let node = self.anchors[&id].0.clone();
        self.complete(node, 0, size)
    }

    /// Puts a complete value where it belongs: into its parent, or as a document.
    fn complete(&mut self, node: Node, anchor: usize, size: Size) -> Result<(), Fault> {
        if anchor != 0 {
            self.spend(Size { height: 0, ..size }, node.span)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(parent) = self.open.last_mut() else {
            self.documents.push(node);
            self.anchors.clear();
            return Ok(());
        };
        parent.size.nodes += size.nodes;
        parent.size.bytes += size.bytes;
        parent.size.height = parent.size.height.max(size.height);
        match &mut parent.map {
            None => parent.items.push(node),
            Some(map) => match map.waiting.take() {
                None => map.waiting = Some(read_key(&node)?),
                Some((key, _)) if key == "<<" => map.merges.push(node),
                Some((key, span)) => {
                    if let Some(first) = map.complete.get(&key) {
                        let message = format!("`{key}` is already set on line {}", first.key.line);
                        return Err(fault(span, message, "keep one of the two"));
                    }
                    map.complete.insert(key, Entry { key: span, node });
                }
            },
        }
        Ok(())
    }
}

fn read_key(node: &Node) -> Result<(String, Span), Fault> {
    match &node.value {
        Value::Scalar(scalar) if scalar.text.len() > limits::KEY_BYTES => {
            let message = format!("the key is longer than {} bytes", limits::KEY_BYTES);
            Err(fault(node.span, message, "no Compose file needs this; shorten it"))
        }
        Value::Scalar(scalar) => Ok((scalar.text.clone(), node.span)),
        _ => Err(fault(node.span, format!("a key must be a text, not {}", node.kind()), REMEDY)),
    }
}

/// `<<: *base` or `<<: [*a, *b]`: what is written in the mapping wins, then the earlier base.
fn merge_into(map: &mut Map, merge: Node) -> Result<(), Fault> {
    let bases = match merge.value {
        Value::Sequence(items) => items,
        value => vec![Node { value, ..merge }],
    };
    for base in bases {
        let span = base.span;
        let Value::Mapping(entries) = base.value else {
            let message = format!("`<<` merges mappings, and this is {}", base.kind());
            return Err(fault(span, message, "name an anchor of a mapping, or a list of them"));
        };
        for (key, entry) in entries {
            map.entry(key).or_insert(entry);
        }
    }
    Ok(())
}

/// The tag, and whether it makes a plain scalar a text.
fn read_tag(tag: Option<&saphyr_parser::Tag>, span: Span) -> Result<(Tag, bool), Fault> {
    let Some(tag) = tag else { return Ok((Tag::None, false)) };
    if tag.is_yaml_core_schema() {
        return match tag.suffix.as_str() {
            "str" => Ok((Tag::None, true)),
            "int" | "float" | "bool" | "null" | "map" | "seq" | "merge" => Ok((Tag::None, false)),
            other => Err(unknown_tag(&format!("!!{other}"), span)),
        };
    }
    match (tag.handle.as_str(), tag.suffix.as_str()) {
        ("!", "reset") => Ok((Tag::Reset, false)),
        ("!", "override") => Ok((Tag::Override, false)),
        // `! text` is the non-specific tag: it makes a scalar a text.
        ("" | "!", "" | "!") => Ok((Tag::None, true)),
        (handle, suffix) => Err(unknown_tag(&format!("{handle}{suffix}"), span)),
    }
}

fn unknown_tag(tag: &str, span: Span) -> Fault {
    let remedy = "Compose knows `!reset` and `!override`, and YAML's `!!str`, `!!int`, `!!bool`";
    fault(span, format!("unknown tag `{tag}`"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Source, Sources};

    fn read(text: &str) -> Result<Vec<Node>, Fault> {
        let source = Source {
            path: "t.yaml".into(),
            text: text.to_owned(),
            base: "/".into(),
            variables: Default::default(),
        };
        parse(Sources::default().add(source), text)
    }

    fn texts(node: &Node) -> Vec<&str> {
        match &node.value {
            Value::Scalar(scalar) => vec![&scalar.text],
            Value::Sequence(items) => items.iter().flat_map(texts).collect(),
            Value::Mapping(map) => map.values().flat_map(|e| texts(&e.node)).collect(),
        }
    }

    #[test]
    fn values_know_their_line_and_column() {
        let documents = read("a:\n  - x\n  - \"y z\"\n").unwrap();
        let Value::Sequence(items) = &documents[0].get("a").unwrap().value else { panic!() };
        let at = |i: usize| (items[i].span.line, items[i].span.column, items[i].span.width);
        assert_eq!((at(0), at(1)), ((2, 5, 1), (3, 5, 5)));
        assert_eq!(documents[0].as_map().unwrap()["a"].key.line, 1);
    }

    #[test]
    fn merge_keys_give_way_to_what_is_written() {
        let text = "base: &b {a: 1, b: 1}\nmore: &m {b: 2, c: 2}\nx:\n  a: 0\n  <<: [*b, *m]\n";
        let documents = read(text).unwrap();
        assert_eq!(texts(documents[0].get("x").unwrap()), ["0", "1", "2"]);
        assert!(read("a: &a 3\nb: {<<: *a}").unwrap_err().message.contains("merges mappings"));
    }

    #[test]
    fn a_key_given_twice_is_an_error_at_the_second() {
        let fault = read("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!((fault.span.line, fault.message.as_str()), (3, "`a` is already set on line 1"));
    }

    #[test]
    fn an_alias_bomb_ends_in_an_error() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let list = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{list}]\n"));
        }
        assert!(read(&text).unwrap_err().message.contains("more than 100000 values"));
        let long = "x".repeat(1000);
        let aliases = vec!["*a"; 20_000].join(",");
        let fault = read(&format!("a: &a {long}\nb: [{aliases}]\n")).unwrap_err();
        assert!(fault.message.contains("bytes of text"), "{}", fault.message);
    }

    #[test]
    fn depth_is_limited_also_through_aliases() {
        assert!(read(&"[".repeat(10_000)).is_err());
        let block: String = (0..100).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
        assert!(read(&block).unwrap_err().message.contains("64 deep"));
        let mut text = String::from("a0: &a0 [x]\n");
        for level in 1..80 {
            text.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
        }
        assert!(read(&text).unwrap_err().message.contains("64 deep"));
        assert!(read("a: &a [*a]").unwrap_err().message.contains("inside the value"));
    }

    #[test]
    fn tags_of_others_are_refused() {
        assert_eq!(read("a: !reset []").unwrap()[0].get("a").unwrap().tag, Tag::Reset);
        assert_eq!(read("a: !override x").unwrap()[0].get("a").unwrap().tag, Tag::Override);
        let text = read("a: !!str 1").unwrap();
        assert_eq!(text[0].get("a").unwrap().as_scalar().unwrap().style, Style::Quoted);
        assert!(read("a: !vault x").unwrap_err().message.contains("`!vault`"));
    }
}
