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
mod command;
mod config;
mod cpio;
mod debian;
mod error;
mod guest;
mod host;
mod initrd;
mod kernel;
mod machine;
mod protocol;
mod rootfs;
mod shell;
mod suite;

pub use agent::enter_if_guest;
pub use cache::Cache;
pub use command::{Command, Output, quote};
pub use config::{Config, Share};
pub use error::GuestError;
pub use guest::Guest;
pub use host::{ensure_host_packages, ensure_packages};
pub use kernel::Kernel;
pub use protocol::Status;
pub use rootfs::Profile;
pub use shell::shell;
pub use suite::{Suite, Verdict};

use std::collections::BTreeSet;

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

/// Removes what the cache holds of other versions of kernels, packages and this program; gives
/// the names of what was removed.
///
/// # Errors
/// When something cannot be removed.
pub fn clean_old(cache: &Cache) -> Result<Vec<String>> {
    let program = host::read(&initrd::this_program()?)?;
    let mut kept: BTreeSet<String> = ["accelerator", "apt"].map(String::from).into();
    for profile in Profile::ALL {
        let image = rootfs::image(profile);
        kept.insert(image.replace(".ext4", ".packages"));
        kept.insert(image);
    }
    for kernel in Kernel::ALL {
        kept.insert(format!("kernel-{kernel}"));
        if let Some(built) = kernel::current(cache, kernel) {
            kept.insert(initrd::name(&built, &program));
            kept.insert(format!("kernel-{}", built.key));
        }
    }
    cache.retain(|name| kept.contains(name))
}
