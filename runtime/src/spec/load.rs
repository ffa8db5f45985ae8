//! Reading config.json: every error says where.

use std::path::Path;

use linux::Errno;
use oci_spec::runtime::Spec;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::json;

/// The version of the runtime specification that this program implements.
pub const VERSION: &str = "1.3.0";

/// The oldest version that it reads.
pub const OLDEST: &str = "1.0.0";

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
    let bytes = linux::fd::read_host_file(&file).map_err(|error| match error.errno {
        Errno::ENOENT if bundle.is_dir() => Error::Config(format!(
            "JSON specification file config.json not found in {}; `minirun spec` writes one",
            bundle.display()
        )),
        Errno::ENOENT => Error::Config(format!("bundle {} does not exist", bundle.display())),
        _ => Error::Kernel { doing: format!("read {FILE_NAME}"), source: error },
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

/// The slow path, for what the specification allows and the parser refuses: capabilities that it
/// does not know (a warning each), and flags that it knows by other names. If there were none, the
/// first error stands.
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
    let renamed = value.pointer_mut("/process").is_some_and(rename_flags);
    if warnings.is_empty() && !renamed {
        return Err(refused());
    }
    // What else is wrong has lost its position now; it still has its name.
    let spec = json::typed(&value)
        .map_err(|error| Error::Config(format!("{}: {error}", file.display())))?;
    Ok((spec, warnings))
}

/// Reads the process of `exec --process`; its errors are the caller's to complete.
pub fn parse_process(bytes: &[u8]) -> Result<oci_spec::runtime::Process, serde_json::Error> {
    json::read(bytes).or_else(|first| {
        let mut value: Value = json::read(bytes)?;
        if rename_flags(&mut value) { json::typed(&value) } else { Err(first) }
    })
}

/// Two flags of the scheduler have names in oci-spec that the specification does not know. Gives
/// whether one of them was there.
fn rename_flags(process: &mut Value) -> bool {
    const NAMES: [(&str, &str); 2] = [
        ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
        ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
    ];
    let flags = process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut);
    let mut found = false;
    for flag in flags.into_iter().flatten() {
        if let Some((_, theirs)) = NAMES.iter().find(|(name, _)| flag.as_str() == Some(name)) {
            *flag = (*theirs).into();
            found = true;
        }
    }
    found
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
        "{}: ociVersion {version:?} is not supported: minirun knows {OLDEST} to {VERSION}",
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
    fn flags_of_the_scheduler_have_the_specifications_names() {
        let process = r#"{"cwd": "/", "user": {"uid": 0, "gid": 0}, "scheduler": {
            "policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_RESET_ON_FORK",
            "SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_RECLAIM"]}}"#;
        let (spec, _) =
            parsed(&format!("{{\"ociVersion\": \"1.3.0\", \"process\": {process}}}")).unwrap();
        let flags = |process: &oci_spec::runtime::Process| {
            process.scheduler().as_ref().unwrap().flags().as_ref().unwrap().len()
        };
        assert_eq!(flags(spec.process().as_ref().unwrap()), 3);
        assert_eq!(flags(&parse_process(process.as_bytes()).unwrap()), 3);
        assert!(parse_process(process.replace("RECLAIM", "SLOW").as_bytes()).is_err());
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
