//! # What the kernel offers
//! A namespace is one process's view of one kind of thing: process numbers, mounts, the network,
//! host names, IPC, users, cgroups, clocks. clone3(2) makes new ones, setns(2) enters existing
//! ones, and a process keeps them until it ends. Eight kinds of views, put together, are what people
//! call a container; there is no other object of that name in the kernel.
//!
//! # What we do
//! New namespaces are made by the clone that makes the init process, all at once. Existing ones
//! (the network of a pod, say) are opened by the parent, checked to be what they are said to be,
//! and entered here, the mount namespace last because paths mean something else after it. A time
//! namespace is special: its clocks are set while it is empty, and it is entered by execve(2).
//!
//! # What goes wrong without it
//! Everything. With a shared PID namespace `kill -1` in the container is `kill -1` on the host.
//! And a path that is trusted to be a namespace without a look can be any file.
//!
//! # By hand
//! ```sh
//! unshare --uts sh -c 'hostname inside; hostname' | grep -x inside
//! unshare --pid --fork --mount-proc sh -c 'echo $$' | grep -x 1
//! unshare --net sh -c 'ls /sys/class/net | wc -l; ip link show lo' | grep 'state DOWN'
//! ```
//! See namespaces(7), clone(2), setns(2), time_namespaces(7).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use linux::namespace::{self, Kind, Namespaces};
use linux::proc::TrustedProc;

use crate::error::Cause;
use crate::plan::NamespacePlan;

/// Namespaces that exist already, opened and checked.
pub(crate) type Opened = Vec<(Kind, OwnedFd)>;

/// Opens the namespaces to enter. The parent does it, where their paths mean what the caller meant.
pub(crate) fn open(plan: &NamespacePlan) -> Result<Opened, Cause> {
    plan.join
        .iter()
        .map(|(kind, path)| {
            let opened = namespace::open(path, *kind);
            opened.map(|fd| (*kind, fd)).map_err(|error| {
                Cause::from(error).remedy(format!(
                    "{} must be a namespace of kind {}, like /proc/PID/ns/{}",
                    path.display(),
                    kind.proc_name(),
                    kind.proc_name()
                ))
            })
        })
        .collect()
}

/// Enters them. User and PID namespace are left out: others have seen to them before the clone, see
/// [`crate::container`].
pub(crate) fn enter(opened: &Opened) -> linux::Result<()> {
    opened
        .iter()
        .filter(|(kind, _)| ![Kind::User, Kind::Pid].contains(kind))
        .try_for_each(|(kind, file)| namespace::enter(file.as_fd(), *kind))
}

/// Makes a time namespace, sets its clocks, and enters it.
///
/// unshare(2) makes it for children only, so that its clocks can be set before anybody is in it.
/// execve(2) enters it as well, but not on every kernel (not on 6.1): so this process does.
pub(crate) fn set_clocks(plan: &NamespacePlan) -> linux::Result<()> {
    namespace::unshare(Namespaces::from_iter([Kind::Time]))?;
    if !plan.clock_offsets.is_empty() {
        write_offsets(plan)?;
    }
    let made = namespace::open(Path::new("/proc/self/ns/time_for_children"), Kind::Time)?;
    namespace::enter(made.as_fd(), Kind::Time)
}

fn write_offsets(plan: &NamespacePlan) -> linux::Result<()> {
    let lines: String = plan
        .clock_offsets
        .iter()
        .map(|(clock, seconds, nanoseconds)| format!("{clock} {seconds} {nanoseconds}\n"))
        .collect();
    TrustedProc::mount()?.write("self/timens_offsets", &lines)
}
