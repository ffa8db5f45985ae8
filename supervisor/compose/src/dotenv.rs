//! Files of variables: `.env`, `env_file` and `label_file`.
//!
//! ```text
//! # a comment            KEY=value            KEY=value # a comment needs a space before it
//! export KEY=value       KEY="a\tb $A"        KEY='literal $A'
//! KEY: value             KEY=                 KEY   (takes the value of the environment)
//! ```
//! Values in no or double quotes may hold variables: those of the environment, and those defined
//! before in the file. Values in quotes may go over several lines.

use crate::interpolate;
use crate::limits;
use crate::source::Variables;

/// How the lines of a file are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Quotes, comments and variables, as above.
    Compose,
    /// Everything after `=` is the value (`format: raw`).
    Raw,
}

/// What is wrong, and where in the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) message: String,
    pub(crate) remedy: String,
}

/// What a file defines, in its order; `None` is a key without a value.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Defined {
    pub(crate) pairs: Vec<(String, Option<String>)>,
    /// Variables without a value, and their line.
    pub(crate) missing: Vec<(String, u32)>,
}

/// Reads a file of variables.
pub(crate) fn parse(text: &str, format: Format, environment: &Variables) -> Result<Defined, Fault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader {
        text,
        at: 0,
        known: environment.clone(),
        environment,
        defined: Defined::default(),
        lines: 0,
        counted: 0,
        bytes: 0,
    };
    while reader.at < text.len() {
        reader.line(format)?;
    }
    Ok(reader.defined)
}

struct Reader<'a> {
    text: &'a str,
    /// Byte offset of what is not yet read.
    at: usize,
    /// The environment and what the file has defined so far; the environment wins.
    known: Variables,
    environment: &'a Variables,
    defined: Defined,
    /// How many lines end before `counted`, so that no line is counted twice.
    lines: u32,
    counted: usize,
    /// Bytes of all values: lines that double each other must not fill the memory.
    bytes: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    /// The rest of the current line, without its end.
    fn rest_of_line(&self) -> &str {
        self.rest().split('\n').next().unwrap_or("").trim_end_matches('\r')
    }

    fn next_line(&mut self) {
        self.at += self.rest().find('\n').map_or(self.rest().len(), |end| end + 1);
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t']).len();
    }

    /// The line of a place that is not before those asked for earlier.
    fn line_number(&mut self, at: usize) -> u32 {
        let lines = self.text[self.counted..at].matches('\n').count();
        self.counted = at;
        self.lines = self.lines.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        self.lines.saturating_add(1)
    }

    fn fault(&self, at: usize, message: impl Into<String>, remedy: &str) -> Fault {
        let before = &self.text[..at];
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        let column = u32::try_from(before[start..].chars().count()).unwrap_or(u32::MAX);
        let line = before.matches('\n').count();
        Fault {
            line: u32::try_from(line).unwrap_or(u32::MAX).saturating_add(1),
            column: column.saturating_add(1),
            message: message.into(),
            remedy: remedy.to_owned(),
        }
    }

    fn line(&mut self, format: Format) -> Result<(), Fault> {
        self.skip_blanks();
        if self.rest_of_line().is_empty() || self.rest().starts_with('#') {
            self.next_line();
            return Ok(());
        }
        if let Some(after) = self.rest_of_line().strip_prefix("export ") {
            self.at += self.rest_of_line().len() - after.len();
            self.skip_blanks();
        }
        let start = self.at;
        let line = self.rest_of_line().to_owned();
        let separators: &[char] = if format == Format::Raw { &['='] } else { &['=', ':'] };
        let end = line.find(separators).unwrap_or(line.len());
        let name = line[..end].trim_end().to_owned();
        let bad =
            |c: char| c.is_whitespace() || c == '#' || c == '"' || c == '\'' || c.is_control();
        if name.is_empty() || name.contains(bad) {
            let remedy = "write `NAME=value`, and `#` before a comment";
            return Err(self.fault(start, format!("`{name}` is not a name"), remedy));
        }
        if end == line.len() {
            self.next_line();
            self.defined.pairs.push((name, None));
            return Ok(());
        }
        self.at = start + end + 1;
        let value = match format {
            Format::Raw => {
                let value = self.rest_of_line().to_owned();
                self.next_line();
                value
            }
            Format::Compose => self.value()?,
        };
        self.bytes += value.len();
        if self.bytes > limits::TEXT_BYTES {
            let message = format!("the values grow beyond {} bytes", limits::TEXT_BYTES);
            return Err(self.fault(start, message, "use fewer or shorter variables"));
        }
        if !self.environment.contains_key(&name) {
            self.known.insert(name.clone(), value.clone());
        }
        self.defined.pairs.push((name, Some(value)));
        Ok(())
    }

    fn value(&mut self) -> Result<String, Fault> {
        self.skip_blanks();
        let start = self.at;
        match self.rest().chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let value = self.quoted(quote)?;
                let after = self.rest_of_line().trim_start();
                if !(after.is_empty() || after.starts_with('#')) {
                    let remedy = "put all of the value into the quotes, or nothing of it";
                    return Err(self.fault(
                        self.at,
                        format!("`{after}` follows a closed quote"),
                        remedy,
                    ));
                }
                self.next_line();
                if quote == '"' { self.fill(&value, start) } else { Ok(value) }
            }
            _ => {
                let line = self.rest_of_line();
                let comment =
                    |(at, _): &(usize, &str)| *at == 0 || line[..*at].ends_with([' ', '\t']);
                let end = line.match_indices('#').find(comment).map_or(line.len(), |(at, _)| at);
                let value = line[..end].trim_end().to_owned();
                self.next_line();
                self.fill(&value, start)
            }
        }
    }

    /// Reads up to the closing quote; knows `\'` in single quotes and `\n \r \t \" \\ \$` in
    /// double ones.
    fn quoted(&mut self, quote: char) -> Result<String, Fault> {
        let start = self.at;
        let mut out = String::new();
        let mut chars = self.rest()[1..].char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.at = start + 1 + at + 1;
                    return Ok(out);
                }
                '\\' => match (quote, chars.next().map(|(_, c)| c)) {
                    (_, Some(c)) if c == quote => out.push(c),
                    ('"', Some('n')) => out.push('\n'),
                    ('"', Some('r')) => out.push('\r'),
                    ('"', Some('t')) => out.push('\t'),
                    ('"', Some('\\')) => out.push('\\'),
                    // Kept for the variables, for which `$$` is a dollar sign.
                    ('"', Some('$')) => out.push_str("$$"),
                    (_, Some(c)) => out.extend(['\\', c]),
                    (_, None) => out.push('\\'),
                },
                c => out.push(c),
            }
        }
        Err(self.fault(start, "this quote is not closed", "end the value with the same quote"))
    }

    fn fill(&mut self, value: &str, start: usize) -> Result<String, Fault> {
        if !value.contains('$') {
            return Ok(value.to_owned());
        }
        let filled = interpolate::fill(value, &self.known).map_err(|fault| {
            let dollar = self.text[start..].match_indices('$').nth(fault.dollar);
            let at = start + dollar.map_or(0, |(at, _)| at);
            self.fault(at, fault.message, &format!("{}; or use single quotes", fault.remedy))
        })?;
        let line = self.line_number(start);
        self.defined.missing.extend(filled.missing.into_iter().map(|(name, _)| (name, line)));
        Ok(filled.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Defined, Fault> {
        let environment = [("HOME".to_owned(), "/root".to_owned())].into();
        parse(text, Format::Compose, &environment)
    }

    fn value(text: &str) -> String {
        read(text).unwrap().pairs.pop().unwrap().1.unwrap()
    }

    #[test]
    fn values_with_and_without_quotes() {
        let cases = [
            ("K=v", "v"),
            ("export  K = v w ", "v w"),
            ("K: v", "v"),
            ("K=", ""),
            ("K=a#b", "a#b"),
            ("K=a #b", "a"),
            ("K=#b", ""),
            ("K='a # $HOME' # note", "a # $HOME"),
            (r#"K="a\tb\n\"c\" $HOME""#, "a\tb\n\"c\" /root"),
            (r"K='it\'s \n'", r"it's \n"),
            ("K=\"two\nlines\"\n", "two\nlines"),
            ("A=1\nK=${A}2$$", "12$"),
            ("K=a=b:c", "a=b:c"),
            ("K=v\r\n", "v"),
            ("HOME=x\nK=$HOME", "/root"),
        ];
        for (text, expected) in cases {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn a_key_alone_has_no_value() {
        let defined = read("# c\n\nA\nB=1\n").unwrap();
        assert_eq!(defined.pairs, [("A".into(), None), ("B".into(), Some("1".into()))]);
    }

    #[test]
    fn raw_files_take_values_as_they_are() {
        let defined = parse("K=\"$x\" # y\n", Format::Raw, &Variables::new()).unwrap();
        assert_eq!(defined.pairs, [("K".into(), Some("\"$x\" # y".into()))]);
    }

    #[test]
    fn lines_that_double_each_other_end_in_an_error() {
        let mut text = String::from("A0=xxxxxxxxxx\n");
        for i in 1..60 {
            text.push_str(&format!("A{i}=$A{0}$A{0}\n", i - 1));
        }
        assert!(read(&text).unwrap_err().message.contains("grow beyond"));
    }

    #[test]
    fn mistakes_have_a_place() {
        let at = |text| read(text).map_err(|fault| (fault.line, fault.column)).unwrap_err();
        assert_eq!(at("A=1\nno name=2"), (2, 1));
        assert_eq!(at("A=\"x\n"), (1, 3));
        assert_eq!(at("A='x' y"), (1, 6));
        assert_eq!(at("A=x$/"), (1, 4));
        assert_eq!(at("=x"), (1, 1));
        assert_eq!(read("A=$NONE").unwrap().missing, [("NONE".into(), 1)]);
    }
}
