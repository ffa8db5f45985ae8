//! The text of a Containerfile becomes instructions (Dockerfile reference). What this builder does
//! not do is refused here, with its line: nothing is passed over.

use super::words::split;
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use std::collections::BTreeMap;

/// A command: for a shell, or exactly so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A line for the shell.
    Shell(String),
    /// A program and its arguments.
    Exec(Vec<String>),
}

/// COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// What: patterns.
    pub sources: Vec<String>,
    /// Where to.
    pub target: String,
    /// From which stage or image; the context, when none is named.
    pub from: Option<String>,
    /// Whose the copies are.
    pub owner: Option<String>,
    /// Their permission bits.
    pub mode: Option<u32>,
    /// ADD: archives are unpacked and URLs fetched.
    pub add: bool,
    /// What ADD must find at a URL.
    pub checksum: Option<Digest>,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// FROM: a stage begins.
    From {
        /// An image, a stage, or `scratch`.
        image: String,
        /// AS.
        name: Option<String>,
    },
    /// RUN.
    Run(Command),
    /// COPY or ADD.
    Copy(Copy),
    /// ENV.
    Env(Vec<(String, String)>),
    /// ARG.
    Arg {
        /// The variable.
        name: String,
        /// Its value, unless the command line has another.
        value: Option<String>,
    },
    /// LABEL.
    Label(Vec<(String, String)>),
    /// WORKDIR.
    Workdir(String),
    /// USER.
    User(String),
    /// ENTRYPOINT.
    Entrypoint(Command),
    /// CMD.
    Cmd(Command),
    /// EXPOSE.
    Expose(Vec<String>),
    /// VOLUME.
    Volume(Vec<String>),
    /// SHELL.
    Shell(Vec<String>),
    /// STOPSIGNAL.
    StopSignal(String),
    /// HEALTHCHECK: the command, or none; and the options as written.
    Healthcheck {
        /// `None` for HEALTHCHECK NONE.
        test: Option<Command>,
        /// `interval`, `timeout`, `start-period`, `retries`.
        options: BTreeMap<String, String>,
    },
}

/// An instruction and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The line on which it begins.
    pub line: usize,
    /// Its text on one line.
    pub text: String,
    /// What it says.
    pub instruction: Instruction,
}

/// Reads a Containerfile.
///
/// # Errors
/// With the line that is not understood, or not supported.
pub fn parse(text: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for (line, text) in logical_lines(text)? {
        let instruction = instruction(&text).context(|| format!("line {line}: {text}"))?;
        steps.push(Step { line, text, instruction });
    }
    Ok(steps)
}

/// Joins continued lines and drops comments, also those between continued lines.
fn logical_lines(text: &str) -> Result<Vec<(usize, String)>> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    let mut escape = '\\';
    for (at, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if let Some(comment) = trimmed.strip_prefix('#') {
            let directive: Vec<_> = comment.splitn(2, '=').map(str::trim).collect();
            if lines.is_empty() && open.is_none() && directive[0].eq_ignore_ascii_case("escape") {
                escape = match directive.get(1) {
                    Some(&"\\") => '\\',
                    Some(&"`") => '`',
                    _ => return Err(Error::Invalid("line 1: the escape is \\ or `".into())),
                };
            }
            continue;
        }
        if trimmed.is_empty() {
            continue;
        }
        let (first, so_far) = open.take().unwrap_or((at + 1, String::new()));
        match trimmed.strip_suffix(escape) {
            Some(part) => open = Some((first, so_far + part)),
            None => lines.push((first, so_far + trimmed)),
        }
    }
    lines.extend(open.map(|(at, line)| (at, line.trim_end().to_owned())));
    Ok(lines)
}

fn instruction(text: &str) -> Result<Instruction> {
    let (keyword, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let keyword = keyword.to_ascii_uppercase();
    let (flags, rest) = flags(rest.trim());
    if matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") && rest.contains("<<") {
        return Err(Error::Unsupported(
            "a here-document (`<<`) is not supported: COPY a file instead".into(),
        ));
    }
    let known: &[&str] = match keyword.as_str() {
        "COPY" => &["from", "chown", "chmod"],
        "ADD" => &["checksum", "chown", "chmod"],
        "HEALTHCHECK" => &["interval", "timeout", "start-period", "start-interval", "retries"],
        _ => &[],
    };
    if let Some(flag) = flags.keys().find(|flag| !known.contains(&flag.as_str())) {
        return Err(Error::Unsupported(format!("{keyword} --{flag} is not supported")));
    }
    if rest.is_empty() {
        return Err(Error::Invalid(format!("{keyword} says nothing")));
    }
    let one = || Ok::<_, Error>(rest.to_owned());
    Ok(match keyword.as_str() {
        "FROM" => from(rest)?,
        "RUN" => Instruction::Run(command(rest)?),
        "COPY" | "ADD" => Instruction::Copy(copy(rest, &flags, keyword == "ADD")?),
        "ENV" => Instruction::Env(pairs(rest)?),
        "LABEL" => Instruction::Label(pairs(rest)?),
        "ARG" => match rest.split_once('=') {
            Some((name, value)) => {
                let value = split(value)?.join(" ");
                Instruction::Arg { name: name.trim().into(), value: Some(value) }
            }
            None => Instruction::Arg { name: one()?, value: None },
        },
        "WORKDIR" => Instruction::Workdir(split(rest)?.join(" ")),
        "USER" => Instruction::User(one()?),
        "ENTRYPOINT" => Instruction::Entrypoint(command(rest)?),
        "CMD" => Instruction::Cmd(command(rest)?),
        "EXPOSE" => Instruction::Expose(split(rest)?),
        "VOLUME" => Instruction::Volume(array(rest)?.map_or_else(|| split(rest), Ok)?),
        "SHELL" => Instruction::Shell(array(rest)?.ok_or_else(|| {
            Error::Invalid("SHELL is a JSON array: SHELL [\"/bin/sh\", \"-c\"]".into())
        })?),
        "STOPSIGNAL" => Instruction::StopSignal(one()?),
        "HEALTHCHECK" => healthcheck(rest, flags)?,
        "MAINTAINER" => Instruction::Label(vec![("maintainer".into(), one()?)]),
        "ONBUILD" => {
            return Err(Error::Unsupported(
                "ONBUILD is not supported: OCI images have no place for it; write the instruction where it is needed".into(),
            ));
        }
        other => return Err(Error::Invalid(format!("`{other}` is not an instruction"))),
    })
}

/// `--name=value` before the rest.
fn flags(text: &str) -> (BTreeMap<String, String>, &str) {
    let mut flags = BTreeMap::new();
    let mut rest = text;
    while let Some(after) = rest.strip_prefix("--") {
        let (flag, next) = after.split_once(char::is_whitespace).unwrap_or((after, ""));
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        flags.insert(name.to_owned(), value.to_owned());
        rest = next.trim_start();
    }
    (flags, rest)
}

fn from(rest: &str) -> Result<Instruction> {
    match split(rest)?.as_slice() {
        [image] => Ok(Instruction::From { image: image.clone(), name: None }),
        [image, word, name] if word.eq_ignore_ascii_case("as") => {
            Ok(Instruction::From { image: image.clone(), name: Some(name.clone()) })
        }
        _ => Err(Error::Invalid("it has the form FROM image [AS name]".into())),
    }
}

/// A JSON array of strings; `None` when it does not begin like one.
fn array(text: &str) -> Result<Option<Vec<String>>> {
    if !text.starts_with('[') {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(text).map_err(|error| {
        Error::Invalid(format!("it begins like a JSON array of strings and is none: {error}"))
    })?))
}

fn command(text: &str) -> Result<Command> {
    Ok(match array(text)? {
        Some(words) => Command::Exec(words),
        None => Command::Shell(text.to_owned()),
    })
}

fn copy(rest: &str, flags: &BTreeMap<String, String>, add: bool) -> Result<Copy> {
    let mut sources = array(rest)?.map_or_else(|| split(rest), Ok)?;
    let target = sources.pop().filter(|_| !sources.is_empty());
    let target = target.ok_or_else(|| Error::Invalid("it names a source and a target".into()))?;
    let mode = flags.get("chmod").map(|text| {
        u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(|| {
            Error::Unsupported(format!("--chmod={text}: the mode is an octal number like 755"))
        })
    });
    let (from, owner) = (flags.get("from").cloned(), flags.get("chown").cloned());
    let checksum = super::add::checksum(flags.get("checksum"))?;
    Ok(Copy { sources, target, from, owner, mode: mode.transpose()?, add, checksum })
}

/// `NAME=value …`, or the old `NAME value`.
fn pairs(rest: &str) -> Result<Vec<(String, String)>> {
    let words = split(rest)?;
    let first = words.first().map(String::as_str).unwrap_or_default();
    if !first.contains('=') {
        let (name, value) = rest
            .split_once(char::is_whitespace)
            .ok_or_else(|| Error::Invalid("it has the form NAME=value".into()))?;
        return Ok(vec![(name.into(), value.trim().into())]);
    }
    let pair = |word: &String| {
        let (name, value) = word.split_once('=').filter(|(name, _)| !name.is_empty())?;
        Some((name.to_owned(), value.to_owned()))
    };
    let pairs = words.iter().map(pair).collect::<Option<_>>();
    pairs.ok_or_else(|| Error::Invalid("every word has the form NAME=value".into()))
}

fn healthcheck(rest: &str, options: BTreeMap<String, String>) -> Result<Instruction> {
    let (word, test) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match word.to_ascii_uppercase().as_str() {
        "NONE" if test.is_empty() => Ok(Instruction::Healthcheck { test: None, options }),
        "CMD" if !test.is_empty() => {
            Ok(Instruction::Healthcheck { test: Some(command(test.trim())?), options })
        }
        _ => Err(Error::Invalid("it has the form HEALTHCHECK CMD command, or NONE".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Instruction {
        parse(text).unwrap().remove(0).instruction
    }

    #[test]
    fn lines_are_joined_and_comments_dropped() {
        let steps =
            parse("# a\nFROM x\n\nRUN one \\\n  # between\n  two\n  CMD [\"a\", \"b c\"]\n")
                .unwrap();
        assert_eq!(steps.iter().map(|step| step.line).collect::<Vec<_>>(), [2, 4, 7]);
        assert_eq!(steps[1].instruction, Instruction::Run(Command::Shell("one two".into())));
        let exec = Command::Exec(vec!["a".into(), "b c".into()]);
        assert_eq!(steps[2].instruction, Instruction::Cmd(exec));
        assert_eq!(parse("# escape=`\nRUN a `\n b").unwrap()[0].text, "RUN a b");
    }

    #[test]
    fn flags_and_pairs_are_read() {
        let Instruction::Copy(copy) = one("COPY --from=base --chown=1:2 --chmod=0755 a b /c/")
        else {
            panic!("not a COPY")
        };
        assert_eq!((copy.sources.len(), copy.target.as_str()), (2, "/c/"));
        assert_eq!(
            (copy.from.as_deref(), copy.owner.as_deref(), copy.mode),
            (Some("base"), Some("1:2"), Some(0o755))
        );
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            one("ENV A=1 B=\"2 3\""),
            Instruction::Env(vec![pair("A", "1"), pair("B", "2 3")])
        );
        assert_eq!(one("ENV A 1 2"), Instruction::Env(vec![pair("A", "1 2")]));
        assert_eq!(
            one("from x as y"),
            Instruction::From { image: "x".into(), name: Some("y".into()) }
        );
    }

    #[test]
    fn what_is_not_done_is_refused_with_its_line() {
        for (text, words) in [
            ("FROM x\nONBUILD RUN y", "line 2"),
            ("RUN --mount=type=cache x", "--mount"),
            ("RUN <<EOF", "here-document"),
            ("COPY a", "source and a target"),
            ("ADD --from=x a b", "--from"),
            ("ADD --checksum=md5:x https://x.example/a b", "sha256"),
            ("COPY --chmod=u+x a b", "octal"),
            ("FETCH x", "not an instruction"),
            ("RUN", "says nothing"),
            ("CMD [\"a\"", "JSON array"),
            ("ENV A", "NAME=value"),
        ] {
            let error = parse(text).unwrap_err().chain();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
