//! The part of Go's templates that people use with `--format`: fields, `table`, `json`.
//!
//! ```text
//!   {{.Name}} is {{.CurrentState}}         a line for each row
//!   table {{.Name}}\t{{.Error}}            columns under a heading
//!   {{json .}}   {{json .Name}}            JSON
//!   {{upper .Name}}   {{lower .Name}}      other letters
//! ```
//!
//! Everything else of the language is refused by name.

use std::fmt::Write;

use serde_json::{Map, Value};

/// A template that has been understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Template {
    /// Whether it makes columns under a heading.
    pub(crate) is_table: bool,
    parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Text(String),
    /// A field, and what is done with it. The row as a whole has no name.
    Field {
        name: Option<String>,
        function: Function,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Function {
    Plain,
    Json,
    Upper,
    Lower,
}

impl Template {
    /// Understands a template over rows with these fields.
    ///
    /// # Errors
    /// What is wrong, and which fields there are.
    pub(crate) fn parse(text: &str, fields: &[&str]) -> Result<Template, String> {
        let is_table = text == "table" || text.starts_with("table ");
        let body = text.strip_prefix("table").filter(|_| is_table).unwrap_or(text).trim_start();
        let body = body.replace("\\t", "\t").replace("\\n", "\n");
        let mut parts = Vec::new();
        let mut rest = body.as_str();
        while let Some(begin) = rest.find("{{") {
            let (before, after) = rest.split_at(begin);
            if !before.is_empty() {
                parts.push(Part::Text(before.to_string()));
            }
            let end = after.find("}}").ok_or_else(|| format!("{after:?} has no closing }}}}"))?;
            parts.push(action(&after[2..end], fields)?);
            rest = &after[end + 2..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_string()));
        }
        Ok(Template { is_table, parts })
    }

    /// One row.
    pub(crate) fn row(&self, row: &Map<String, Value>) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Field { name: None, .. } => {
                    let _ = write!(out, "{}", Value::Object(row.clone()));
                }
                Part::Field { name: Some(name), function } => {
                    let value = row.get(name).cloned().unwrap_or_default();
                    let plain = match &value {
                        Value::String(text) => text.clone(),
                        other => other.to_string(),
                    };
                    match function {
                        Function::Plain => out.push_str(&plain),
                        Function::Json => out.push_str(&value.to_string()),
                        Function::Upper => out.push_str(&plain.to_uppercase()),
                        Function::Lower => out.push_str(&plain.to_lowercase()),
                    }
                }
            }
        }
        out
    }

    /// The heading of a table: its fields as words.
    pub(crate) fn heading(&self) -> String {
        let word = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Field { name, .. } => heading_of(name.as_deref().unwrap_or_default()),
        };
        self.parts.iter().map(word).collect()
    }
}

/// `CurrentState` as `CURRENT STATE`, and `ID` as it is.
pub(crate) fn heading_of(field: &str) -> String {
    let mut words = String::new();
    let mut before_is_lower = false;
    for letter in field.chars() {
        if letter.is_uppercase() && before_is_lower {
            words.push(' ');
        }
        before_is_lower = letter.is_lowercase();
        words.extend(letter.to_uppercase());
    }
    words
}

fn action(text: &str, fields: &[&str]) -> Result<Part, String> {
    let words: Vec<&str> = text.trim_matches('-').split_whitespace().collect();
    let (function, field) = match words.as_slice() {
        [field] => (Function::Plain, *field),
        ["json", field] => (Function::Json, *field),
        ["upper", field] => (Function::Upper, *field),
        ["lower", field] => (Function::Lower, *field),
        _ => {
            return Err(format!(
                "{{{{{text}}}}} is not understood; there is {{{{.Field}}}} and json, upper, lower"
            ));
        }
    };
    let name = field.strip_prefix('.').ok_or_else(|| format!("{field}: a field begins with ."))?;
    match (name, function) {
        ("", Function::Json) => Ok(Part::Field { name: None, function }),
        (name, _) if fields.contains(&name) => {
            Ok(Part::Field { name: Some(name.to_string()), function })
        }
        (name, _) => Err(format!("there is no field {name:?}; there are {}", fields.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [&str; 2] = ["Name", "CurrentState"];

    fn row() -> Map<String, Value> {
        let row = serde_json::json!({"Name": "web.1", "CurrentState": "Running"});
        row.as_object().unwrap().clone()
    }

    fn made(text: &str) -> String {
        Template::parse(text, &FIELDS).unwrap().row(&row())
    }

    #[test]
    fn fields_and_functions_are_filled_in() {
        assert_eq!(made("{{.Name}} is {{ upper .CurrentState }}!"), "web.1 is RUNNING!");
        assert_eq!(made(r"{{json .Name}}\t{{lower .CurrentState}}"), "\"web.1\"\trunning");
        assert_eq!(made("{{json .}}"), r#"{"CurrentState":"Running","Name":"web.1"}"#);
    }

    #[test]
    fn a_table_has_a_heading() {
        let table = Template::parse(r"table {{.Name}}\t{{.CurrentState}}", &FIELDS).unwrap();
        assert!(table.is_table);
        assert_eq!(table.heading(), "NAME\tCURRENT STATE");
        assert_eq!(heading_of("ID"), "ID");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in ["{{.Nme}}", "{{range .}}", "{{.Name", "{{Name}}", "{{if .Name}}x{{end}}"] {
            assert!(Template::parse(bad, &FIELDS).is_err(), "{bad}");
        }
    }
}
