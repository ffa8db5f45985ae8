//! Landlock: rules that a process gives itself about files and ports, landlock(7).
//!
//! # What the kernel offers
//! A process makes a set of rules ("below this directory: read"), and from the moment it puts
//! itself under it, whatever the rules do not allow is refused, for it and all that come from it,
//! for ever. It takes no privileges, and comes on top of permission bits and mounts.
//!
//! # What goes wrong without it
//! What a container can write to is decided by mounts; and whom it may call, by nothing at all as
//! long as it shares a network.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::Result;
use crate::trace::{answer, observe};

/// Rights to files, `LANDLOCK_ACCESS_FS_*` of linux/landlock.h.
pub mod files {
    /// Run a file.
    pub const EXECUTE: u64 = 1;
    /// Open a file for writing.
    pub const WRITE_FILE: u64 = 1 << 1;
    /// Open a file for reading.
    pub const READ_FILE: u64 = 1 << 2;
    /// List a directory.
    pub const READ_DIR: u64 = 1 << 3;
    /// Cut a file off (version 3).
    pub const TRUNCATE: u64 = 1 << 14;
    /// Give a device commands (version 5).
    pub const IOCTL_DEV: u64 = 1 << 15;
    /// The rights that a file has, and not only a directory.
    pub const OF_A_FILE: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;

    /// All that a kernel with this version of Landlock knows.
    pub fn known(version: u32) -> u64 {
        let count = match version {
            0 | 1 => 13,
            2 => 14,
            3 | 4 => 15,
            _ => 16,
        };
        (1 << count) - 1
    }
}

/// Rights to TCP ports (version 4).
pub mod ports {
    /// Listen on it.
    pub const BIND: u64 = 1;
    /// Connect to it.
    pub const CONNECT: u64 = 2;
}

/// What the kernel knows of Landlock; `ENOSYS` and `EOPNOTSUPP` where it is not built in, or off.
pub fn version() -> Result<u32> {
    const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the call takes no pointer.
    #[expect(unsafe_code, reason = "no crate of ours wraps landlock(7)")]
    let value = unsafe {
        let none = std::ptr::null::<u8>();
        libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, LANDLOCK_CREATE_RULESET_VERSION)
    };
    let result = answer(value).map(|version| u32::try_from(version).unwrap_or(0));
    observe("landlock_create_ruleset", || "VERSION".into(), result)
}

/// The layout of `struct landlock_ruleset_attr`; the second member is of version 4.
#[repr(C)]
struct RulesetAttr {
    files: u64,
    ports: u64,
}

/// The layout of `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneathAttr {
    allowed: u64,
    parent: libc::c_int,
}

/// The layout of `struct landlock_net_port_attr`.
#[repr(C)]
struct PortAttr {
    allowed: u64,
    port: u64,
}

/// A set of rules.
#[derive(Debug)]
pub struct Ruleset(OwnedFd);

impl Ruleset {
    /// Makes a set that forbids `files` and `ports` (see the modules of that name) but for what
    /// its rules allow.
    pub fn new(files: u64, ports: u64) -> Result<Self> {
        let attributes = RulesetAttr { files, ports };
        // A kernel before version 4 knows the first member only.
        let size = if ports == 0 { size_of::<u64>() } else { size_of::<RulesetAttr>() };
        // SAFETY: the pointer is to a local that is at least as long as the size says.
        #[expect(unsafe_code, reason = "no crate of ours wraps landlock(7)")]
        let value = unsafe {
            libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attributes, size, 0)
        };
        let shown = || format!("files={files:#x}, ports={ports:#x}");
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        #[expect(unsafe_code, reason = "taking ownership of a new descriptor")]
        let result = answer(value).map(|number| unsafe { OwnedFd::from_raw_fd(number) });
        observe("landlock_create_ruleset", shown, result).map(Self)
    }

    /// Allows something for the file or directory behind `place`, and what is below it.
    pub fn allow_beneath(&self, place: BorrowedFd<'_>, allowed: u64) -> Result<()> {
        const LANDLOCK_RULE_PATH_BENEATH: libc::c_int = 1;
        let rule = PathBeneathAttr { allowed, parent: place.as_raw_fd() };
        // SAFETY: the rule is a local of the layout that this type of rule has.
        #[expect(unsafe_code, reason = "no crate of ours wraps landlock(7)")]
        let value = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                self.0.as_raw_fd(),
                LANDLOCK_RULE_PATH_BENEATH,
                &raw const rule,
                0,
            )
        };
        let shown = || format!("PATH_BENEATH, {}, {allowed:#x}", place.as_raw_fd());
        observe("landlock_add_rule", shown, answer(value).map(drop))
    }

    /// Allows something for a TCP port.
    pub fn allow_port(&self, port: u16, allowed: u64) -> Result<()> {
        const LANDLOCK_RULE_NET_PORT: libc::c_int = 2;
        let rule = PortAttr { allowed, port: port.into() };
        // SAFETY: the rule is a local of the layout that this type of rule has.
        #[expect(unsafe_code, reason = "no crate of ours wraps landlock(7)")]
        let value = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                self.0.as_raw_fd(),
                LANDLOCK_RULE_NET_PORT,
                &raw const rule,
                0,
            )
        };
        observe("landlock_add_rule", || format!("NET_PORT, {port}"), answer(value).map(drop))
    }

    /// Puts this process under the rules. Needs `no_new_privs` or `CAP_SYS_ADMIN`.
    pub fn enforce(&self) -> Result<()> {
        // SAFETY: the call takes two numbers.
        #[expect(unsafe_code, reason = "no crate of ours wraps landlock(7)")]
        let value =
            unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0) };
        let shown = || self.0.as_raw_fd().to_string();
        observe("landlock_restrict_self", shown, answer(value).map(drop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_knows_more() {
        assert_eq!(files::known(1), 0x1fff);
        assert_eq!(files::known(3) & files::TRUNCATE, files::TRUNCATE);
        assert_eq!(files::known(4) & files::IOCTL_DEV, 0);
        assert_eq!(files::known(7) & files::IOCTL_DEV, files::IOCTL_DEV);
    }
}
