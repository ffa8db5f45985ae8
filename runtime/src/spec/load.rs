//! Reading config.json: every error says where.

use std::path::Path;

use oci_spec::runtime::Spec;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::json;

/// The version of the runtime specification that this program implements.
pub const VERSION: &str = "1.3.0";

/// The name of the file in a bundle.
pub(crate) const FILE_NAME: &str = "config.json";

/// A configuration, its bytes, and what was passed over with a warning.
#[derive(Debug)]
pub struct Loaded {
    /// The parsed configuration.
    pub spec: Spec,
    /// The file as it was read: the container keeps a copy, so that later changes have no effect.
    pub bytes: Vec<u8>,
    /// What was ignored, as the specification wants it (unknown capabilities).
    pub warnings: Vec<String>,
}

/// Reads the config.json of a bundle.
pub fn load(bundle: &Path) -> Result<Loaded> {
    let file = bundle.join(FILE_NAME);
    let bytes = std::fs::read(&file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound if bundle.is_dir() => Error::Config(format!(
            "JSON specification file config.json not found in {}; `minirun spec` writes one",
            bundle.display()
        )),
        std::io::ErrorKind::NotFound => {
            Error::Config(format!("bundle {} does not exist", bundle.display()))
        }
        _ => Error::File { doing: format!("read {}", file.display()), source: error },
    })?;
    let (spec, warnings) = parse(&bytes, &file)?;
    Ok(Loaded { spec, bytes, warnings })
}

/// Parses a configuration; `file` is for the messages only.
pub fn parse(bytes: &[u8], file: &Path) -> Result<(Spec, Vec<String>)> {
    let (spec, warnings) = match json::read::<Spec>(bytes) {
        Ok(spec) => (spec, Vec::new()),
        Err(error) => parse_again(bytes, file, &error)?,
    };
    check_version(spec.version(), file)?;
    Ok((spec, warnings))
}

/// The slow path. The specification wants a warning for a capability that the runtime does not
/// know; the parser refuses the whole file. So unknown names are taken out, and if there were none
/// the first error stands.
fn parse_again(
    bytes: &[u8],
    file: &Path,
    first: &serde_json::Error,
) -> Result<(Spec, Vec<String>)> {
    let refused = || {
        let text = first.to_string();
        let what = text.split(" at line ").next().unwrap_or(&text).to_owned();
        Error::Config(format!(
            "{}: line {}, column {}: {what}",
            file.display(),
            first.line(),
            first.column()
        ))
    };
    let mut value: Value = json::read(bytes).map_err(|_| refused())?;
    let known = linux::capability::all_names();
    let mut warnings = Vec::new();
    let sets = value.pointer_mut("/process/capabilities").and_then(Value::as_object_mut);
    for (set, names) in sets.into_iter().flatten() {
        let Some(names) = names.as_array_mut() else { continue };
        names.retain(|name| {
            let name = name.as_str().unwrap_or_default();
            let keep = known.iter().any(|known| known == name);
            if !keep {
                warnings.push(format!("unknown capability {name:?} in {set} is ignored"));
            }
            keep
        });
    }
    if warnings.is_empty() {
        return Err(refused());
    }
    // What else is wrong has lost its position now; it still has its name.
    let spec = json::typed(&value)
        .map_err(|error| Error::Config(format!("{}: {error}", file.display())))?;
    Ok((spec, warnings))
}

/// Versions are semantic: any 1.x is understood, another major version is not.
fn check_version(version: &str, file: &Path) -> Result<()> {
    let major = version.split('.').next().unwrap_or_default();
    let numbers = version.split(['-', '+']).next().unwrap_or_default();
    let well_formed =
        numbers.split('.').count() == 3 && numbers.split('.').all(|n| n.parse::<u32>().is_ok());
    if major == "1" && well_formed {
        return Ok(());
    }
    if version.is_empty() {
        return Err(Error::Config(format!(
            "{}: ociVersion is missing: is this a configuration of a container? `minirun spec` \
             writes one",
            file.display()
        )));
    }
    Err(Error::Config(format!(
        "{}: ociVersion {version:?} is not supported: minirun knows 1.0.0 to {VERSION}",
        file.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<(Spec, Vec<String>)> {
        parse(text.as_bytes(), Path::new("config.json"))
    }

    #[test]
    fn errors_name_line_and_column() {
        let error = parsed("{\n  \"ociVersion\": \"1.0.0\",\n  oops\n}").unwrap_err();
        assert_eq!(error.to_string(), "config.json: line 3, column 3: key must be a string");
    }

    #[test]
    fn versions_of_another_major_number_are_refused() {
        for (version, fine) in [
            ("1.0.0", true),
            ("1.3.0", true),
            ("1.99.0-dev", true),
            ("2.0.0", false),
            ("1", false),
            ("", false),
        ] {
            let result = parsed(&format!("{{\"ociVersion\": {version:?}}}"));
            assert_eq!(result.is_ok(), fine, "{version:?}: {result:?}");
        }
    }

    #[test]
    fn unknown_capabilities_are_a_warning() {
        let text = r#"{"ociVersion": "1.0.0", "process": {"cwd": "/", "user": {"uid": 0, "gid": 0},
            "capabilities": {"bounding": ["CAP_KILL", "CAP_OF_THE_FUTURE"]}}}"#;
        let (spec, warnings) = parsed(text).unwrap();
        assert_eq!(warnings, ["unknown capability \"CAP_OF_THE_FUTURE\" in bounding is ignored"]);
        let process = spec.process().as_ref().unwrap();
        let bounding = process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap();
        assert_eq!(bounding.len(), 1);
    }

    #[test]
    fn an_unknown_namespace_keeps_its_position() {
        let text =
            "{\"ociVersion\": \"1.0.0\",\n\"linux\": {\"namespaces\": [{\"type\": \"moon\"}]}}";
        let error = parsed(text).unwrap_err().to_string();
        assert!(error.starts_with("config.json: line 2, column "), "{error}");
        assert!(error.contains("moon"), "{error}");
    }
}
