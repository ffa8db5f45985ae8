//! Limits, written to the group.
//!
//! # What the kernel offers
//! Each limit is a file in the group's directory; writing to it is all there is to it.
//!
//! # What we do
//! Turn the resources of the configuration into a list of writes ([`super::limits`]), version 2
//! first, and make them. Some pairs of files constrain each other (memory with memory plus swap,
//! quota with period and burst), and which must be first depends on what they hold: what the kernel
//! refuses is tried once more after the rest.
//!
//! # What goes wrong without it
//! A runtime that ignores a refused write gives a container without that limit.

use std::os::fd::AsFd;
use std::path::Path;

use linux::{Errno, fd};
use oci_spec::runtime::LinuxResources;

use super::group::Cgroup;
use super::host::{Controller, Version};
use super::limits::{self, Setting};
use super::{Error, Missing, devices, systemd};

impl Cgroup {
    /// Sets everything that `resources` asks for, devices included.
    ///
    /// For a new group. The first limit that cannot be set is the error; what was set before stays
    /// (the caller removes the group then).
    pub fn apply(&self, resources: &LinuxResources) -> Result<(), Error> {
        self.set_all(self.settings(resources)?)?;
        devices::apply(self, resources.devices().as_deref().unwrap_or_default())
    }

    /// Changes the limits of a running container: what `resources` does not name stays. Devices are
    /// never touched: a container that could open its devices goes on so.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), Error> {
        self.check_before_update(resources)?;
        let settings = self.settings(resources)?;
        systemd::update(self.record(), &settings)?;
        self.set_all(settings)
    }

    fn settings(&self, resources: &LinuxResources) -> Result<Vec<Setting>, Error> {
        let version_of = |controller| self.member_of(controller).version;
        let current =
            |file: &str| fd::read_file_at(self.unified().dir.as_fd(), Path::new(file)).ok();
        let mut all = limits::settings(resources, version_of, &current)?;
        all.sort_by_key(|setting| setting.version == Version::V1);
        Ok(all)
    }

    fn set_all(&self, todo: Vec<Setting>) -> Result<(), Error> {
        let mut again = Vec::new();
        for setting in todo {
            match self.set(&setting) {
                Err(Error::Refused { cause, .. }) if is_about_order(cause.errno) => {
                    again.push(setting);
                }
                result => result?,
            }
        }
        again.iter().try_for_each(|setting| self.set(setting))
    }

    fn set(&self, setting: &Setting) -> Result<(), Error> {
        let Setting { controller, version, asked, .. } = setting;
        if *version == Version::V1 && self.member_of(*controller).version == Version::V2 {
            return Err(self.no_such_tree(*controller, asked));
        }
        let mut result = self.write(setting, &setting.file, &setting.value);
        if let Some((file, value)) = setting.instead.as_ref().filter(|_| is_absent(&result)) {
            result = self.write(setting, file, value);
        }
        if is_absent(&result) && *version == Version::V2 {
            self.require(*controller, asked)?;
            result = self.write(setting, &setting.file, &setting.value);
            if let Some((file, value)) = setting.instead.as_ref().filter(|_| is_absent(&result)) {
                result = self.write(setting, file, value);
            }
        }
        if is_absent(&result) && setting.absent_is_fine {
            return Ok(());
        }
        result.map_err(|cause| {
            let remedy = remedy(setting, cause.errno);
            Error::Refused { asked: asked.clone(), cause: Box::new(cause), remedy }
        })
    }

    fn write(&self, setting: &Setting, file: &str, value: &str) -> linux::Result<()> {
        let member = match setting.version {
            Version::V2 => self.unified(),
            Version::V1 => self.member_of(setting.controller),
        };
        fd::write_file_at(member.dir.as_fd(), Path::new(file), value.as_bytes()).map_err(
            |mut cause| {
                cause.arguments = format!("\"{}\", {value:?}", member.path.join(file).display());
                cause
            },
        )
    }

    fn no_such_tree(&self, controller: Controller, asked: &str) -> Error {
        let missing = Missing {
            controller,
            wanted_by: asked.to_owned(),
            found: "no tree of version 1 has it".to_owned(),
            remedy: super::enable::remedy(controller, false),
        };
        Error::Missing { asked: asked.to_owned(), missing: Box::new(missing) }
    }

    /// `memory.checkBeforeUpdate`: refuse a limit that is below what is in use, instead of letting
    /// the kernel kill its way down to it.
    fn check_before_update(&self, resources: &LinuxResources) -> Result<(), Error> {
        let Some(memory) = resources.memory() else { return Ok(()) };
        let Some(limit) = memory.limit().filter(|limit| *limit > 0) else { return Ok(()) };
        if memory.check_before_update() != Some(true) {
            return Ok(());
        }
        let member = self.member_of(Controller::Memory);
        let file = match member.version {
            Version::V2 => "memory.current",
            Version::V1 => "memory.usage_in_bytes",
        };
        let text = fd::read_file_at(member.dir.as_fd(), Path::new(file))
            .map_err(|cause| Error::kernel("read the memory in use", cause))?;
        let used: i64 = text.trim().parse().unwrap_or(i64::MAX);
        if limit < used {
            let why = format!(
                "{limit} is less than the {used} bytes in use, and checkBeforeUpdate forbids that"
            );
            return Err(Error::invalid("linux.resources.memory.limit", why));
        }
        Ok(())
    }
}

/// Whether there is no such file.
fn is_absent(result: &linux::Result<()>) -> bool {
    matches!(result, Err(cause) if cause.errno == Errno::ENOENT)
}

/// Whether the kernel may accept the same write after another one.
fn is_about_order(errno: Errno) -> bool {
    matches!(errno, Errno::EINVAL | Errno::EBUSY)
}

/// What usually is the matter; empty, or starting with `; `.
fn remedy(setting: &Setting, errno: Errno) -> String {
    let text = match (setting.file.as_ref(), errno) {
        ("memory.limit_in_bytes", Errno::EBUSY) => {
            "more than that is in use and cannot be taken back: free some, or give more"
        }
        ("memory.limit_in_bytes" | "memory.memsw.limit_in_bytes", Errno::EINVAL) => {
            "the limit of memory and swap must be at least the limit of memory: change both"
        }
        ("memory.memsw.limit_in_bytes", Errno::ENOENT) => {
            "this kernel does not count swap: boot with `swapaccount=1`, or set no swap limit"
        }
        ("cpuset.cpus" | "cpuset.mems", _) => {
            "the list may name only what the group above has (see its cpuset files), as in `0-3,7`"
        }
        ("io.max" | "io.latency", Errno::ENODEV) => {
            "limits belong to a whole disk, not to a partition: see `lsblk -o NAME,MAJ:MIN`"
        }
        (file, Errno::ENODEV) if file.starts_with("blkio.") => {
            "limits belong to a whole disk, not to a partition: see `lsblk -o NAME,MAJ:MIN`"
        }
        (file, Errno::EINVAL) if file.contains("burst") => {
            "the burst can be at most the quota, and needs one"
        }
        (file, Errno::EINVAL) if file.starts_with("cpu.cfs") => {
            "a group can have at most the share of CPU time that the groups above it have"
        }
        (file, Errno::ENOENT) if file.contains("weight") => {
            "no I/O scheduler here knows weights: load BFQ (`modprobe bfq`) and select it in \
             /sys/block/DISK/queue/scheduler"
        }
        (file, Errno::ENOENT) if file.starts_with("hugetlb") => {
            "the kernel has no pages of that size: see /sys/kernel/mm/hugepages"
        }
        (_, Errno::ENOENT) => "this kernel does not have the file",
        (_, Errno::EACCES | Errno::EPERM | Errno::EROFS) => {
            "the group's files cannot be written by this user"
        }
        _ => return String::new(),
    };
    format!("; {text}")
}
