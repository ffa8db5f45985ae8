//! How a filter is attached.

use linux::seccomp::Flags;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompFilterFlag as Named};

/// The flags that a profile can name, and what they are to the kernel; sorted by name.
pub(super) const NAMED: [(Named, Flags); 4] = [
    (Named::SeccompFilterFlagLog, Flags::LOG),
    (Named::SeccompFilterFlagSpecAllow, Flags::SPEC_ALLOW),
    (Named::SeccompFilterFlagTsync, Flags::TSYNC),
    (Named::SeccompFilterFlagWaitKillableRecv, Flags::WAIT_KILLABLE_RECV),
];

/// The flags of a profile; `notifies` when a rule hands calls to a listener.
///
/// A profile without a list of flags gets SPEC_ALLOW, as in runc: kernels before 5.16 slow every
/// filtered process down to mitigate speculative store bypass, newer ones do so only when asked.
/// An empty list means none. WAIT_KILLABLE_RECV is about waiting for the listener; the kernel
/// refuses it where there is none, and there it has nothing to say.
pub(super) fn of(profile: &LinuxSeccomp, notifies: bool) -> Flags {
    let mut flags = if notifies { Flags::NEW_LISTENER } else { Flags::NONE };
    let Some(named) = profile.flags() else { return flags | Flags::SPEC_ALLOW };
    for (name, flag) in NAMED {
        let pointless = name == Named::SeccompFilterFlagWaitKillableRecv && !notifies;
        if named.contains(&name) && !pointless {
            flags |= flag;
        }
    }
    flags
}
