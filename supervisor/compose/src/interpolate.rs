//! Variables in values: the operators of the Compose Specification, 12-interpolation.md.
//!
//! ```text
//! $NAME  ${NAME}      the value, or nothing (with a warning) when it is not set
//! ${NAME:-default}    default when not set or empty      ${NAME-default}   when not set
//! ${NAME:?message}    error when not set or empty        ${NAME?message}   when not set
//! ${NAME:+other}      other when set and not empty       ${NAME+other}     when set
//! $$                  a dollar sign
//! ```
//! `default`, `message` and `other` may hold variables again. A template is parsed whole before
//! anything is filled in, so a mistake in a branch that is not taken is found as well.

use crate::limits;
use crate::source::Variables;

/// What is wrong with a template, and at which of its dollar signs (from 0).
///
/// A place in the value would not do: quotes and escapes move characters, dollar signs stay.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) dollar: usize,
    pub(crate) message: String,
    pub(crate) remedy: String,
}

/// A filled template.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Filled {
    pub(crate) text: String,
    /// Variables without a value and without a default, and at which dollar sign.
    pub(crate) missing: Vec<(String, usize)>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Variable { name: String, dollar: usize, operator: Option<Operator> },
}

#[derive(Debug)]
struct Operator {
    kind: Kind,
    /// With a colon: an empty value counts as not set.
    empty_is_unset: bool,
    word: Vec<Part>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Default,
    Require,
    Replace,
}

/// Fills in the variables of a template.
pub(crate) fn fill(template: &str, variables: &Variables) -> Result<Filled, Fault> {
    let mut parser = Template { rest: template, dollars: 0, depth: 0 };
    let parts = parser.parts()?;
    let mut filled = Filled::default();
    evaluate(&parts, variables, &mut filled)?;
    Ok(filled)
}

struct Template<'a> {
    rest: &'a str,
    dollars: usize,
    depth: usize,
}

impl Template<'_> {
    /// Reads up to the end of the text, or inside braces up to the closing one.
    fn parts(&mut self) -> Result<Vec<Part>, Fault> {
        let mut parts = Vec::new();
        loop {
            let stop = |c| c == '$' || (c == '}' && self.depth > 0);
            let end = self.rest.find(stop).unwrap_or(self.rest.len());
            if end > 0 {
                parts.push(Part::Text(self.rest[..end].to_owned()));
            }
            self.rest = &self.rest[end..];
            if !self.rest.starts_with('$') {
                return Ok(parts);
            }
            self.rest = &self.rest[1..];
            let dollar = self.dollars;
            self.dollars += 1;
            if let Some(rest) = self.rest.strip_prefix('$') {
                self.rest = rest;
                self.dollars += 1;
                parts.push(Part::Text("$".to_owned()));
            } else if let Some(rest) = self.rest.strip_prefix('{') {
                self.rest = rest;
                parts.push(self.braces(dollar)?);
            } else {
                let name = self.name(dollar)?;
                parts.push(Part::Variable { name, dollar, operator: None });
            }
        }
    }

    fn name(&mut self, dollar: usize) -> Result<String, Fault> {
        let other = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
        let end = self.rest.find(other).unwrap_or(self.rest.len());
        if end == 0 || self.rest.starts_with(|c: char| c.is_ascii_digit()) {
            let found = self.rest.chars().next().map_or("nothing".into(), |c| format!("`{c}`"));
            return Err(Fault {
                dollar,
                message: format!("`$` begins a variable, but {found} follows"),
                remedy: "write `$$` for a dollar sign, or `${NAME}` for a variable".into(),
            });
        }
        let name = self.rest[..end].to_owned();
        self.rest = &self.rest[end..];
        Ok(name)
    }

    fn braces(&mut self, dollar: usize) -> Result<Part, Fault> {
        self.depth += 1;
        if self.depth > limits::INTERPOLATION_DEPTH {
            return Err(Fault {
                dollar,
                message: format!("variables nest more than {} deep", limits::INTERPOLATION_DEPTH),
                remedy: "set the variable in `.env` instead".into(),
            });
        }
        let name = self.name(dollar)?;
        let operator = self.operator(&name, dollar)?;
        let Some(rest) = self.rest.strip_prefix('}') else {
            return Err(Fault {
                dollar,
                message: format!("`${{{name}` is not closed"),
                remedy: "end it with `}`".into(),
            });
        };
        self.rest = rest;
        self.depth -= 1;
        Ok(Part::Variable { name, dollar, operator })
    }

    fn operator(&mut self, name: &str, dollar: usize) -> Result<Option<Operator>, Fault> {
        let empty_is_unset = self.rest.starts_with(':');
        let symbol = &self.rest[usize::from(empty_is_unset)..];
        let kind = match symbol.chars().next() {
            Some('-') => Kind::Default,
            Some('?') => Kind::Require,
            Some('+') => Kind::Replace,
            Some('}') | None if !empty_is_unset => return Ok(None),
            _ => {
                let bad: String = self.rest.chars().take(2).collect();
                return Err(Fault {
                    dollar,
                    message: format!("`{bad}` is not an operator, in `${{{name}{bad}`"),
                    remedy: "`:-` `-` (default), `:?` `?` (required), `:+` `+` (replace)".into(),
                });
            }
        };
        self.rest = &symbol[1..];
        let word = self.parts()?;
        Ok(Some(Operator { kind, empty_is_unset, word }))
    }
}

fn evaluate(parts: &[Part], variables: &Variables, out: &mut Filled) -> Result<(), Fault> {
    for part in parts {
        if out.text.len() > limits::TEXT_BYTES {
            return Err(Fault {
                dollar: 0,
                message: format!("the value grows beyond {} bytes", limits::TEXT_BYTES),
                remedy: "use fewer or shorter variables".into(),
            });
        }
        match part {
            Part::Text(text) => out.text.push_str(text),
            Part::Variable { name, dollar, operator } => {
                let value = variables.get(name).map(String::as_str);
                match operator {
                    None => match value {
                        Some(value) => out.text.push_str(value),
                        None => out.missing.push((name.clone(), *dollar)),
                    },
                    Some(operator) => operator.apply(name, *dollar, value, variables, out)?,
                }
            }
        }
    }
    Ok(())
}

impl Operator {
    fn apply(
        &self,
        name: &str,
        dollar: usize,
        value: Option<&str>,
        variables: &Variables,
        out: &mut Filled,
    ) -> Result<(), Fault> {
        let value = value.filter(|value| !(self.empty_is_unset && value.is_empty()));
        match (self.kind, value) {
            (Kind::Default | Kind::Require, Some(value)) => out.text.push_str(value),
            (Kind::Replace, None) => {}
            (Kind::Default, None) | (Kind::Replace, Some(_)) => {
                evaluate(&self.word, variables, out)?;
            }
            (Kind::Require, None) => {
                let mut said = Filled::default();
                evaluate(&self.word, variables, &mut said)?;
                let state = if self.empty_is_unset { "not set, or empty" } else { "not set" };
                let why =
                    if said.text.is_empty() { String::new() } else { format!(": {}", said.text) };
                return Err(Fault {
                    dollar,
                    message: format!("the required variable `{name}` is {state}{why}"),
                    remedy: format!("set `{name}` in the environment or in the `.env` file"),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        [("SET", "value"), ("EMPTY", ""), ("A", "a")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    fn text(template: &str) -> String {
        fill(template, &variables()).unwrap().text
    }

    #[test]
    fn every_operator_in_every_state() {
        let cases = [
            ("$SET ${SET}x", "value valuex"),
            ("${SET:-d} ${EMPTY:-d} ${NONE:-d}", "value d d"),
            ("${SET-d} ${EMPTY-d} ${NONE-d}", "value  d"),
            ("${SET:+o} ${EMPTY:+o} ${NONE:+o}", "o  "),
            ("${SET+o} ${EMPTY+o} ${NONE+o}", "o o "),
            ("${SET:?e} ${SET?e} ${EMPTY?e}", "value value "),
            ("$$SET $${SET} $$$SET", "$SET ${SET} $value"),
            ("${NONE:-${EMPTY:-${A}}}b", "ab"),
            ("${NONE:-$A}", "a"),
            ("${NONE:-http://x:80/?q={1}", "http://x:80/?q={1"),
            ("${NONE-}", ""),
            ("no variables } {", "no variables } {"),
        ];
        for (template, expected) in cases {
            assert_eq!(text(template), expected, "{template}");
        }
    }

    #[test]
    fn a_missing_variable_is_reported_with_its_dollar_sign() {
        let filled = fill("$$ $NONE ${SET}", &variables()).unwrap();
        assert_eq!(filled, Filled { text: "$  value".into(), missing: vec![("NONE".into(), 2)] });
        assert!(fill("${SET:-$NONE}", &variables()).unwrap().missing.is_empty());
    }

    #[test]
    fn a_required_variable_says_why() {
        let error = |template| fill(template, &variables()).unwrap_err().message;
        assert_eq!(error("${NONE?need $A}"), "the required variable `NONE` is not set: need a");
        assert_eq!(error("${EMPTY:?}"), "the required variable `EMPTY` is not set, or empty");
    }

    #[test]
    fn mistakes_are_found_also_where_they_are_not_used() {
        let fault = |template: &str| fill(template, &variables()).unwrap_err();
        assert_eq!(fault("$A ${SET:-$}").dollar, 2);
        assert!(fault("${SET").message.contains("not closed"));
        assert!(fault("${SET/a/b}").message.contains("`/a` is not an operator"));
        assert!(fault("${SET:}").message.contains("not an operator"));
        assert!(fault("${}").message.contains("follows"));
        assert!(fault("cost: 5$").message.contains("nothing follows"));
        assert!(fault("$1").message.contains("`1` follows"));
        assert!(fault(&"${A:-".repeat(1000)).message.contains("nest"));
    }
}
