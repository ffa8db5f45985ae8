//! What annotations ask for beyond the specification: Landlock rules, core scheduling.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::Deserialize;

use crate::error::{Error, Result};

/// The annotation with Landlock rules, a JSON text: see [`Landlock`].
pub const LANDLOCK_ANNOTATION: &str = "org.minirun.landlock";
/// The annotation that asks for core scheduling: `true` or `false`.
pub const CORE_ANNOTATION: &str = "org.minirun.core-scheduling";

/// What a container's programs may do with files and ports, landlock(7). What is not allowed is
/// refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Landlock {
    /// Files and directories that may be read, with all below them.
    #[serde(default)]
    pub read: Vec<PathBuf>,
    /// The same, and what is there may be run.
    #[serde(default)]
    pub execute: Vec<PathBuf>,
    /// Everything that permission bits allow.
    #[serde(default)]
    pub write: Vec<PathBuf>,
    /// TCP ports to listen on; without the list all.
    pub bind_tcp: Option<Vec<u16>>,
    /// TCP ports to connect to; without the list all.
    pub connect_tcp: Option<Vec<u16>>,
}

impl Landlock {
    /// The rules in the annotations, if there are any.
    pub(crate) fn decide(annotations: Option<&HashMap<String, String>>) -> Result<Option<Self>> {
        let text = annotations.and_then(|all| all.get(LANDLOCK_ANNOTATION));
        let Some(text) = text else { return Ok(None) };
        let wrong =
            |what: String| Error::Config(format!("config.json: {LANDLOCK_ANNOTATION}: {what}"));
        let rules: Self = crate::json::read(text.as_bytes()).map_err(|e| wrong(e.to_string()))?;
        let paths = rules.read.iter().chain(&rules.execute).chain(&rules.write);
        if let Some(path) = paths.into_iter().find(|path| !path.is_absolute()) {
            return Err(wrong(format!("{} is not an absolute path", path.display())));
        }
        Ok(Some(rules))
    }
}

/// Whether the annotations ask for processor cores that are shared with nobody.
pub(super) fn wants_cores_alone(annotations: Option<&HashMap<String, String>>) -> Result<bool> {
    match annotations.and_then(|all| all.get(CORE_ANNOTATION)).map(String::as_str) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(Error::Config(format!(
            "config.json: {CORE_ANNOTATION}: {other:?} is neither true nor false"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotated(name: &str, text: &str) -> HashMap<String, String> {
        HashMap::from([(name.to_owned(), text.to_owned())])
    }

    #[test]
    fn rules_are_read_and_checked() {
        assert_eq!(Landlock::decide(None).unwrap(), None);
        let text = r#"{"read": ["/etc"], "execute": ["/bin"], "connectTcp": [443]}"#;
        let rules = Landlock::decide(Some(&annotated(LANDLOCK_ANNOTATION, text))).unwrap().unwrap();
        assert_eq!(rules.read, [PathBuf::from("/etc")]);
        assert_eq!((rules.bind_tcp, rules.connect_tcp), (None, Some(vec![443])));
        for (text, said) in [
            (r#"{"reed": []}"#, "unknown field"),
            (r#"{"read": ["etc"]}"#, "not an absolute path"),
            (r#"{"bindTcp": [70000]}"#, "70000"),
            ("true", "landlock"),
        ] {
            let error = Landlock::decide(Some(&annotated(LANDLOCK_ANNOTATION, text))).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn core_scheduling_is_wanted_or_not() {
        assert!(wants_cores_alone(Some(&annotated(CORE_ANNOTATION, "true"))).unwrap());
        assert!(!wants_cores_alone(None).unwrap());
        assert!(wants_cores_alone(Some(&annotated(CORE_ANNOTATION, "yes"))).is_err());
    }
}
