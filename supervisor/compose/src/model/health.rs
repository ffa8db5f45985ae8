//! `healthcheck`: how a replica is asked whether it is well.

use serde::{Serialize, Serializer};

use super::unset;
use crate::field::{Field, Fields};
use crate::findings::Findings;
use crate::quantity::Millis;

/// `healthcheck` of a service. What is `None` comes from the image, and then from the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Healthcheck {
    /// No check at all, also not that of the image.
    #[serde(skip_serializing_if = "unset")]
    pub disable: bool,
    /// The command; `None` is that of the image.
    #[serde(skip_serializing_if = "unset")]
    pub test: Option<Test>,
    /// Between the end of one check and the start of the next. Default 30 s.
    #[serde(skip_serializing_if = "unset")]
    pub interval: Option<Millis>,
    /// After this a check has failed. Default 30 s.
    #[serde(skip_serializing_if = "unset")]
    pub timeout: Option<Millis>,
    /// Failures in a row that make a replica unhealthy. Default 3.
    #[serde(skip_serializing_if = "unset")]
    pub retries: Option<u32>,
    /// Failures in this time after the start do not count. Default 0.
    #[serde(skip_serializing_if = "unset")]
    pub start_period: Option<Millis>,
    /// Interval while the replica starts. Default 250 ms here (5 s in the Docker engine).
    #[serde(skip_serializing_if = "unset")]
    pub start_interval: Option<Millis>,
}

/// The command of a health check; exit status 0 is well, everything else is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// `["CMD", …]`: a program and its arguments.
    Command(Vec<String>),
    /// `["CMD-SHELL", …]`: a line for the shell of the container.
    Shell(String),
}

impl Serialize for Test {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Command(words) => serializer
                .collect_seq(std::iter::once("CMD").chain(words.iter().map(String::as_str))),
            Self::Shell(line) => serializer.collect_seq(["CMD-SHELL", line]),
        }
    }
}

impl Healthcheck {
    pub(crate) fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let mut disable = f.get("disable", cx, Field::boolean).unwrap_or(false);
        let test = f.take("test", cx).and_then(|field| read_test(&field, &mut disable, cx));
        let positive = |field: &Field<'_>, cx: &mut Findings| {
            let value = field.millis(cx)?;
            if value.0 == 0 {
                field.error(cx, "must be longer than 0", "remove it for the default");
            }
            Some(value)
        };
        let check = Self {
            test,
            interval: f.get("interval", cx, positive),
            timeout: f.get("timeout", cx, positive),
            retries: f.get("retries", cx, |x, cx| x.number(cx, 1, 1000)),
            start_period: f.get("start_period", cx, Field::millis),
            start_interval: f.get("start_interval", cx, positive),
            disable,
        };
        f.close(cx);
        // What is disabled has no other settings; files that override one another often leave some.
        Some(if disable { Self { disable, ..Self::default() } } else { check })
    }
}

fn read_test(field: &Field<'_>, disable: &mut bool, cx: &mut Findings) -> Option<Test> {
    let items = field.items(cx);
    let words: Vec<String> = items.iter().filter_map(|item| item.text(cx)).collect();
    if words.len() < items.len() {
        return None;
    }
    let remedy =
        "write [\"CMD\", program, …], [\"CMD-SHELL\", line], [\"NONE\"], or the line alone";
    match words.split_first() {
        Some((kind, [])) if kind == "NONE" => {
            *disable = true;
            None
        }
        Some((kind, rest)) if kind == "CMD" && !rest.is_empty() => {
            Some(Test::Command(rest.to_vec()))
        }
        Some((kind, [line])) if kind == "CMD-SHELL" => Some(Test::Shell(line.clone())),
        Some((kind, _)) if matches!(kind.as_str(), "NONE" | "CMD" | "CMD-SHELL") => {
            field.error(cx, format!("`{kind}` is followed by too few or too many words"), remedy);
            None
        }
        Some((kind, _)) => {
            let message = format!("begins with `{kind}`, not with CMD, CMD-SHELL or NONE");
            field.error(cx, message, remedy);
            None
        }
        None if field.node.as_scalar().is_none() => {
            field.error(cx, "must not be empty", remedy);
            None
        }
        None => None,
    }
}
