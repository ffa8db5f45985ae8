//! System-call filters, seccomp(2).

use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;

use crate::trace::{Outcome, answer, observe};
use crate::{Error, Result};

/// One instruction of a classic BPF program: code, jumps when true and false, operand.
pub use libc::sock_filter as SockFilter;

/// The longest program that the kernel takes (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// How a filter is attached: `SECCOMP_FILTER_FLAG_*`, combined with `|`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(u32);

impl Flags {
    /// Nothing special.
    pub const NONE: Self = Self(0);
    /// All threads of the process get the filter, and it is an error (`ESRCH`) where one cannot.
    pub const TSYNC: Self = Self(1 << 0 | 1 << 4);
    /// Every action but "allow" is written to the audit log.
    pub const LOG: Self = Self(1 << 1);
    /// No mitigation of speculative store bypass for the filtered process.
    pub const SPEC_ALLOW: Self = Self(1 << 2);
    /// [`load`] returns a descriptor that answers for the calls which the filter hands to it.
    pub const NEW_LISTENER: Self = Self(1 << 3);
    /// A call that the listener has received can only be interrupted by a fatal signal.
    pub const WAIT_KILLABLE_RECV: Self = Self(1 << 5);

    /// Whether all of `other` is set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags as seccomp(2) takes them.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl std::ops::BitOr for Flags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

/// Puts this process under `program`, for good. The descriptor of the listener comes back when
/// [`Flags::NEW_LISTENER`] is set; it is close-on-exec.
///
/// `EACCES`: the caller has neither no_new_privs nor CAP_SYS_ADMIN. `EINVAL`: the kernel does not
/// know a flag, or refuses the program. `EBUSY`: there is a listener already.
pub fn load(program: &[SockFilter], flags: Flags) -> Result<Option<OwnedFd>> {
    let shown = || format!("SECCOMP_SET_MODE_FILTER, {:#x}, [{}]", flags.0, program.len());
    let Ok(len) = u16::try_from(program.len()) else {
        return Err(Error::new("seccomp", shown(), Errno::EINVAL));
    };
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    let result = set_filter(flags, &program).map(|number| {
        flags.contains(Flags::NEW_LISTENER).then(|| {
            // SAFETY: with this flag the call returns a new descriptor that nobody else knows.
            #[expect(unsafe_code, reason = "taking ownership of a new descriptor")]
            let fd = unsafe { OwnedFd::from_raw_fd(number) };
            fd
        })
    });
    observe("seccomp", shown, result)
}

/// Whether this kernel knows all of `flags`. Nothing changes for the process.
pub fn supports(flags: Flags) -> bool {
    let nothing = std::ptr::null();
    // The kernel looks at the flags before it looks at the program, so a missing program tells.
    // WAIT_KILLABLE_RECV is known only in company of a listener.
    set_filter(flags | Flags::NEW_LISTENER, nothing) == Err(Errno::EFAULT)
}

/// Whether this kernel knows the action of a filter's return value (its data is ignored).
pub fn is_action_available(action: u32) -> bool {
    let action = action & libc::SECCOMP_RET_ACTION_FULL;
    // SAFETY: the kernel reads one u32 that outlives the call.
    #[expect(unsafe_code, reason = "nix has no seccomp(2)")]
    let value = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action)
    };
    value == 0
}

/// The sizes that this kernel gives to the messages between it and a listener, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotificationSizes {
    /// `struct seccomp_notif`.
    pub notification: u16,
    /// `struct seccomp_notif_resp`.
    pub response: u16,
    /// `struct seccomp_data`.
    pub data: u16,
}

impl Outcome for NotificationSizes {
    fn outcome(&self) -> String {
        "0".into()
    }
}

/// Asks for the sizes that a listener must reserve: newer kernels may send more than we know.
pub fn notification_sizes() -> Result<NotificationSizes> {
    let mut sizes =
        libc::seccomp_notif_sizes { seccomp_notif: 0, seccomp_notif_resp: 0, seccomp_data: 0 };
    // SAFETY: the kernel writes one seccomp_notif_sizes, which outlives the call.
    #[expect(unsafe_code, reason = "nix has no seccomp(2)")]
    let value = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, 0, &raw mut sizes)
    };
    let result = answer(value).map(|_| NotificationSizes {
        notification: sizes.seccomp_notif,
        response: sizes.seccomp_notif_resp,
        data: sizes.seccomp_data,
    });
    observe("seccomp", || "SECCOMP_GET_NOTIF_SIZES, 0".into(), result)
}

fn set_filter(flags: Flags, program: *const libc::sock_fprog) -> nix::Result<i32> {
    // SAFETY: the kernel reads what `program` describes, which the caller keeps alive over the
    // call, and answers EFAULT for a null pointer.
    #[expect(unsafe_code, reason = "nix has no seccomp(2)")]
    let value = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags.0, program)
    };
    answer(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_the_flags_of_our_baseline_and_not_more() {
        assert!(supports(Flags::TSYNC | Flags::LOG | Flags::SPEC_ALLOW));
        assert!(!supports(Flags(1 << 30)));
    }

    #[test]
    fn the_kernel_knows_allow_and_not_nonsense() {
        assert!(is_action_available(libc::SECCOMP_RET_ALLOW));
        assert!(is_action_available(libc::SECCOMP_RET_ERRNO | 5));
        assert!(!is_action_available(0x1234_0000));
    }

    #[test]
    fn notifications_are_at_least_as_large_as_we_know_them() {
        let sizes = notification_sizes().unwrap();
        assert!(usize::from(sizes.notification) >= size_of::<libc::seccomp_notif>());
        assert!(usize::from(sizes.data) >= size_of::<libc::seccomp_data>());
    }

    #[test]
    fn a_program_too_long_for_the_call_is_refused() {
        let instruction = SockFilter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
        let error = load(&vec![instruction; 70_000], Flags::NONE).unwrap_err();
        assert_eq!(error.errno, Errno::EINVAL);
    }
}
