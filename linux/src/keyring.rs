//! Session keyrings, keyrings(7).

use std::ffi::CString;

use nix::errno::Errno;

use crate::trace::{answer, observe};
use crate::{Error, Result};

/// Joins a new session keyring named `name`, keyctl(2): without it the container would hold the
/// keys of whoever started it.
pub fn join_new_session(name: &str) -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    let c_name =
        CString::new(name).map_err(|_| Error::new("keyctl", format!("{name:?}"), Errno::EINVAL))?;
    // SAFETY: the name is NUL-terminated and outlives the call.
    #[expect(unsafe_code, reason = "no crate in the tree wraps keyctl(2)")]
    let value =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, c_name.as_ptr()) };
    let result = answer(value).map(drop);
    observe("keyctl", || format!("KEYCTL_JOIN_SESSION_KEYRING, {name:?}"), result)
}
