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

/// Gives this process a core scheduling cookie of its own: no processor core runs a thread with
/// another cookie beside it (Linux 5.14).
///
/// `ENODEV`: the processor has one thread per core, so that nothing ever runs beside it.
/// `EINVAL`: the kernel was built without.
pub fn schedule_cores_alone() -> Result<()> {
    const PR_SCHED_CORE: libc::c_int = 62;
    const PR_SCHED_CORE_CREATE: libc::c_ulong = 1;
    const PR_SCHED_CORE_SCOPE_THREAD_GROUP: libc::c_ulong = 1;
    let zero: libc::c_ulong = 0;
    // SAFETY: this prctl takes numbers only: 0 is the caller, the last address is unused.
    #[expect(unsafe_code, reason = "nix lacks this prctl")]
    let value = unsafe {
        libc::prctl(
            PR_SCHED_CORE,
            PR_SCHED_CORE_CREATE,
            zero,
            PR_SCHED_CORE_SCOPE_THREAD_GROUP,
            zero,
        )
    };
    observe("prctl", || "PR_SCHED_CORE, CREATE".into(), answer(value.into()).map(drop))
}

/// Sets the name that ps(1) and `/proc/PID/comm` show, at most 15 bytes.
pub fn set_name(name: &std::ffi::CStr) -> Result<()> {
    observe("prctl", || format!("PR_SET_NAME, {name:?}"), nix::sys::prctl::set_name(name))
}
