//! Shares of the processor's cache and memory bandwidth, runtime-spec config-linux.md, "IntelRdt".

use std::path::{Component, Path};

use oci_spec::runtime::LinuxIntelRdt;

use crate::error::{Error, Result};

/// What is asked of the resctrl file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resctrl {
    /// The group (class of service) by name; `None` for one with the container's name. An empty
    /// name is the root group, which every process starts in.
    pub group: Option<String>,
    /// The lines of its `schemata`; without any the group must be there.
    pub schemata: Vec<String>,
    /// Whether a group that only counts is made below it.
    pub monitoring: bool,
}

impl Resctrl {
    pub(super) fn decide(asked: Option<&LinuxIntelRdt>) -> Result<Option<Self>> {
        let Some(asked) = asked else { return Ok(None) };
        // Configurations for 1.2 say it with these two.
        let old = [asked.enable_cmt(), asked.enable_mbm()];
        let monitoring = asked.enable_monitoring().unwrap_or(false);
        Ok(Some(Self {
            group: asked.clos_id().as_deref().map(group_name).transpose()?,
            schemata: schemata(asked)?,
            monitoring: monitoring || old.contains(&&Some(true)),
        }))
    }
}

fn wrong(what: &str) -> Error {
    Error::Config(format!("config.json: linux.intelRdt.{what}"))
}

/// A directory of resctrl, right below its root, that is not one of the kernel's own.
fn group_name(name: &str) -> Result<String> {
    if name == "/" {
        return Ok(String::new());
    }
    let mut parts = Path::new(name).components();
    let own = ["info", "mon_groups", "mon_data"];
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(_)), None) if !own.contains(&name) && !name.ends_with('/') => {
            Ok(name.to_owned())
        }
        _ => Err(wrong(&format!("closID: {name:?} is no name of a group"))),
    }
}

/// The lines in the order in which they count: `schemata` has the last word.
fn schemata(asked: &LinuxIntelRdt) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    // Each of the two may only say what its name says.
    for line in asked.l3_cache_schema().iter().flat_map(|text| text.lines()) {
        if !line.starts_with("MB:") && !line.trim().is_empty() {
            lines.push(line.to_owned());
        }
    }
    if let Some(line) = asked.mem_bw_schema().as_ref().filter(|line| !line.is_empty()) {
        if !line.starts_with("MB:") || line.contains('\n') {
            return Err(wrong(&format!("memBwSchema: {line:?} is not one line with MB:")));
        }
        lines.push(line.clone());
    }
    for line in asked.schemata().iter().flatten() {
        if line.contains('\n') {
            return Err(wrong(&format!("schemata: {line:?} is more than one line")));
        }
        lines.push(line.clone());
    }
    Ok(lines)
}

/// The lines of `update --l3-cache-schema` and `--mem-bw-schema`, by the same rules.
pub(crate) fn lines_of(l3: Option<&str>, bandwidth: Option<&str>) -> Result<Vec<String>> {
    let mut asked = LinuxIntelRdt::default();
    asked.set_l3_cache_schema(l3.map(str::to_owned));
    asked.set_mem_bw_schema(bandwidth.map(str::to_owned));
    schemata(&asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(text: &str) -> Result<Resctrl> {
        let asked: LinuxIntelRdt = serde_json::from_str(text).unwrap();
        Ok(Resctrl::decide(Some(&asked))?.unwrap())
    }

    #[test]
    fn lines_come_in_their_order() {
        let text = r#"{"closID": "gold", "l3CacheSchema": "L3:0=f\nMB:0=9", "memBwSchema": "MB:0=50",
            "schemata": ["L3:0=ff"], "enableMonitoring": true}"#;
        let wanted = Resctrl {
            group: Some("gold".into()),
            schemata: ["L3:0=f", "MB:0=50", "L3:0=ff"].map(str::to_owned).into(),
            monitoring: true,
        };
        assert_eq!(decide(text).unwrap(), wanted);
        assert_eq!(decide("{}").unwrap(), Resctrl::default());
        assert_eq!(decide(r#"{"closID": "/"}"#).unwrap().group.as_deref(), Some(""));
    }

    #[test]
    fn names_and_lines_that_lead_elsewhere_are_refused() {
        for text in [
            r#"{"closID": "../x"}"#,
            r#"{"closID": "a/b"}"#,
            r#"{"closID": "info"}"#,
            r#"{"closID": ""}"#,
            r#"{"memBwSchema": "L3:0=f"}"#,
            r#"{"memBwSchema": "MB:0=5\nL3:0=f"}"#,
            r#"{"schemata": ["L3:0=f\nMB:0=5"]}"#,
        ] {
            assert!(decide(text).is_err(), "{text}");
        }
    }
}
