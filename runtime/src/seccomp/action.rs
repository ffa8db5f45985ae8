//! What the kernel does with a call: the value that a filter returns.

use std::fmt;

use oci_spec::runtime::LinuxSeccompAction;

use super::Error;

/// The value that a filter returns for a call: what to do in the upper 16 bits, data for it in the
/// lower ones. See seccomp(2), "Filters".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action(u32);

impl Action {
    /// Makes the call.
    pub const ALLOW: Self = Self(0x7fff_0000);
    /// Makes the call and leaves a line in the audit log.
    pub const LOG: Self = Self(0x7ffc_0000);
    /// Asks the process that holds the listener.
    pub const NOTIFY: Self = Self(0x7fc0_0000);
    /// Sends SIGSYS.
    pub const TRAP: Self = Self(0x0003_0000);
    /// Kills the calling thread, as if by SIGSYS.
    pub const KILL_THREAD: Self = Self(0x0000_0000);
    /// Kills the whole process, as if by SIGSYS.
    pub const KILL_PROCESS: Self = Self(0x8000_0000);
    /// Fails the call as a kernel does that does not know it.
    pub const ENOSYS: Self = Self(ERRNO | 38);

    /// The value as the kernel sees it.
    pub fn raw(self) -> u32 {
        self.0
    }

    /// The action behind a filter's return value.
    pub fn from_raw(value: u32) -> Self {
        Self(value)
    }

    /// The action that a profile names, with its `errnoRet`. `place` is where it stands, for
    /// errors.
    pub(super) fn of_profile(
        action: LinuxSeccompAction,
        errno: Option<u32>,
        place: impl FnOnce() -> String,
    ) -> Result<Self, Error> {
        use LinuxSeccompAction as Named;
        let largest = match action {
            Named::ScmpActErrno => MAX_ERRNO,
            Named::ScmpActTrace => DATA,
            _ => match errno {
                Some(_) => return Err(Error::ErrnoOfOther { place: place(), action }),
                None => 0,
            },
        };
        if let Some(errno) = errno.filter(|errno| *errno > largest) {
            return Err(Error::ErrnoTooLarge { place: place(), errno, largest });
        }
        Ok(match action {
            Named::ScmpActKill | Named::ScmpActKillThread => Self::KILL_THREAD,
            Named::ScmpActKillProcess => Self::KILL_PROCESS,
            Named::ScmpActTrap => Self::TRAP,
            Named::ScmpActErrno => Self(ERRNO | errno.unwrap_or(EPERM)),
            Named::ScmpActNotify => Self::NOTIFY,
            Named::ScmpActTrace => Self(TRACE | errno.unwrap_or(EPERM)),
            Named::ScmpActLog => Self::LOG,
            Named::ScmpActAllow => Self::ALLOW,
        })
    }

    /// Whether the call is made in the end, perhaps after a tracer has had its say.
    pub(super) fn is_permissive(self) -> bool {
        matches!(self.0 & !DATA, ALLOW | LOG | TRACE)
    }

    /// Order of the kernel when several filters disagree: the lower, the stronger.
    pub(super) fn rank(self) -> i32 {
        (self.0 & !DATA).cast_signed()
    }
}

/// The actions that a profile can name.
pub(super) const NAMED: [LinuxSeccompAction; 9] = [
    LinuxSeccompAction::ScmpActAllow,
    LinuxSeccompAction::ScmpActErrno,
    LinuxSeccompAction::ScmpActKill,
    LinuxSeccompAction::ScmpActKillProcess,
    LinuxSeccompAction::ScmpActKillThread,
    LinuxSeccompAction::ScmpActLog,
    LinuxSeccompAction::ScmpActNotify,
    LinuxSeccompAction::ScmpActTrace,
    LinuxSeccompAction::ScmpActTrap,
];

const ALLOW: u32 = Action::ALLOW.0;
const LOG: u32 = Action::LOG.0;
const ERRNO: u32 = 0x0005_0000;
const TRACE: u32 = 0x7ff0_0000;
const DATA: u32 = 0xffff;
const EPERM: u32 = 1;
/// The kernel cuts larger ones down to this (`MAX_ERRNO` in linux/err.h).
const MAX_ERRNO: u32 = 4095;

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = self.0 & DATA;
        match Self(self.0 & !DATA) {
            Self::ALLOW => f.write_str("allow"),
            Self::LOG => f.write_str("allow and log"),
            Self::NOTIFY => f.write_str("ask the listener"),
            Self::TRAP => f.write_str("send SIGSYS"),
            Self::KILL_THREAD => f.write_str("kill the thread"),
            Self::KILL_PROCESS => f.write_str("kill the process"),
            Self(ERRNO) => {
                let errno = linux::Errno::from_raw(data.cast_signed());
                write!(f, "fail with {errno:?} ({data})")
            }
            Self(TRACE) => write!(f, "ask the tracer (message {data})"),
            Self(other) => write!(f, "return {:#x}", other | data),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(action: LinuxSeccompAction, errno: Option<u32>) -> Result<Action, Error> {
        Action::of_profile(action, errno, || "here".into())
    }

    #[test]
    fn actions_have_the_values_of_the_kernel() {
        use LinuxSeccompAction as Named;
        let raw = |action, errno| of(action, errno).unwrap().raw();
        assert_eq!(raw(Named::ScmpActKill, None), 0);
        assert_eq!(raw(Named::ScmpActKillProcess, None), 0x8000_0000);
        assert_eq!(raw(Named::ScmpActTrap, None), 0x0003_0000);
        assert_eq!(raw(Named::ScmpActErrno, None), 0x0005_0001);
        assert_eq!(raw(Named::ScmpActErrno, Some(0)), 0x0005_0000);
        assert_eq!(raw(Named::ScmpActErrno, Some(95)), 0x0005_005f);
        assert_eq!(raw(Named::ScmpActNotify, None), 0x7fc0_0000);
        assert_eq!(raw(Named::ScmpActTrace, Some(7)), 0x7ff0_0007);
        assert_eq!(raw(Named::ScmpActLog, None), 0x7ffc_0000);
        assert_eq!(raw(Named::ScmpActAllow, None), 0x7fff_0000);
    }

    #[test]
    fn an_errno_that_cannot_be_returned_is_refused() {
        let error = of(LinuxSeccompAction::ScmpActErrno, Some(4096)).unwrap_err();
        assert!(matches!(error, Error::ErrnoTooLarge { errno: 4096, largest: 4095, .. }));
        let error = of(LinuxSeccompAction::ScmpActKill, Some(1)).unwrap_err();
        assert!(matches!(error, Error::ErrnoOfOther { .. }));
    }

    #[test]
    fn ranks_follow_the_kernel() {
        let order = [
            Action::KILL_PROCESS,
            Action::KILL_THREAD,
            Action::TRAP,
            Action::ENOSYS,
            Action::NOTIFY,
            Action(TRACE),
            Action::LOG,
            Action::ALLOW,
        ];
        assert!(order.is_sorted_by(|left, right| left.rank() < right.rank()));
    }

    #[test]
    fn actions_read_as_sentences() {
        assert_eq!(Action(ERRNO | 1).to_string(), "fail with EPERM (1)");
        assert_eq!(Action::ALLOW.to_string(), "allow");
    }
}
