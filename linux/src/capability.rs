//! The pieces that root's power is cut into, capabilities(7).

use std::str::FromStr;

use caps::{CapSet, Capability};
use nix::errno::Errno;

use crate::trace::{answer, observe};
use crate::{Error, Result};

/// A set of capabilities, one bit each, numbered as in linux/capability.h.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Set(u64);

impl Set {
    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the named capability (`CAP_SYS_ADMIN`) is in the set.
    pub fn contains(self, name: &str) -> bool {
        number(name).is_some_and(|number| self.0 & (1 << number) != 0)
    }

    /// Adds the named capability; `false` when this program does not know the name.
    pub fn insert(&mut self, name: &str) -> bool {
        number(name).map(|number| self.0 |= 1 << number).is_some()
    }

    /// The capabilities that are in both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The names, in numeric order.
    pub fn names(self) -> Vec<String> {
        known()
            .into_iter()
            .filter(|capability| self.0 & (1 << capability.index()) != 0)
            .map(|capability| capability.to_string())
            .collect()
    }
}

/// The number of a capability by its name, upper case as in the OCI configuration.
fn number(name: &str) -> Option<u8> {
    Capability::from_str(name).ok().map(|capability| capability.index())
}

/// The capabilities that this program knows, in numeric order.
fn known() -> Vec<Capability> {
    let mut all: Vec<_> = caps::all().into_iter().collect();
    all.sort_unstable_by_key(Capability::index);
    all
}

/// Every capability name that this program knows, in numeric order.
pub fn all_names() -> Vec<String> {
    Set(u64::MAX).names()
}

/// The five sets of a process.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sets {
    /// What counts now.
    pub effective: Set,
    /// What may be raised into the effective set.
    pub permitted: Set,
    /// What a program with file capabilities may keep.
    pub inheritable: Set,
    /// The most that any execve may give.
    pub bounding: Set,
    /// What a program without file capabilities keeps when it is not root.
    pub ambient: Set,
}

/// Takes everything that is not in `keep` out of the bounding set, `PR_CAPBSET_DROP`.
///
/// It needs `CAP_SETPCAP`, so it comes before the other sets are cut. Numbers that the kernel does
/// not know are passed over.
pub fn limit_bounding(keep: Set) -> Result<()> {
    for capability in known() {
        if keep.0 & (1 << capability.index()) != 0 {
            continue;
        }
        // SAFETY: PR_CAPBSET_DROP takes a number.
        #[expect(unsafe_code, reason = "the caps crate hides the errno of this call")]
        let value = unsafe {
            libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability.index()), 0, 0, 0)
        };
        match answer(value.into()) {
            // EINVAL: a kernel that is older than this list.
            Ok(_) | Err(Errno::EINVAL) => {}
            Err(errno) => {
                return Err(Error::new("prctl", format!("PR_CAPBSET_DROP, {capability}"), errno));
            }
        }
    }
    let kept = || format!("PR_CAPBSET_DROP, /* all but */ {}", keep.names().join("|"));
    observe("prctl", kept, Ok(()))
}

/// Sets the effective, permitted and inheritable sets in one call, capset(2).
pub fn set(sets: &Sets) -> Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`: two 32-bit words per set.
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let word = |set: Set, high: bool| (if high { set.0 >> 32 } else { set.0 } & 0xffff_ffff) as u32;
    let all = known().into_iter().fold(0, |bits, capability| bits | 1 << capability.index());
    let mask = |set: Set| Set(set.0 & all);
    let (effective, permitted, inheritable) =
        (mask(sets.effective), mask(sets.permitted), mask(sets.inheritable));
    let data = [false, true]
        .map(|high| [word(effective, high), word(permitted, high), word(inheritable, high)]);
    // SAFETY: `header` and `data` have the layout of version 3 (two triples) and are only read.
    #[expect(unsafe_code, reason = "the caps crate needs six calls for what capset does in one")]
    let value = unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const data) };
    let shown = || {
        format!(
            "effective={:#x}, permitted={:#x}, inheritable={:#x}",
            effective.0, permitted.0, inheritable.0
        )
    };
    observe("capset", shown, answer(value).map(drop))
}

/// Raises the ambient set; every member must be permitted and inheritable, `PR_CAP_AMBIENT`.
pub fn raise_ambient(set: Set) -> Result<()> {
    for capability in known().into_iter().filter(|c| set.0 & (1 << c.index()) != 0) {
        let result = caps::raise(None, CapSet::Ambient, capability).map_err(|_| Errno::EPERM);
        observe("prctl", || format!("PR_CAP_AMBIENT_RAISE, {capability}"), result)?;
    }
    Ok(())
}

/// The effective set of this process.
pub fn effective() -> Result<Set> {
    caps::read(None, CapSet::Effective)
        .map(|held| Set(held.into_iter().fold(0, |bits, c| bits | 1 << c.index())))
        .map_err(|_| Error::new("capget", "", Errno::EPERM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_numbers_and_back() {
        let mut set = Set::default();
        assert!(set.insert("CAP_KILL"));
        assert!(set.insert("CAP_CHECKPOINT_RESTORE"));
        assert!(!set.insert("CAP_OF_THE_FUTURE"));
        assert_eq!(set.names(), ["CAP_KILL", "CAP_CHECKPOINT_RESTORE"]);
        assert!(set.contains("CAP_KILL") && !set.contains("CAP_CHOWN"));
    }
}
