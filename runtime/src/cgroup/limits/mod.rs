//! Limits as a table: which file of which controller takes which value.
//!
//! Everything here is pure. One file for each kind of resource says side by side what a property of
//! config.json means in version 2 and in version 1, so that they mean the same.

mod counts;
mod cpu;
mod io;
mod memory;

use std::borrow::Cow;

use oci_spec::runtime::LinuxResources;

use super::Error;
use super::host::{Controller, Version};

pub use memory::MINIMUM_BYTES;

/// One write to one file of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// The controller that has the file.
    pub(super) controller: Controller,
    /// In which tree.
    pub(super) version: Version,
    /// The property of config.json that this comes from.
    pub(super) asked: String,
    /// The file's name.
    pub(super) file: Cow<'static, str>,
    /// What to write.
    pub(super) value: String,
    /// Which file and value to take on a kernel that lacks the first.
    pub(super) instead: Option<(Cow<'static, str>, String)>,
    /// Whether a kernel without the file does what is asked anyway.
    pub(super) absent_is_fine: bool,
}

impl Setting {
    fn new(
        (controller, version): (Controller, Version),
        asked: impl Into<String>,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
    ) -> Self {
        Self {
            controller,
            version,
            asked: format!("linux.resources.{}", asked.into()),
            file: file.into(),
            value: value.to_string(),
            instead: None,
            absent_is_fine: false,
        }
    }

    fn or(mut self, file: &'static str, value: impl ToString) -> Self {
        self.instead = Some((file.into(), value.to_string()));
        self
    }

    fn fine_when_absent(mut self, fine: bool) -> Self {
        self.absent_is_fine = fine;
        self
    }
}

/// What a file of the group holds now; asked only where a property has no meaning without it.
pub(super) type Current<'a> = &'a dyn Fn(&str) -> Option<String>;

/// All writes that `resources` stand for, in the order in which they are to be tried. Devices are
/// not among them: they have a language of their own, see [`super::devices`].
pub(super) fn settings(
    resources: &LinuxResources,
    version_of: impl Fn(Controller) -> Version,
    current: Current<'_>,
) -> Result<Vec<Setting>, Error> {
    let mut all = Vec::new();
    if let Some(memory) = resources.memory() {
        all.extend(memory::settings(memory, version_of(Controller::Memory), current)?);
    }
    if let Some(cpu) = resources.cpu() {
        let versions = (version_of(Controller::Cpu), version_of(Controller::Cpuset));
        all.extend(cpu::settings(cpu, versions, current)?);
    }
    if let Some(io) = resources.block_io() {
        all.extend(io::settings(io, version_of(Controller::Io))?);
    }
    all.extend(counts::settings(resources, version_of)?);
    Ok(all)
}

/// A limit as the kernel's files take it: −1, and every other negative number, is no limit.
fn or_max(value: i64, version: Version) -> String {
    match (value, version) {
        (0.., _) => value.to_string(),
        (_, Version::V2) => "max".to_owned(),
        (_, Version::V1) => "-1".to_owned(),
    }
}

/// A property that has no equal in version 2.
fn only_v1(property: &str, because: &str) -> Error {
    let why = format!("cgroup v2 has no equal, and this host uses it; {because}");
    Error::invalid(format!("linux.resources.{property}"), why)
}

#[cfg(test)]
pub(super) mod testing {
    //! Short forms for the tests of the tables.

    use super::*;

    /// Reads resources as they stand in a config.json.
    pub(crate) fn resources(json: &str) -> LinuxResources {
        serde_json::from_str(json).unwrap()
    }

    /// The writes as `file=value`.
    pub(crate) fn writes(json: &str, version: Version) -> Result<Vec<String>, Error> {
        writes_with(json, version, &|_| None)
    }

    /// The same, on a group that has values already.
    pub(crate) fn writes_with(
        json: &str,
        version: Version,
        current: Current<'_>,
    ) -> Result<Vec<String>, Error> {
        let all = settings(&resources(json), |_| version, current)?;
        Ok(all.iter().map(|s| format!("{}={}", s.file, s.value)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;

    #[test]
    fn nothing_asked_is_nothing_written() {
        for version in [Version::V1, Version::V2] {
            assert!(writes("{}", version).unwrap().is_empty());
            let zeros = r#"{"memory":{"limit":0,"swap":0},"cpu":{"shares":0,"quota":0,"period":0,
                "cpus":"","mems":""},"blockIO":{"weight":0}}"#;
            assert!(writes(zeros, version).unwrap().is_empty(), "{version:?}");
        }
    }

    #[test]
    fn a_hybrid_host_takes_each_controller_where_it_is() {
        let json = r#"{"memory":{"limit":8388608},"pids":{"limit":7},
            "hugepageLimits":[{"pageSize":"2MB","limit":0}]}"#;
        let version_of = |controller| match controller {
            Controller::Hugetlb => Version::V2,
            _ => Version::V1,
        };
        let all = settings(&resources(json), version_of, &|_| None).unwrap();
        let files: Vec<_> = all.iter().map(|s| s.file.as_ref()).collect();
        let expected =
            ["memory.limit_in_bytes", "pids.max", "hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"];
        assert_eq!(files, expected);
    }
}
