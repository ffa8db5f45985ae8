//! Switches of a process, prctl(2).

use nix::sys::signal::Signal;

use crate::Result;
use crate::trace::{answer, observe};

/// Forbids this process and all that come from it to gain privileges by execve(2).
pub fn set_no_new_privileges() -> Result<()> {
    observe("prctl", || "PR_SET_NO_NEW_PRIVS, 1".into(), nix::sys::prctl::set_no_new_privs())
}

/// Gets SIGKILL when the parent dies; `false` switches that off.
pub fn die_with_parent(on: bool) -> Result<()> {
    let signal = on.then_some(Signal::SIGKILL);
    let shown = || format!("PR_SET_PDEATHSIG, {}", if on { "SIGKILL" } else { "0" });
    observe("prctl", shown, nix::sys::prctl::set_pdeathsig(signal))
}

/// Hides `/proc/PID` of this process from everybody without privileges over its user namespace, and
/// makes it impossible to trace: what a container could otherwise do to a process that enters it.
pub fn set_undumpable() -> Result<()> {
    observe("prctl", || "PR_SET_DUMPABLE, 0".into(), nix::sys::prctl::set_dumpable(false))
}

/// Becomes the parent of orphaned descendants, or stops to be.
pub fn set_child_subreaper(on: bool) -> Result<()> {
    let shown = || format!("PR_SET_CHILD_SUBREAPER, {}", u8::from(on));
    observe("prctl", shown, nix::sys::prctl::set_child_subreaper(on))
}

/// Keeps the permitted capabilities over a change of user.
pub fn keep_capabilities(on: bool) -> Result<()> {
    let shown = || format!("PR_SET_KEEPCAPS, {}", u8::from(on));
    observe("prctl", shown, nix::sys::prctl::set_keepcaps(on))
}

/// Sets the execution domain, personality(2).
pub fn set_personality(persona: u64) -> Result<()> {
    // SAFETY: personality takes a number.
    #[expect(unsafe_code, reason = "nix's flags lack the domains")]
    let value = unsafe { libc::personality(persona) };
    observe("personality", || format!("{persona:#x}"), answer(value.into()).map(drop))
}

/// Sets the name that ps(1) and `/proc/PID/comm` show, at most 15 bytes.
pub fn set_name(name: &std::ffi::CStr) -> Result<()> {
    observe("prctl", || format!("PR_SET_NAME, {name:?}"), nix::sys::prctl::set_name(name))
}
