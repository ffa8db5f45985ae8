//! Where a container's cgroup comes from, and when.
//!
//! ```text
//! cgroupfs   record → mkdir → clone into it → limits
//! systemd    record → clone → init waits → systemd puts it into a new scope → limits
//! disabled   nothing
//! ```
//! Either way the group is in the state before it exists, and nothing of the container is built
//! before init is in it: what it uses is charged to where it is.

use linux::Pid;
use oci_spec::runtime::LinuxResources;

use crate::cgroup::{Cgroup, Host, Place, Record, Unit};
use crate::error::{Error, Result};
use crate::plan::Plan;

/// Who makes the groups of containers, `--cgroup-manager`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manager {
    /// minirun itself.
    Cgroupfs,
    /// systemd, when it is asked for a scope.
    Systemd,
    /// Nobody: the container stays in its creator's group.
    Disabled,
}

/// Their names on the command line; the first is the usual one.
pub(crate) const MANAGERS: [(&str, Manager); 3] = [
    ("cgroupfs", Manager::Cgroupfs),
    ("systemd", Manager::Systemd),
    ("disabled", Manager::Disabled),
];

/// A group that is going to be made.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) host: &'static Host,
    pub(crate) record: Record,
    unit: Option<Unit>,
}

impl Wanted {
    /// Decides where the group of `plan` will be; `None` for a container without one.
    pub(crate) fn decide(manager: Manager, plan: &Plan) -> Result<Option<Self>> {
        let wanted = match (manager, Host::get()?) {
            (Manager::Disabled, _) | (Manager::Cgroupfs, None) => None,
            (Manager::Systemd, None) => {
                return Err(Error::Unsupported(
                    "use --systemd-cgroup: this host has no cgroups mounted".into(),
                ));
            }
            (Manager::Cgroupfs, Some(host)) => {
                match Place::new(host, plan.cgroups_path.as_deref(), &plan.id)? {
                    Some(place) => {
                        Some(Self { host, record: Record::of(host, &place)?, unit: None })
                    }
                    None => None,
                }
            }
            (Manager::Systemd, Some(host)) => {
                let path = plan.cgroups_path.as_deref().and_then(std::path::Path::to_str);
                let unit = Unit::parse(path, &plan.id)?;
                Some(Self { host, record: unit.record(host)?, unit: Some(unit) })
            }
        };
        if wanted.is_none() && asks_for_limits(&plan.resources) {
            return Err(Error::Unsupported(no_cgroup_here(manager)));
        }
        Ok(wanted)
    }

    /// Whether the group can only be made around a process that exists.
    pub(crate) fn needs_process(&self) -> bool {
        self.unit.is_some()
    }

    /// Makes the group; `None` when that is systemd's to do, with [`Wanted::start`].
    pub(crate) fn make(&self) -> Result<Option<Cgroup>> {
        match self.unit {
            Some(_) => Ok(None),
            None => Ok(Some(Cgroup::make_recorded(self.host, &self.record)?)),
        }
    }

    /// Lets systemd make the group around `first`.
    pub(crate) fn start(&self, first: Pid, resources: &LinuxResources) -> Result<Option<Cgroup>> {
        match &self.unit {
            Some(unit) => Ok(Some(unit.start(self.host, first, resources)?)),
            None => Ok(None),
        }
    }
}

/// Whether the configuration limits anything (device rules alone are no limit: a container without
/// a cgroup has only the devices that are in its `/dev`).
fn asks_for_limits(resources: &LinuxResources) -> bool {
    resources.memory().is_some()
        || resources.cpu().is_some()
        || resources.pids().is_some()
        || resources.block_io().is_some()
        || resources.hugepage_limits().as_ref().is_some_and(|limits| !limits.is_empty())
        || resources.unified().as_ref().is_some_and(|unified| !unified.is_empty())
        || resources.rdma().as_ref().is_some_and(|rdma| !rdma.is_empty())
}

fn no_cgroup_here(manager: Manager) -> String {
    let why = match manager {
        Manager::Disabled => "cgroups are switched off by --cgroup-manager disabled",
        _ => {
            "no part of the cgroup tree is delegated to you: run under `systemd-run --user --scope \
             -p Delegate=yes …`, with --systemd-cgroup, or as root"
        }
    };
    format!("limit the container: {why}")
}
