//! A procfs of our own that no container has ever seen: the second of the four primitives.
//!
//! # What goes wrong without it
//! `/proc` inside a container is the container's: an image can put a file over `/proc/self/attr`,
//! and a write that was meant to confine the container then goes to `sysrq-trigger`
//! (CVE-2019-16884, CVE-2025-52881). A mount that is attached nowhere cannot be covered.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, ResolveFlag};

use crate::mount::{Attributes, FileSystem};
use crate::{Result, fd, path};

/// A private, detached procfs of the PID namespace that this process is in.
#[derive(Debug)]
pub struct TrustedProc(OwnedFd);

impl TrustedProc {
    /// Mounts one. Do it before anything of an image can be seen.
    pub fn mount() -> Result<Self> {
        let attributes = Attributes::NO_SUID | Attributes::NO_DEV | Attributes::NO_EXEC;
        FileSystem::open("proc")?.mount(attributes).map(Self)
    }

    /// Opens `name` (`self/attr/exec`, `sys/net/ipv4/ip_forward`), and nothing that is mounted over
    /// it or linked from it.
    pub fn open(&self, name: &Path, flags: OFlag) -> Result<OwnedFd> {
        let rules = ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_XDEV
            | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        path::open_how(self.0.as_fd(), name, flags, rules)
    }

    /// Writes `text` to `name` in one write.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let file = self.open(Path::new(name), OFlag::O_WRONLY)?;
        fd::write_at_once(file.as_fd(), text.as_bytes()).map_err(|mut error| {
            error.arguments = format!("\"/proc/{name}\", {text:?}");
            error
        })
    }
}
