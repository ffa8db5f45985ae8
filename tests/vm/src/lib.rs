//! The Linux guests in which minirun is tested.
//!
//! A guest is built by this crate from Debian's packages, cached by the hash of what it is made
//! of, run under QEMU and thrown away: cgroup v2 with every controller, kernels 6.1 and 6.12, on
//! any Linux host and without touching it.
//!
//! ```no_run
//! use vm::{Config, Guest, Kernel, Profile};
//!
//! let config = Config::new(Kernel::V6_12, Profile::Quick).share("target")?;
//! let mut guest = Guest::boot(&config)?;
//! let output = guest.run(&["cat", "/sys/fs/cgroup/cgroup.controllers"])?;
//! assert!(output.status.success());
//! # anyhow::Ok(())
//! ```
//! What happens in which order: [`Guest::boot`] takes the kernel, the root file system and the
//! initrd from the cache (or builds them), starts QEMU, and waits for the greeting of the guest's
//! side, which is the program `vm` itself in the initrd. Commands and their output then go
//! through one virtio-serial port.

mod accel;
mod agent;
mod cache;
mod cpio;
mod debian;
mod guest;
mod host;
mod initrd;
mod kernel;
mod machine;
mod protocol;
mod rootfs;
mod shell;

pub use agent::enter_if_guest;
pub use cache::Cache;
pub use guest::{Command, Config, Guest, GuestError, Output, Share, quote};
pub use host::ensure_host_packages;
pub use kernel::Kernel;
pub use protocol::Status;
pub use rootfs::Profile;
pub use shell::shell;

use anyhow::Result;

/// Builds the parts of a guest; with `update` from Debian's newest packages.
///
/// # Errors
/// When a part cannot be built.
pub fn build(cache: &Cache, kernel: Kernel, profile: Profile, update: bool) -> Result<()> {
    let kernel = kernel::build(cache, kernel, update)?;
    rootfs::build(cache, profile, update)?;
    initrd::build(cache, &kernel, &initrd::this_program()?)?;
    Ok(())
}
