//! System-call filters: from the profile in config.json to a program for the kernel.
//!
//! ```text
//! LinuxSeccomp ──policy──▶ rules of each call ──ranges──▶ fates over all numbers ──program──▶ BPF
//!                              │                                                        │
//!                              └── explain: which rule decides        interpreter: runs it
//! ```
//!
//! Everything here is pure; [`linux::seccomp::load`] hands the program to the kernel. We do not use
//! libseccomp, because its compilation alone takes longer than the rest of a container's start, but
//! we mean what it means: the tests compare verdicts call by call. See `docs/reference/seccomp.md`.

mod action;
mod architecture;
mod audit;
mod condition;
mod default_profile;
mod error;
mod explain;
mod flags;
mod interpreter;
mod multiplexed;
mod policy;
mod program;
mod ranges;
mod syscalls;

use std::path::PathBuf;

use linux::seccomp::{Flags, SockFilter};
use oci_spec::runtime::{Arch, LinuxSeccomp};

pub use action::Action;
pub use architecture::Architecture;
pub use audit::killed_for;
pub use default_profile::default_profile;
pub use error::Error;
pub use explain::{Reason, Verdict, explain, explain_on};
pub use interpreter::{Call, Fault, run};

use policy::Policy;

/// The actions that a profile can name, sorted.
pub fn action_names() -> Vec<String> {
    action::NAMED.iter().map(ToString::to_string).collect()
}

/// The operators that a profile can name, sorted.
pub fn operator_names() -> Vec<String> {
    condition::NAMED.iter().map(ToString::to_string).collect()
}

/// The architectures that a profile can name with effect on this machine, sorted.
pub fn architecture_names() -> Vec<String> {
    let family = Architecture::NATIVE.family().iter();
    let mut names: Vec<_> = family.map(|architecture| architecture.oci().to_string()).collect();
    names.sort_unstable();
    names
}

/// The flags that a profile can name, sorted.
pub fn flag_names() -> Vec<String> {
    flags::NAMED.iter().map(|(named, _)| named.to_string()).collect()
}

/// Those of [`flag_names`] that this kernel knows.
pub fn supported_flag_names() -> Vec<String> {
    let supported = flags::NAMED.iter().filter(|(_, flag)| linux::seccomp::supports(*flag));
    supported.map(|(named, _)| named.to_string()).collect()
}

/// A filter, ready to be loaded.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program.
    pub instructions: Vec<SockFilter>,
    /// How to load it; has [`Flags::NEW_LISTENER`] when there is a listener.
    pub flags: Flags,
    /// Who answers for the calls that the filter hands out.
    pub listener: Option<Listener>,
}

/// The agent that decides about calls with `SCMP_ACT_NOTIFY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The Unix socket that gets the container's state and the descriptor.
    pub path: PathBuf,
    /// Text for the agent, passed on as it is.
    pub metadata: Option<String>,
}

/// A compiled profile, and what of it has no effect.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// What to load.
    pub program: Program,
    /// Names of calls that no architecture of the filter has, in the profile's order. That is
    /// usual: profiles name the calls of all architectures.
    pub skipped: Vec<String>,
    /// Architectures in the profile whose programs cannot run on this machine.
    pub unreachable: Vec<Arch>,
}

/// Compiles a profile for the architecture that this program runs on.
pub fn compile(profile: &LinuxSeccomp) -> Result<Compiled, Error> {
    compile_for(profile, Architecture::NATIVE)
}

/// Compiles a profile for a kernel of the architecture `native`.
pub fn compile_for(profile: &LinuxSeccomp, native: Architecture) -> Result<Compiled, Error> {
    let policy = Policy::of(profile, native)?;
    let listener = listener(profile, policy.notifies)?;
    let instructions = program::of(&policy, native);
    if instructions.len() > linux::seccomp::MAX_INSTRUCTIONS {
        return Err(Error::TooLong { instructions: instructions.len() });
    }
    let flags = flags::of(profile, policy.notifies);
    let program = Program { instructions, flags, listener };
    Ok(Compiled { program, skipped: policy.skipped, unreachable: policy.unreachable })
}

fn listener(profile: &LinuxSeccomp, notifies: bool) -> Result<Option<Listener>, Error> {
    let metadata = profile.listener_metadata().clone();
    match profile.listener_path() {
        Some(path) => Ok(notifies.then(|| Listener { path: path.clone(), metadata })),
        None if notifies => Err(Error::NoListener),
        None if metadata.is_some() => Err(Error::MetadataWithoutListener),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests;
