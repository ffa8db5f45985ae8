//! The top-level `volumes`, `secrets` and `configs`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use super::mount::host_path;
use super::unset;
use crate::field::{Field, Fields};
use crate::findings::Findings;

/// An entry of the top-level `volumes`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Volume {
    /// Its name on the host; `PROJECT_KEY` unless given.
    pub name: String,
    /// It exists already, and is not removed.
    #[serde(skip_serializing_if = "unset")]
    pub external: bool,
    /// What is mounted instead of a directory of ours: `type`, `device` and `o` as for mount(8).
    #[serde(skip_serializing_if = "unset")]
    pub driver_opts: BTreeMap<String, String>,
    /// Labels.
    #[serde(skip_serializing_if = "unset")]
    pub labels: BTreeMap<String, String>,
    /// Extensions of other tools.
    #[serde(flatten)]
    pub extensions: BTreeMap<String, serde_json::Value>,
}

/// An entry of the top-level `secrets`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Secret {
    /// Its name; `PROJECT_KEY` unless given.
    pub name: String,
    /// Where its value is.
    #[serde(flatten)]
    pub source: SecretSource,
    /// Labels.
    #[serde(skip_serializing_if = "unset")]
    pub labels: BTreeMap<String, String>,
    /// Extensions of other tools.
    #[serde(flatten)]
    pub extensions: BTreeMap<String, serde_json::Value>,
}

/// An entry of the top-level `configs`: a [`Secret`] that need not be one.
pub type Config = Secret;

/// Where the value of a secret or config is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file of the host, read when a replica is made.
    File(PathBuf),
    /// In a variable.
    Environment {
        /// Its name.
        variable: String,
        /// Its value when the project was loaded. Never printed nor serialised.
        value: SecretText,
    },
    /// In the Compose file itself; configs only.
    Content(String),
    /// Somewhere already, under its name.
    External,
}

/// A text that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    /// The text itself; for the file in the container, and for nothing that is shown.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl Serialize for SecretSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = serializer.serialize_map(Some(1))?;
        match self {
            Self::File(path) => map.serialize_entry("file", path)?,
            Self::Environment { variable, .. } => map.serialize_entry("environment", variable)?,
            Self::Content(text) => map.serialize_entry("content", text)?,
            Self::External => map.serialize_entry("external", &true)?,
        }
        map.end()
    }
}

impl Volume {
    pub(crate) fn read(field: &Field<'_>, cx: &mut Findings, default_name: String) -> Self {
        let mut f = Fields::open(field, cx);
        let external = f.get("external", cx, Field::boolean).unwrap_or(false);
        let name = f.get("name", cx, Field::name);
        if let Some(driver) = f.take("driver", cx)
            && let Some(text) = driver.text(cx)
            && text != "local"
        {
            let remedy = "write `local`, with `driver_opts` for what mount(8) can mount";
            driver.error(cx, format!("the volume driver `{text}` is not supported"), remedy);
        }
        let options = f.list("driver_opts", cx, read_options);
        if external && !options.is_empty() {
            let message = "`driver_opts` cannot be set for a volume that exists already";
            field.error(cx, message, "remove it, or remove `external`");
        }
        let volume = Self {
            name: name.unwrap_or(default_name),
            external,
            driver_opts: options,
            labels: f.list("labels", cx, Field::pairs),
            extensions: f.extensions(),
        };
        f.close(cx);
        volume
    }
}

fn read_options(field: &Field<'_>, cx: &mut Findings) -> BTreeMap<String, String> {
    let mut options = BTreeMap::new();
    for (name, option) in field.named(cx) {
        if !matches!(name, "type" | "device" | "o") {
            option.error(
                cx,
                "unknown option",
                "known are `type`, `device` and `o`, as for mount(8)",
            );
        }
        options.extend(option.any_text(cx).map(|text| (name.to_owned(), text)));
    }
    if !options.is_empty() && !options.contains_key("device") {
        let remedy = "write `device:`, as in `type: none`, `o: bind`, `device: /srv/data`";
        field.error(cx, "`device` is missing", remedy);
    }
    options
}

impl Secret {
    /// `config`: with `content`.
    pub(crate) fn read(
        field: &Field<'_>,
        cx: &mut Findings,
        default_name: String,
        config: bool,
    ) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let name = f.get("name", cx, Field::name).unwrap_or(default_name);
        let mut sources = Vec::new();
        if let Some(file) = f.take("file", cx) {
            sources.push(host_path(&file, cx).map(SecretSource::File));
        }
        if let Some(variable) = f.take("environment", cx) {
            sources.push(read_variable(&variable, cx));
        }
        if config && let Some(content) = f.take("content", cx) {
            sources.push(content.any_text(cx).map(SecretSource::Content));
        }
        if let Some(external) = f.take("external", cx)
            && external.boolean(cx) != Some(false)
        {
            sources.push(Some(SecretSource::External));
        }
        let labels = f.list("labels", cx, Field::pairs);
        let extensions = f.extensions();
        f.close(cx);
        let choices = if config {
            "`file`, `environment`, `content` or `external: true`"
        } else {
            "`file`, `environment` or `external: true`"
        };
        if sources.len() != 1 {
            let message = format!("has {} sources for its value, not one", sources.len());
            field.error(cx, message, format!("write one of {choices}"));
            return None;
        }
        Some(Self { name, source: sources.pop()??, labels, extensions })
    }
}

fn read_variable(field: &Field<'_>, cx: &mut Findings) -> Option<SecretSource> {
    let variable = field.word(cx)?;
    match cx.sources.get(field.node.span.file).variables.get(&variable) {
        Some(value) => {
            let value = SecretText(value.clone());
            Some(SecretSource::Environment { variable, value })
        }
        None => {
            let remedy = "set it in the environment or in `.env`, or use `file`";
            field.error(cx, format!("the variable `{variable}` is not set"), remedy);
            None
        }
    }
}
