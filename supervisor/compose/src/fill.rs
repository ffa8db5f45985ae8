//! Filling the variables into the values of one file; keys are left alone (12-interpolation.md).

use crate::findings::Findings;
use crate::interpolate;
use crate::limits;
use crate::source::Span;
use crate::yaml::{Node, Style, Value};

/// Replaces every value by its filled text, with the variables of its source.
pub(crate) fn fill(node: &mut Node, path: &str, findings: &mut Findings) {
    let mut bytes = 0;
    fill_node(node, path, &mut bytes, findings);
}

fn fill_node(node: &mut Node, path: &str, bytes: &mut usize, findings: &mut Findings) {
    match &mut node.value {
        Value::Sequence(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                fill_node(item, &format!("{path}[{index}]"), bytes, findings);
            }
        }
        Value::Mapping(map) => {
            for (key, entry) in map.iter_mut() {
                let dot = if path.is_empty() { "" } else { "." };
                fill_node(&mut entry.node, &format!("{path}{dot}{key}"), bytes, findings);
            }
        }
        Value::Scalar(scalar) if scalar.text.contains('$') => {
            let variables = findings.sources.get(node.span.file).variables.clone();
            match interpolate::fill(&scalar.text, &variables) {
                Ok(filled) => {
                    *bytes += filled.text.len();
                    if *bytes > limits::TEXT_BYTES {
                        let message =
                            format!("variables fill in more than {} bytes", limits::TEXT_BYTES);
                        findings.error(node.span, path, message, "use fewer or shorter variables");
                        scalar.text.clear();
                        return;
                    }
                    if scalar.style == Style::Plain {
                        scalar.style = Style::Interpolated;
                    }
                    scalar.text = filled.text;
                    for (name, dollar) in filled.missing {
                        if !findings.has_room_for_warnings() {
                            break;
                        }
                        let span = at_dollar(findings, node.span, dollar);
                        let message =
                            format!("the variable `{name}` is not set; nothing is filled in");
                        let remedy =
                            format!("set it, in `.env` or else, or write `${{{name}:-default}}`");
                        findings.warn(span, path, message, remedy);
                    }
                }
                Err(fault) => {
                    let span = at_dollar(findings, node.span, fault.dollar);
                    findings.error(span, path, fault.message, fault.remedy);
                }
            }
        }
        Value::Scalar(_) => {}
    }
}

/// The place of the n-th dollar sign of a value: they are the same in the value and in its source,
/// however it is quoted, folded or indented.
fn at_dollar(findings: &Findings, span: Span, dollar: usize) -> Span {
    let source = findings.sources.get(span.file);
    let mut seen = 0;
    for (index, line) in source.text.lines().enumerate().skip(span.line as usize - 1) {
        let first = index + 1 == span.line as usize;
        let skip = if first { span.column as usize - 1 } else { 0 };
        for (column, c) in line.chars().enumerate().skip(skip) {
            if c != '$' {
                continue;
            }
            if seen == dollar {
                let number = |n: usize| u32::try_from(n + 1).unwrap_or(u32::MAX);
                return Span { line: number(index), column: number(column), width: 1, ..span };
            }
            seen += 1;
        }
    }
    span
}
