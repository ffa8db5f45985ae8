//! Variables in instructions: `$NAME`, `${NAME}`, `${NAME:-word}`, `${NAME:+word}`; `\$` is a
//! dollar sign (Dockerfile reference, "Environment replacement").

use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Replaces variables. One that is not set is empty.
///
/// # Errors
/// When a brace is not closed, or holds something else.
pub fn expand(text: &str, variables: &BTreeMap<String, String>) -> Result<String> {
    let mut output = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['$', '\\']) {
        output.push_str(&rest[..at]);
        let special = rest.as_bytes()[at];
        rest = &rest[at + 1..];
        if special == b'\\' {
            match rest.strip_prefix('$') {
                Some(after) => {
                    output.push('$');
                    rest = after;
                }
                None => output.push('\\'),
            }
        } else if let Some(inside) = rest.strip_prefix('{') {
            let end = inside
                .find('}')
                .ok_or_else(|| Error::Invalid(format!("`{text}`: a `{{` is not closed")))?;
            output.push_str(&braced(&inside[..end], variables)?);
            rest = &inside[end + 1..];
        } else {
            let length =
                rest.bytes().take_while(|&b| b.is_ascii_alphanumeric() || b == b'_').count();
            match length {
                0 => output.push('$'),
                _ => output.push_str(variables.get(&rest[..length]).map_or("", String::as_str)),
            }
            rest = &rest[length..];
        }
    }
    output.push_str(rest);
    Ok(output)
}

fn braced(inside: &str, variables: &BTreeMap<String, String>) -> Result<String> {
    let length = inside.bytes().take_while(|&b| b.is_ascii_alphanumeric() || b == b'_').count();
    let (name, operator) = inside.split_at(length);
    let value = variables.get(name).filter(|value| !value.is_empty());
    match (operator, operator.get(2..)) {
        _ if name.is_empty() => {}
        ("", _) => return Ok(value.cloned().unwrap_or_default()),
        (_, Some(word)) if operator.starts_with(":-") => {
            return Ok(value.cloned().unwrap_or_else(|| word.into()));
        }
        (_, Some(word)) if operator.starts_with(":+") => {
            return Ok(value.map(|_| word.into()).unwrap_or_default());
        }
        _ => {}
    }
    Err(Error::Unsupported(format!(
        "`${{{inside}}}`: there is ${{NAME}}, ${{NAME:-word}}, ${{NAME:+word}}"
    )))
}

/// Splits at blanks, but not in quotes; the quotes go.
///
/// # Errors
/// When a quote is not closed.
pub fn split(text: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            (_, Some(open)) if letter == open => quote = None,
            ('\\', None | Some('"')) => {
                // The dollar keeps its backslash, for `expand` comes later.
                let next = letters.next().unwrap_or('\\');
                let word = word.get_or_insert_default();
                if next == '$' {
                    word.push('\\');
                }
                word.push(next);
            }
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (_, None) if letter.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err(Error::Invalid(format!("`{text}`: a quote is not closed")));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced() {
        let variables = BTreeMap::from([("A".into(), "1".into()), ("E".into(), String::new())]);
        for (text, expected) in [
            ("x$A-$B.", "x1-."),
            ("${A}b", "1b"),
            ("${B:-c}${A:-c}${E:-d}", "c1d"),
            ("${A:+y}${B:+y}", "y"),
            (r"\$A \n $", r"$A \n $"),
        ] {
            assert_eq!(expand(text, &variables).unwrap(), expected, "{text}");
        }
        assert!(expand("${A", &variables).is_err());
        assert!(expand("${A#x}", &variables).is_err());
        assert!(expand("${}", &variables).is_err());
    }

    #[test]
    fn words_are_split_as_by_a_shell() {
        assert_eq!(split(r#"a "b c" d\ e 'f"g' """#).unwrap(), ["a", "b c", "d e", "f\"g", ""]);
        assert!(split("\"a").is_err());
    }
}
