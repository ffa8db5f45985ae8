//! `build` of a service: where its image comes from when the store has none.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::unset;
use crate::field::{Field, Fields};
use crate::findings::Findings;

/// An image that is built from a Containerfile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Build {
    /// The directory that COPY copies from; absolute.
    pub context: PathBuf,
    /// The Containerfile, seen from the context; `None` is the usual one.
    #[serde(skip_serializing_if = "unset")]
    pub dockerfile: Option<String>,
    /// Values for ARG.
    #[serde(skip_serializing_if = "unset")]
    pub args: BTreeMap<String, String>,
    /// The stage to end with.
    #[serde(skip_serializing_if = "unset")]
    pub target: Option<String>,
    /// The network of RUN; `None` is the host's.
    #[serde(skip_serializing_if = "unset")]
    pub network: Option<BuildNetwork>,
    /// Every step is done, also those whose result is known.
    #[serde(skip_serializing_if = "unset")]
    pub no_cache: bool,
}

/// What RUN can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BuildNetwork {
    /// What the host can.
    Host,
    /// Nothing.
    None,
}

impl Build {
    pub(crate) fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let context = f.get("context", cx, read_context);
        let networks = [("host", BuildNetwork::Host), ("none", BuildNetwork::None)];
        let build = Self {
            context: context.or_else(|| {
                let here = f.map_keys(&["context"]).is_none();
                here.then(|| cx.sources.resolve(field.node.span.file, "."))
            })?,
            dockerfile: f.get("dockerfile", cx, Field::word),
            args: f.list("args", cx, read_args),
            target: f.get("target", cx, Field::word),
            network: f.get("network", cx, |x, cx| x.one_of(cx, &networks)),
            no_cache: f.get("no_cache", cx, Field::boolean).unwrap_or(false),
        };
        f.close(cx);
        Some(build)
    }
}

/// Values for ARG; one without a value has that of the environment, if there is one.
fn read_args(field: &Field<'_>, cx: &mut Findings) -> BTreeMap<String, String> {
    let mut args = BTreeMap::new();
    for (name, value) in field.named(cx) {
        let variables = &cx.sources.get(value.node.span.file).variables;
        let value = match value.node.is_null() {
            true => variables.get(name).map(ToString::to_string),
            false => value.any_text(cx),
        };
        args.extend(value.map(|value| (name.to_owned(), value)));
    }
    args
}

fn read_context(field: &Field<'_>, cx: &mut Findings) -> Option<PathBuf> {
    let text = field.word(cx)?;
    if text.contains("://") || text.starts_with("git@") || text.ends_with(".git") {
        field.error(cx, "is fetched from nowhere", "get it before, and name the directory");
        return None;
    }
    Some(cx.sources.resolve(field.node.span.file, &text))
}
