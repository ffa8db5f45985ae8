//! Which rule of a profile decides about a call, and how.

use std::fmt;

use oci_spec::runtime::LinuxSeccomp;

use super::policy::{Policy, Rule, Section};
use super::{Action, Architecture, Error, ranges, syscalls};

/// What becomes of a call, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The call's name, or its number where it has none.
    pub syscall: String,
    /// The call's number, for x32 with its bit.
    pub number: u32,
    /// Who calls.
    pub architecture: Architecture,
    /// What the kernel does.
    pub action: Action,
    /// What of the profile decides that.
    pub reason: Reason,
}

/// What of a profile decides about a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A rule.
    Rule {
        /// Its index in `syscalls`.
        index: usize,
        /// Its conditions, as far as this architecture can check them, like `arg0 == 0x1`.
        conditions: Vec<String>,
    },
    /// No rule is about this call.
    NoRule,
    /// Rules are about this call, but the arguments meet none of them.
    NoneHolds {
        /// The conditions of each, in the order in which they were tried.
        tried: Vec<Vec<String>>,
    },
    /// The profile is older than this call: it names nothing with such a high number.
    NewerThanProfile,
    /// The profile is not for this architecture.
    ForeignArchitecture,
}

/// What the profile makes of a call by this program's own architecture. `syscall` is a name or a
/// number; arguments that the caller does not know may be 0.
pub fn explain(
    profile: &LinuxSeccomp,
    syscall: &str,
    arguments: &[u64; 6],
) -> Result<Verdict, Error> {
    explain_on(profile, Architecture::NATIVE, Architecture::NATIVE, syscall, arguments)
}

/// What the profile makes of a call from a program of `architecture` on a kernel for `native`.
pub fn explain_on(
    profile: &LinuxSeccomp,
    native: Architecture,
    architecture: Architecture,
    syscall: &str,
    arguments: &[u64; 6],
) -> Result<Verdict, Error> {
    let number = number_of(syscall, architecture)?;
    let policy = Policy::of(profile, native)?;
    let section = policy.sections.iter().find(|section| section.architecture == architecture);
    let (action, reason) = match section {
        Some(section) => decide(&policy, section, number, arguments),
        None => (ranges::FOREIGN, Reason::ForeignArchitecture),
    };
    let syscall =
        syscalls::name_of(architecture, number).map_or_else(|| number.to_string(), str::to_owned);
    Ok(Verdict { syscall, number, architecture, action, reason })
}

fn decide(
    policy: &Policy,
    section: &Section,
    number: u32,
    arguments: &[u64; 6],
) -> (Action, Reason) {
    let rules = section.rules_about(number);
    if let Some(rule) = rules.iter().find(|rule| rule.holds(arguments)) {
        return (rule.action, Reason::Rule { index: rule.source, conditions: conditions(rule) });
    }
    if !rules.is_empty() {
        let tried = rules.iter().map(conditions).collect();
        return (policy.default, Reason::NoneHolds { tried });
    }
    match policy.newer {
        Some(action) if section.is_new(number) => (action, Reason::NewerThanProfile),
        _ => (policy.default, Reason::NoRule),
    }
}

fn conditions(rule: &Rule) -> Vec<String> {
    rule.conditions.iter().map(ToString::to_string).collect()
}

/// A number as it is written, or a name's number. x32 numbers may be written without their bit.
fn number_of(syscall: &str, architecture: Architecture) -> Result<u32, Error> {
    let written = match syscall.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => syscall.parse().ok(),
    };
    let number = match written {
        Some(number) => Some(number | architecture.number_bit()),
        None => syscalls::by_name(syscall).and_then(|call| call.number(architecture)),
    };
    number.ok_or_else(|| Error::UnknownSyscall { name: syscall.into(), architecture })
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { syscall, number, architecture, action, reason } = self;
        write!(f, "{syscall} (number {number} on {architecture}): {action}: {reason}")
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule { index, conditions } if conditions.is_empty() => {
                write!(f, "syscalls[{index}] says so")
            }
            Self::Rule { index, conditions } => {
                write!(f, "syscalls[{index}] says so where {}", conditions.join(" and "))
            }
            Self::NoRule => f.write_str("no rule is about it, so defaultAction decides"),
            Self::NoneHolds { tried } => {
                let tried: Vec<_> = tried.iter().map(|rule| rule.join(" and ")).collect();
                write!(f, "no rule holds ({}), so defaultAction decides", tried.join("; "))
            }
            Self::NewerThanProfile => {
                f.write_str("the profile names no call this new, so it does not exist")
            }
            Self::ForeignArchitecture => {
                f.write_str("the profile is not for this architecture: see architectures")
            }
        }
    }
}
