//! From the initrd to the root file system.

use std::{convert::Infallible, fs, os::unix::process::CommandExt, process::Command, thread};
use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, mount, mount_move};

use super::INSTALLED;
use crate::initrd::{MODULES, MODULES_DISK, ROOT_DISK};

/// Loads the modules that the initrd brought, mounts the root file system and starts its init.
pub(super) fn boot(profile: &str) -> Result<Infallible> {
    let modules = load_modules()?;
    for (kind, at) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        fs::create_dir_all(at)?;
        mount(kind, at, kind, MountFlags::empty(), None).with_context(|| format!("mount {at}"))?;
    }
    mount_disk(ROOT_DISK, "/root", MountFlags::NOATIME)?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    mount_disk(MODULES_DISK, "/root/lib/modules", MountFlags::RDONLY)
        .with_context(|| format!("the modules of {} ({modules} loaded)", release.trim()))?;
    mount("tmpfs", "/root/run", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=755"))
        .context("mount /run")?;
    fs::copy("/vm-agent", format!("/root{INSTALLED}"))?;
    for at in ["/dev", "/proc", "/sys"] {
        mount_move(at, format!("/root{at}")).with_context(|| format!("move {at}"))?;
    }
    // switch_root: an initramfs cannot be pivoted away from, only covered.
    std::env::set_current_dir("/root")?;
    mount_move(".", "/").context("move the root file system")?;
    rustix::process::chroot(".").context("chroot")?;
    std::env::set_current_dir("/")?;
    let mut init = match profile {
        "quick" => Command::new(INSTALLED),
        "full" => Command::new("/sbin/init"),
        other => bail!("no profile {other}"),
    };
    if profile == "quick" {
        init.arg("init");
    }
    Err(init.env_clear().exec()).with_context(|| format!("cannot run {init:?}"))
}

/// Loads every module below [`MODULES`] in the order of their names; says how many.
fn load_modules() -> Result<usize> {
    let mut files = Vec::new();
    for entry in fs::read_dir(MODULES)? {
        files.push(entry?.path());
    }
    files.sort();
    for file in &files {
        let module = fs::File::open(file)?;
        rustix::system::finit_module(&module, c"", 0)
            .with_context(|| format!("cannot load {}", file.display()))?;
    }
    Ok(files.len())
}

fn mount_disk(device: &str, at: &str, flags: MountFlags) -> Result<()> {
    // The disk is found in the background after its driver is loaded.
    for _ in 0..500 {
        if Path::new(device).exists() {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    fs::create_dir_all(at)
        .or_else(|error| if Path::new(at).is_dir() { Ok(()) } else { Err(error) })?;
    mount(device, at, "ext4", flags, Some(c"noinit_itable"))
        .with_context(|| format!("mount {device} on {at}"))
}
