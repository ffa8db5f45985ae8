//! Seeing the syscalls: every call of this crate reports here, and it costs one load when off.
//!
//! The recording is per thread. minirun is single-threaded, and a cloned child inherits the
//! switch together with the (then emptied) recording, so that both sides can tell their half.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;

use crate::{Error, Result};

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    static CALLS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Starts to record the syscalls of this thread.
pub fn start() {
    ON.set(true);
    CALLS.with_borrow_mut(Vec::clear);
}

/// Whether this thread records.
pub fn is_on() -> bool {
    ON.get()
}

/// Hands out what was recorded since the last call, oldest first, each like a line of `strace`.
pub fn take() -> Vec<String> {
    CALLS.with_borrow_mut(std::mem::take)
}

/// How a successful result is shown in a recording.
pub trait Outcome {
    /// The text after the `=`.
    fn outcome(&self) -> String;
}

impl Outcome for () {
    fn outcome(&self) -> String {
        "0".into()
    }
}

impl Outcome for OwnedFd {
    fn outcome(&self) -> String {
        self.as_raw_fd().to_string()
    }
}

impl<T: Outcome> Outcome for Option<T> {
    fn outcome(&self) -> String {
        self.as_ref().map_or_else(|| "0".into(), Outcome::outcome)
    }
}

impl<A: Outcome, B> Outcome for (A, B) {
    fn outcome(&self) -> String {
        self.0.outcome()
    }
}

macro_rules! outcome_is_the_number {
    ($($number:ty),*) => {$(
        impl Outcome for $number {
            fn outcome(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
outcome_is_the_number!(i32, u32, u64, usize, nix::unistd::Pid);

/// Turns the result of a syscall into this crate's form and records it when tracing is on.
///
/// `arguments` runs only for an error or a recording, so the usual path formats nothing.
pub fn observe<T: Outcome>(
    call: &'static str,
    arguments: impl FnOnce() -> String,
    result: nix::Result<T>,
) -> Result<T> {
    if is_on() {
        return recorded(call, arguments(), result);
    }
    result.map_err(|errno| Error::new(call, arguments(), errno))
}

#[cold]
fn recorded<T: Outcome>(
    call: &'static str,
    arguments: String,
    result: nix::Result<T>,
) -> Result<T> {
    let outcome = match &result {
        Ok(value) => value.outcome(),
        Err(errno) => format!("-1 {errno:?}"),
    };
    CALLS.with_borrow_mut(|calls| calls.push(format!("{call}({arguments}) = {outcome}")));
    result.map_err(|errno| Error::new(call, arguments, errno))
}

/// The result of a raw syscall that answers with −1 and `errno`.
pub(crate) fn answer(value: libc::c_long) -> nix::Result<i32> {
    match i32::try_from(value) {
        Ok(-1) => Err(Errno::last()),
        Ok(value) => Ok(value),
        Err(_) => Err(Errno::EOVERFLOW),
    }
}

/// A path or name between quotes, as `strace` shows it.
pub(crate) fn quoted(path: &std::path::Path) -> String {
    format!("\"{}\"", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_only_when_on_and_keeps_order() {
        let quiet: Result<()> = observe("sync", String::new, Ok(()));
        assert!(quiet.is_ok());
        start();
        let _ = observe("first", || "1".into(), Ok(()));
        let _ = observe::<()>("second", || "2".into(), Err(Errno::EPERM));
        assert_eq!(take(), ["first(1) = 0", "second(2) = -1 EPERM"]);
        assert!(take().is_empty());
    }
}
