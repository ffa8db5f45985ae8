//! Why a profile is refused.

use oci_spec::runtime::LinuxSeccompAction;

/// Why a profile cannot become a filter. All places are within `linux.seccomp`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An `errnoRet` beside an action that returns none.
    #[error("{place}: {action} returns no errno: remove errnoRet, or use SCMP_ACT_ERRNO")]
    ErrnoOfOther {
        /// Where it stands.
        place: String,
        /// The action.
        action: LinuxSeccompAction,
    },
    /// An `errnoRet` that no system call can return.
    #[error("{place}: errnoRet {errno} is too large: the kernel takes at most {largest}")]
    ErrnoTooLarge {
        /// Where it stands.
        place: String,
        /// What was asked for.
        errno: u32,
        /// What is possible.
        largest: u32,
    },
    /// The listener would be asked about the very calls by which it is reached.
    #[error("defaultAction: SCMP_ACT_NOTIFY works only for calls that are named in syscalls")]
    NotifyByDefault,
    /// As before, for the one call that reports that the filter is in place.
    #[error("syscalls[{rule}]: SCMP_ACT_NOTIFY cannot be used for write")]
    NotifyOnWrite {
        /// The index of the rule.
        rule: usize,
    },
    /// Calls go to a listener that nobody is told about.
    #[error("SCMP_ACT_NOTIFY is used: set listenerPath to the socket of the seccomp agent")]
    NoListener,
    /// Metadata for nobody.
    #[error("listenerMetadata is set: set listenerPath, too, or remove it")]
    MetadataWithoutListener,
    /// A nameless system call.
    #[error("syscalls[{rule}]: an empty name is no system call")]
    EmptyName {
        /// The index of the rule.
        rule: usize,
    },
    /// A seventh argument.
    #[error("syscalls[{rule}]: system calls have no argument {index}: use 0 to 5")]
    NoSuchArgument {
        /// The index of the rule.
        rule: usize,
        /// What was asked for.
        index: usize,
    },
    /// Two answers to one question.
    #[error(
        "syscalls[{}] and syscalls[{}] decide differently about the same call under the same \
         conditions: remove one of them", rules[0], rules[1]
    )]
    Conflict {
        /// The indices of the two rules.
        rules: [usize; 2],
    },
    /// More than the kernel takes.
    #[error(
        "the profile needs a filter of {instructions} instructions, and the kernel takes {}: \
         use fewer rules with conditions on arguments",
        linux::seccomp::MAX_INSTRUCTIONS
    )]
    TooLong {
        /// What it would take.
        instructions: usize,
    },
    /// A question about a call that is none.
    #[error("no system call is named {name:?} on {architecture}")]
    UnknownSyscall {
        /// What was asked for.
        name: String,
        /// Where it was looked for.
        architecture: super::Architecture,
    },
}
