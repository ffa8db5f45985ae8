//! Process 1 of the quick guest: what an init system would set up, without one.

use std::{convert::Infallible, fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use rustix::{
    mount::{MountFlags, mount},
    process::{Pid, WaitOptions},
    system::RebootCommand,
};

use super::INSTALLED;

/// File systems beyond what the initrd mounted: type, place, flags, data.
const MOUNTS: &[(&str, &str, MountFlags, &core::ffi::CStr)] = &[
    (
        "devpts",
        "/dev/pts",
        MountFlags::NOSUID.union(MountFlags::NOEXEC),
        c"mode=620,ptmxmode=666,gid=5",
    ),
    ("tmpfs", "/dev/shm", MountFlags::NOSUID.union(MountFlags::NODEV), c"mode=1777"),
    ("mqueue", "/dev/mqueue", NOEXEC, c""),
    ("tmpfs", "/tmp", MountFlags::NOSUID.union(MountFlags::NODEV), c"mode=1777"),
    ("cgroup2", CGROUP, NOEXEC, c"nsdelegate,memory_recursiveprot"),
    ("securityfs", "/sys/kernel/security", NOEXEC, c""),
    ("debugfs", "/sys/kernel/debug", NOEXEC, c""),
    ("tracefs", "/sys/kernel/tracing", NOEXEC, c""),
    ("bpf", "/sys/fs/bpf", NOEXEC, c"mode=700"),
];

const NOEXEC: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

const CGROUP: &str = "/sys/fs/cgroup";

/// Sets the guest up, starts the server, reaps whatever dies; ends the guest with the server.
pub(super) fn init() -> Result<Infallible> {
    // Mount events would otherwise stay within: shared is what systemd makes of "/".
    let shared =
        rustix::mount::MountPropagationFlags::SHARED | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", shared).context("cannot make / shared")?;
    for (kind, at, flags, data) in MOUNTS {
        if !at.starts_with("/sys") {
            fs::create_dir_all(at)?;
        }
        mount(*kind, *at, *kind, *flags, Some(*data)).with_context(|| format!("mount {at}"))?;
    }
    for (link, target) in
        [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        std::os::unix::fs::symlink(target, format!("/dev/{link}"))?;
    }
    enable_controllers(Path::new(CGROUP))?;
    rustix::system::sethostname(b"vm").context("sethostname")?;
    let up = Command::new("/sbin/ip").args(["link", "set", "lo", "up"]).status()?;
    if !up.success() {
        bail!("cannot bring lo up: {up}");
    }
    let server = Command::new(INSTALLED).args(["serve", "quick"]).spawn()?;
    reap_until(i32::try_from(server.id())?)?;
    rustix::system::reboot(RebootCommand::Restart).context("reboot")?;
    bail!("the guest goes on after its end")
}

/// Hands every controller that the kernel has to the children of the root cgroup.
fn enable_controllers(root: &Path) -> Result<()> {
    let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
    let wanted: Vec<_> = controllers.split_whitespace().map(|name| format!("+{name}")).collect();
    fs::write(root.join("cgroup.subtree_control"), wanted.join(" "))
        .with_context(|| format!("cannot enable {controllers}"))
}

fn reap_until(server: i32) -> Result<()> {
    let server = Pid::from_raw(server).context("no server")?;
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == server => {
                eprintln!("vm-agent: the server ended: {status:?}");
                return Ok(());
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait"),
        }
    }
}
