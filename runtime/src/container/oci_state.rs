//! The state of a container as the specification has it, for `state`, `list` and whoever reads them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::state::{Home, State, Status};
use crate::error::Result;

/// What `state` prints, runtime-spec runtime.md, with runc's additions.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// The version of the specification.
    pub(crate) oci_version: &'static str,
    /// The container's name.
    pub(crate) id: String,
    /// The number of its first process, 0 when it has ended.
    pub(crate) pid: i32,
    /// Its status.
    pub(crate) status: Status,
    /// The bundle's directory.
    pub(crate) bundle: PathBuf,
    /// The root file system's directory.
    pub(crate) rootfs: PathBuf,
    /// When it was created.
    pub(crate) created: String,
    /// The configuration's annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    /// Who created it.
    pub(crate) owner: String,
    /// Whether the kernel killed in it because its memory limit was reached. Only there when so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) oom_killed: bool,
}

impl Report {
    /// The report about a container now.
    pub(crate) fn of(home: &Home) -> Result<Self> {
        let state =
            home.load()?.unwrap_or_else(|| State::new(home.id(), Path::new(""), Path::new("")));
        let status = state.status(home);
        let pid = match status {
            Status::Stopped => 0,
            _ => state.init.map_or(0, |init| init.pid),
        };
        Ok(Self {
            oci_version: crate::spec::VERSION,
            oom_killed: state.oom_kills() > 0,
            id: state.id,
            pid,
            status,
            bundle: state.bundle,
            rootfs: state.rootfs,
            created: state.created,
            annotations: state.annotations,
            owner: user_name(state.owner),
        })
    }
}

/// The name of a user of the host, from /etc/passwd; a static program has no other directory.
fn user_name(user: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(user)).then(|| name.to_owned())
    });
    found.unwrap_or_else(|| user.to_string())
}
