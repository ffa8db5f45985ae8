//! How a container is made: one file per kernel idea, in the order in which they happen.
//!
//! Every file opens with the same four headings, *What the kernel offers · What we do · What goes
//! wrong without it · By hand*. The shell lines under the last are run by the tests, so that the
//! lesson stays true. The sequence itself is in [`crate::container::inside`].

pub(crate) mod cgroup_view;
pub(crate) mod confine;
pub(crate) mod copy_up;
pub(crate) mod credentials;
pub(crate) mod devices;
pub(crate) mod diagnose;
pub(crate) mod filter;
pub(crate) mod handover;
pub(crate) mod hide;
pub(crate) mod hooks;
pub(crate) mod identity;
pub(crate) mod identity_map;
pub(crate) mod landlock;
pub(crate) mod limits;
pub(crate) mod mapped_layers;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub(crate) mod netdev;
pub(crate) mod network;
pub(crate) mod owners;
pub(crate) mod pivot;
pub(crate) mod resctrl;
pub(crate) mod rootfs;
pub(crate) mod schedule;
pub(crate) mod terminal;

use serde::{Deserialize, Serialize};

/// A step of a container's construction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u32)]
pub enum Step {
    /// Nothing has begun.
    Nothing,
    /// Decide everything before anything is done.
    Plan,
    /// Write down that the container exists.
    Record,
    /// Make the cgroup.
    Cgroup,
    /// Clone the init process into its namespaces and cgroup.
    Clone,
    /// Join the cgroup, die with the creator, leave its session.
    Settle,
    /// Map user and group numbers.
    IdentityMap,
    /// Write the limits.
    Limits,
    /// Enter existing namespaces, set clock offsets.
    Namespaces,
    /// Attach the root file system.
    Rootfs,
    /// Mount what the configuration lists.
    Mounts,
    /// Make device nodes and links.
    Devices,
    /// Mask paths and make them read-only.
    Hide,
    /// Run the programs that callers hook in.
    Hooks,
    /// Change the root.
    Pivot,
    /// Host name, loopback, kernel parameters.
    Identity,
    /// Give the container a terminal.
    Terminal,
    /// Keyring, security labels, priorities.
    Confine,
    /// User, groups, capabilities.
    Credentials,
    /// Load the system call filter.
    Filter,
    /// Cables, addresses, routes, published ports.
    Network,
    /// Become the program.
    Handover,
    /// Enter a running container.
    Enter,
    /// Take a container apart into images, or make it of images.
    Checkpoint,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Self; 24] = [
        Self::Nothing,
        Self::Plan,
        Self::Record,
        Self::Cgroup,
        Self::Clone,
        Self::Settle,
        Self::IdentityMap,
        Self::Limits,
        Self::Namespaces,
        Self::Rootfs,
        Self::Mounts,
        Self::Devices,
        Self::Hide,
        Self::Hooks,
        Self::Pivot,
        Self::Identity,
        Self::Terminal,
        Self::Confine,
        Self::Credentials,
        Self::Filter,
        Self::Network,
        Self::Handover,
        Self::Enter,
        Self::Checkpoint,
    ];

    /// The step with that number, [`Step::Nothing`] for a number that is none.
    pub fn from_number(number: u32) -> Self {
        Self::ALL.into_iter().find(|step| *step as u32 == number).unwrap_or(Self::Nothing)
    }

    /// What is done, before the object: `mount` (proc at /proc).
    pub fn verb(self) -> &'static str {
        match self {
            Self::Nothing => "begin",
            Self::Plan => "read",
            Self::Record => "record",
            Self::Cgroup => "make cgroup",
            Self::Clone => "clone",
            Self::Settle => "settle",
            Self::IdentityMap => "map",
            Self::Limits => "limit",
            Self::Namespaces | Self::Enter => "enter",
            Self::Rootfs => "attach root file system",
            Self::Mounts => "mount",
            Self::Devices => "make device",
            Self::Hide => "protect",
            Self::Hooks => "run hook",
            Self::Pivot => "pivot to",
            Self::Identity | Self::Confine => "set",
            Self::Terminal => "open terminal",
            Self::Credentials => "become",
            Self::Filter => "load",
            Self::Network => "connect to",
            Self::Handover => "exec",
            Self::Checkpoint => "work with",
        }
    }

    /// Why it is done, in one sentence, for `--explain`.
    pub fn why(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Plan => "Everything is decided now, so that nothing can surprise us half-way.",
            Self::Record => {
                "What is written down before it exists can be cleaned up after a crash."
            }
            Self::Cgroup => "A cgroup is where the kernel counts and limits what processes use.",
            Self::Clone => {
                "One process is born inside new namespaces: its own view of processes, mounts, \
                 network and names."
            }
            Self::Settle => "Whatever happens to its creator from here on, nothing is left over.",
            Self::IdentityMap => "Root inside becomes an ordinary user outside.",
            Self::Limits => "The kernel enforces these for everything in the cgroup, from now on.",
            Self::Namespaces => "Some views are shared with others instead of new.",
            Self::Rootfs => {
                "Read-only layers below, one writable layer on top: copies only what changes."
            }
            Self::Mounts => {
                "The kernel's own file systems, made anew so that they show this container."
            }
            Self::Devices => "A program needs a few devices; all others stay out of reach.",
            Self::Hide => "Some files of the kernel tell about, or change, the whole machine.",
            Self::Hooks => "Others may set something up now, a network for example.",
            Self::Pivot => "From here on, the host's files have no name any more.",
            Self::Identity => "A name of its own, and a loopback interface that works.",
            Self::Terminal => "A terminal of its own, so that nobody types into ours.",
            Self::Confine => "Keys, labels and priorities that must not come from us.",
            Self::Credentials => "Root's power is cut into pieces, and all but a few are given up.",
            Self::Filter => "Each system call that is not on the list now fails.",
            Self::Network => {
                "A cable to a bridge, and an address: now others can reach it, and it them."
            }
            Self::Handover => {
                "Nothing of us is left in the process: no descriptor, no signal setting."
            }
            Self::Enter => "A new process joins the views of one that exists.",
            Self::Checkpoint => "Processes become files, and files become processes.",
        }
    }

    /// The name of the step's file, and of its row in a trace.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Plan => "plan",
            Self::Record => "record",
            Self::Cgroup => "cgroup",
            Self::Clone => "clone",
            Self::Settle => "settle",
            Self::IdentityMap => "identity_map",
            Self::Limits => "limits",
            Self::Namespaces => "namespaces",
            Self::Rootfs => "rootfs",
            Self::Mounts => "mounts",
            Self::Devices => "devices",
            Self::Hide => "hide",
            Self::Hooks => "hooks",
            Self::Pivot => "pivot",
            Self::Identity => "identity",
            Self::Terminal => "terminal",
            Self::Confine => "confine",
            Self::Credentials => "credentials",
            Self::Filter => "filter",
            Self::Network => "network",
            Self::Handover => "handover",
            Self::Enter => "enter",
            Self::Checkpoint => "checkpoint",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_steps_and_back() {
        for step in Step::ALL {
            assert_eq!(Step::from_number(step as u32), step);
        }
        assert_eq!(Step::from_number(u32::MAX), Step::Nothing);
    }
}
