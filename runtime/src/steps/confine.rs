//! # What the kernel offers
//! A session keyring holds keys for a process and its children. A security module (AppArmor,
//! SELinux) labels a process at its next execve(2). A personality changes what uname(2) says.
//!
//! # What we do
//! A new, empty session keyring; the label, written through a procfs of our own; the rest as
//! configured.
//!
//! # What goes wrong without it
//! The container would hold the keys of whoever started it. A label "written" through the image's
//! `/proc` may go to a plain file, and the container runs unconfined (CVE-2019-16884).
//!
//! # By hand
//! ```sh
//! setarch --uname-2.6 uname -r | grep '^2\.6'
//! ls /proc/self/attr/exec
//! ```
//! See session-keyring(7), apparmor(7), personality(2).

use linux::proc::TrustedProc;
use linux::{Errno, keyring};

use crate::error::Cause;

/// Joins a keyring of the container's own. A kernel without keyrings, or a quota that is used up,
/// is no reason to fail: there is then nothing to inherit, or the one that is there is ours.
pub(crate) fn join_keyring(id: &str) -> Result<(), Cause> {
    match keyring::join_new_session(&format!("_ses.{id}")) {
        Err(error) if error.errno == Errno::ENOSYS => Ok(()),
        joined => Ok(joined?),
    }
}

/// Sets the AppArmor profile for the next execve.
pub(crate) fn set_apparmor(proc: &TrustedProc, profile: &str) -> Result<(), Cause> {
    let command = format!("exec {profile}");
    match proc.write("self/attr/apparmor/exec", &command) {
        Err(error) if error.errno == Errno::ENOENT => label(proc, &command, "AppArmor"),
        written => Ok(written?),
    }
}

/// Sets the SELinux label for the next execve.
pub(crate) fn set_selinux(proc: &TrustedProc, context: &str) -> Result<(), Cause> {
    label(proc, context, "SELinux")
}

fn label(proc: &TrustedProc, text: &str, module: &str) -> Result<(), Cause> {
    proc.write("self/attr/exec", text).map_err(|error| {
        Cause {
            // Podman looks for a file of procfs between back-ticks.
            text: format!("write to `/proc/self/attr/exec`: {error}"),
            errno: error.errno as i32,
            remedy: None,
        }
        .remedy(format!("is {module} on in this kernel?"))
    })
}
