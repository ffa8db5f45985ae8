//! # What the kernel offers
//! Root's power is cut into about forty capabilities. A process has five sets of them: what counts
//! now, what it may raise, what it may pass on, the most that any program it executes may get, and
//! what survives execve(2) without being root.
//!
//! # What we do
//! First the bounding set, which needs a capability to be cut; then groups and user, keeping what we
//! have over the change; then the other sets, in one call; the ambient set last. What the
//! configuration does not name is gone for good.
//!
//! # What goes wrong without it
//! With all capabilities, root in a container loads kernel modules and sets the clock. And a set that
//! is passed on by mistake (inheritable) has given programs what their user never had
//! (CVE-2022-29162).
//!
//! # By hand
//! ```sh
//! setpriv --bounding-set -all,+kill sh -c 'grep CapBnd /proc/self/status' | grep 0000000000000020
//! setpriv --reuid 1000 --regid 1000 --clear-groups sh -c 'grep CapEff /proc/self/status' | grep 0000000000000000
//! ```
//! See capabilities(7), capset(2), credentials(7).

use linux::capability::{self, Sets};
use linux::{credentials, prctl};

use crate::error::Cause;
use crate::plan::User;

/// The file mode creation mask of a program whose configuration names none.
const USUAL_UMASK: u32 = 0o022;

/// Becomes the user, with just these capabilities.
pub(crate) fn become_user(
    user: &User,
    sets: Option<&Sets>,
    may_set_groups: bool,
) -> Result<(), Cause> {
    if let Some(sets) = sets {
        capability::limit_bounding(sets.bounding)?;
    }
    // Only a change from root to somebody else takes capabilities away. execve(2) ends this by
    // itself.
    if sets.is_some() && user.user != 0 {
        prctl::keep_capabilities(true)?;
    }
    set_groups(user, may_set_groups)?;
    credentials::set_group(user.group).map_err(unmapped("group"))?;
    credentials::set_user(user.user).map_err(unmapped("user"))?;
    // Not the caller's: that differs from engine to engine.
    credentials::set_umask(user.umask.unwrap_or(USUAL_UMASK));
    if let Some(sets) = sets {
        capability::set(sets).map_err(|error| {
            Cause::from(error).remedy("the configuration asks for capabilities that we do not hold")
        })?;
        capability::raise_ambient(sets.ambient).map_err(|error| {
            Cause::from(error)
                .remedy("an ambient capability must be permitted and inheritable as well")
        })?;
    }
    Ok(())
}

/// A group that is silently not dropped can take access away from others, so that a failure counts
/// unless the kernel forbids the call altogether (an unprivileged user namespace).
fn set_groups(user: &User, may_set_groups: bool) -> Result<(), Cause> {
    if may_set_groups {
        return Ok(credentials::set_groups(&user.groups)?);
    }
    // Its own group it has in any case.
    if user.groups.iter().all(|group| *group == user.group) {
        return Ok(());
    }
    Err(Cause::new("additionalGids cannot be set in this user namespace").remedy(
        "an unprivileged user namespace with only the caller's group forbids setgroups(2): map \
         ranges of /etc/subgid, or remove additionalGids",
    ))
}

fn unmapped(what: &str) -> impl FnOnce(linux::Error) -> Cause {
    let what = what.to_owned();
    move |error| {
        let cause = Cause::from(error.clone());
        if error.errno == linux::Errno::EINVAL {
            return cause.remedy(format!("this {what} is not mapped in the user namespace"));
        }
        cause
    }
}
