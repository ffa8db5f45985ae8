//! The program, and what it may do.

use std::path::PathBuf;

use linux::capability::{Set, Sets};
use linux::clone::Strings;
use linux::rlimit::{Limit, RESOURCES};
use linux::terminal::Size;
use oci_spec::runtime::{Capabilities, Linux, LinuxPersonalityDomain, LinuxSeccomp};

use super::confinement::Landlock;
use super::scheduling::Scheduling;
use crate::error::{Error, Result};
use crate::seccomp;

/// Who the program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User number.
    pub user: u32,
    /// Group number.
    pub group: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// File mode creation mask.
    pub umask: Option<u32>,
}

/// A process of a container.
#[derive(Debug)]
pub struct Process {
    /// The command line; the first is the program.
    pub arguments: Vec<String>,
    /// The environment, `NAME=value`.
    pub environment: Vec<String>,
    /// Those two as execve wants them.
    pub strings: (Strings, Strings),
    /// The working directory.
    pub working_directory: PathBuf,
    /// Who.
    pub user: User,
    /// Capability sets; `None` leaves them as they are.
    pub capabilities: Option<Sets>,
    /// Resource limits.
    pub rlimits: Vec<Limit>,
    /// Whether execve can never give more privileges.
    pub no_new_privileges: bool,
    /// AppArmor profile.
    pub apparmor: Option<String>,
    /// SELinux label.
    pub selinux: Option<String>,
    /// How soon the kernel kills it when memory is short.
    pub oom_score_adj: Option<i32>,
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// That terminal's first size.
    pub terminal_size: Option<Size>,
    /// Its system call filter.
    pub filter: Option<seccomp::Compiled>,
    /// What it may do with files and ports.
    pub landlock: Option<Landlock>,
    /// When and where it runs.
    pub scheduling: Scheduling,
}

impl Process {
    /// Decides what a process of config.json (or of `exec --process`) means. `linux` is the section
    /// of its container that holds what is about every process of it.
    pub fn decide(process: &oci_spec::runtime::Process, linux: Option<&Linux>) -> Result<Self> {
        let arguments = process.args().clone().unwrap_or_default();
        if arguments.first().is_none_or(String::is_empty) {
            return Err(wrong("args is empty: there is no program to run"));
        }
        let environment = process.env().clone().unwrap_or_default();
        if let Some(entry) = environment.iter().find(|e| !e.contains('=') || e.starts_with('=')) {
            return Err(wrong(&format!("env: {entry:?} is not NAME=value")));
        }
        let strings = |field: &str, list: &[String]| {
            let list = list.iter().map(String::as_str);
            Strings::new(list).ok_or_else(|| wrong(&format!("{field} holds a NUL byte")))
        };
        let strings = (strings("args", &arguments)?, strings("env", &environment)?);
        if !process.cwd().is_absolute() {
            return Err(wrong(&format!("cwd {:?} is not an absolute path", process.cwd())));
        }
        let user = process.user();
        Ok(Self {
            arguments,
            environment,
            strings,
            working_directory: process.cwd().clone(),
            user: User {
                user: user.uid(),
                group: user.gid(),
                groups: user.additional_gids().clone().unwrap_or_default(),
                umask: user.umask(),
            },
            capabilities: process.capabilities().as_ref().map(sets).transpose()?,
            rlimits: rlimits(process)?,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            apparmor: process.apparmor_profile().clone().filter(|label| !label.is_empty()),
            selinux: process.selinux_label().clone().filter(|label| !label.is_empty()),
            oom_score_adj: oom_score_adj(process)?,
            terminal: process.terminal().unwrap_or(false),
            terminal_size: process.console_size().as_ref().map(|size| Size {
                rows: u16::try_from(size.height()).unwrap_or(u16::MAX),
                columns: u16::try_from(size.width()).unwrap_or(u16::MAX),
            }),
            filter: linux.and_then(|l| l.seccomp().as_ref()).map(compiled).transpose()?,
            landlock: None,
            scheduling: Scheduling::decide(process, linux)?,
        })
    }
}

impl Process {
    /// Adds variables that the configuration does not have. What holds a NUL byte cannot come from
    /// an environment, and changes nothing.
    pub(crate) fn add_environment(&mut self, entries: Vec<String>) {
        if entries.is_empty() {
            return;
        }
        let all: Vec<String> = self.environment.iter().cloned().chain(entries).collect();
        if let Some(strings) = Strings::new(all.iter().map(String::as_str)) {
            self.strings.1 = strings;
            self.environment = all;
        }
    }

    /// The agent of its filter, where it has one.
    pub(crate) fn listener(&self) -> Option<&seccomp::Listener> {
        self.filter.as_ref()?.program.listener.as_ref()
    }
}

/// The value of a variable in a list of `NAME=value`.
pub(crate) fn environment_value<'a>(environment: &'a [String], name: &str) -> Option<&'a str> {
    environment.iter().rev().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
}

fn compiled(profile: &LinuxSeccomp) -> Result<seccomp::Compiled> {
    let wrong = |error: &dyn std::fmt::Display| {
        Error::Config(format!("config.json: linux.seccomp: {error}"))
    };
    let compiled = seccomp::compile(profile).map_err(|error| wrong(&error))?;
    if compiled.program.listener.is_some() {
        // Init is under the filter before its agent has heard of it.
        for call in ["write", "read"] {
            let verdict =
                seccomp::explain(profile, call, &[0; 6]).map_err(|error| wrong(&error))?;
            if ![seccomp::Action::ALLOW, seccomp::Action::LOG].contains(&verdict.action) {
                return Err(wrong(&format!(
                    "{call} must be allowed where an agent decides: init needs it to hand the \
                     filter's listener over"
                )));
            }
        }
    }
    Ok(compiled)
}

fn sets(capabilities: &oci_spec::runtime::LinuxCapabilities) -> Result<Sets> {
    let set = |names: &Option<Capabilities>| {
        let mut set = Set::default();
        for name in names.iter().flatten() {
            // The parser's names are the kernel's without the prefix.
            let name = format!("CAP_{name}");
            if !set.insert(&name) {
                return Err(wrong(&format!("capabilities: {name} is unknown to this program")));
            }
        }
        Ok(set)
    };
    let mut sets = Sets {
        effective: set(capabilities.effective())?,
        permitted: set(capabilities.permitted())?,
        inheritable: set(capabilities.inheritable())?,
        bounding: set(capabilities.bounding())?,
        ambient: set(capabilities.ambient())?,
    };
    // The kernel takes no other ambient capability. `runc spec` writes some all the same, and runc
    // leaves them out; the plan warns, see `without_effect`.
    sets.ambient = possible_ambient(&sets);
    Ok(sets)
}

fn possible_ambient(sets: &Sets) -> Set {
    sets.ambient.intersection(sets.permitted).intersection(sets.inheritable)
}

/// A warning about ambient capabilities that cannot be raised.
pub(super) fn without_effect(
    process: &oci_spec::runtime::Process,
    plan: &Process,
) -> Option<String> {
    let asked = process.capabilities().as_ref()?.ambient().as_ref()?;
    let sets = plan.capabilities?;
    let mut names: Vec<_> = asked
        .iter()
        .map(|name| format!("CAP_{name}"))
        .filter(|name| !sets.ambient.contains(name))
        .collect();
    names.sort();
    (!names.is_empty()).then(|| {
        format!("{} cannot be ambient: not both permitted and inheritable", names.join(", "))
    })
}

fn rlimits(process: &oci_spec::runtime::Process) -> Result<Vec<Limit>> {
    let mut limits: Vec<Limit> = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        let name = limit.typ().to_string();
        let known = RESOURCES.iter().find(|(known, _)| *known == name);
        let (_, resource) =
            known.ok_or_else(|| wrong(&format!("rlimits: {name} is unknown on Linux")))?;
        if limits.iter().any(|other| other.resource == *resource) {
            return Err(wrong(&format!("rlimits: {name} is there twice")));
        }
        if limit.soft() > limit.hard() {
            return Err(wrong(&format!(
                "rlimits: {name}: the soft limit {} is above the hard limit {}",
                limit.soft(),
                limit.hard()
            )));
        }
        limits.push(Limit { resource: *resource, soft: limit.soft(), hard: limit.hard() });
    }
    Ok(limits)
}

fn oom_score_adj(process: &oci_spec::runtime::Process) -> Result<Option<i32>> {
    match process.oom_score_adj() {
        Some(value) if !(-1000..=1000).contains(&value) => {
            Err(wrong(&format!("oomScoreAdj {value} is not between -1000 and 1000")))
        }
        value => Ok(value),
    }
}

/// The execution domain, linux/personality.h.
pub(super) fn personality(linux: &Linux) -> Result<Option<u64>> {
    let Some(personality) = linux.personality() else { return Ok(None) };
    if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(Error::Config(
            "config.json: linux.personality.flags: the specification defines none".into(),
        ));
    }
    Ok(Some(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0x0,
        LinuxPersonalityDomain::PerLinux32 => 0x8,
    }))
}

pub(super) fn wrong(what: &str) -> Error {
    Error::Config(format!("config.json: process.{what}"))
}
