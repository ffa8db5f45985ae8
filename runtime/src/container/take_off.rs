//! The last steps, of a container's first process and of one that `exec` adds: everything that the
//! program must not have is given up, and then the process *is* the program.

use std::os::fd::AsFd;
use std::path::PathBuf;

use linux::clone::Strings;
use linux::proc::TrustedProc;
use linux::{prctl, signal};

use super::handshake::Line;
use super::inside::failure;
use crate::error::{Cause, Failure};
use crate::explain::Journal;
use crate::plan::Process;
use crate::steps::{Step, confine, credentials, filter, handover, landlock, schedule};

/// What the last steps of init and of an `exec` process need.
pub(crate) struct TakeOff<'a> {
    pub(crate) process: &'a Process,
    pub(crate) proc: Option<&'a TrustedProc>,
    pub(crate) may_set_groups: bool,
    pub(crate) dies_with_parent: bool,
    pub(crate) preserved: u32,
    /// Signals that the process was born to ignore.
    pub(crate) ignored: signal::Set,
    pub(crate) program: PathBuf,
}

/// Gives up everything that the program must not have, and becomes the program.
pub(crate) fn drop_power(
    journal: &mut Journal<'_>,
    last: &TakeOff<'_>,
    line: &Line,
) -> Result<std::convert::Infallible, Failure> {
    let process = last.process;
    if let Some(policy) = &process.scheduling.memory {
        let what = || format!("memory policy {}", policy.name);
        journal.step(Step::Confine, what, || schedule::set_memory_policy(policy))?;
    }
    if let (Some(proc), Some(profile)) = (last.proc, &process.apparmor) {
        let what = || format!("AppArmor profile {profile}");
        journal.step(Step::Confine, what, || confine::set_apparmor(proc, profile))?;
    }
    if let (Some(proc), Some(context)) = (last.proc, &process.selinux) {
        let what = || format!("SELinux label {context}");
        journal.step(Step::Confine, what, || confine::set_selinux(proc, context))?;
    }
    let home = handover::with_home(process);
    // Without no_new_privs, both need CAP_SYS_ADMIN, which is about to go.
    if !process.no_new_privileges {
        enforce_rules(journal, process)?;
        load_filter(journal, process, line)?;
    }
    let user = &process.user;
    let who = || format!("user {}, group {}", user.user, user.group);
    journal.step(Step::Credentials, who, || {
        credentials::become_user(user, process.capabilities.as_ref(), last.may_set_groups)
    })?;
    let (arguments, environment) = &process.strings;
    let environment: &Strings = home.as_ref().unwrap_or(environment);
    journal.step(
        Step::Handover,
        || shown_program(process),
        || {
            handover::enter_working_directory(&process.working_directory)?;
            if last.dies_with_parent {
                // Changing the user has switched it off.
                prctl::die_with_parent(true)?;
            }
            handover::leave_nothing(last.preserved, last.ignored)
        },
    )?;
    let program = || shown_program(process);
    if process.no_new_privileges {
        let what = || "no new privileges".into();
        journal.step(Step::Confine, what, prctl::set_no_new_privileges)?;
        enforce_rules(journal, process)?;
        load_filter(journal, process, line)?;
    }
    let cause = handover::become_program(&last.program, arguments, environment);
    Err(failure(Step::Handover, program(), cause))
}

/// Puts the process under its Landlock rules.
fn enforce_rules(journal: &mut Journal<'_>, process: &Process) -> Result<(), Failure> {
    let Some(rules) = &process.landlock else { return Ok(()) };
    journal.step(Step::Confine, || "Landlock rules".into(), || landlock::enforce(rules))
}

/// Loads the filter, and hands its listener over: an agent decides about some calls from now on.
fn load_filter(journal: &mut Journal<'_>, process: &Process, line: &Line) -> Result<(), Failure> {
    let Some(compiled) = &process.filter else { return Ok(()) };
    let rules = compiled.program.instructions.len();
    let what = || format!("system call filter of {rules} rules");
    if compiled.program.listener.is_none() {
        return journal.step(Step::Filter, what, || filter::load(compiled).map(drop));
    }
    // Nothing is told on the way: a message more is a system call that the filter may hold.
    journal.quietly(Step::Filter, what, || match filter::load(compiled)? {
        Some(listener) => line.offer(listener.as_fd()),
        None => Err(Cause::new("the kernel gave no listener")),
    })
}

/// How people are told of the program.
pub(super) fn shown_program(process: &Process) -> String {
    format!("`{}`", process.arguments.first().map(String::as_str).unwrap_or_default())
}
