//! Who a process is: user, groups, file mode mask, credentials(7).

use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};

use crate::Result;
use crate::trace::observe;

/// Sets the supplementary groups, setgroups(2).
pub fn set_groups(groups: &[u32]) -> Result<()> {
    let ids: Vec<_> = groups.iter().copied().map(Gid::from_raw).collect();
    let shown = || format!("{}, {groups:?}", groups.len());
    observe("setgroups", shown, nix::unistd::setgroups(&ids))
}

/// Sets real, effective and saved group, setresgid(2).
pub fn set_group(group: u32) -> Result<()> {
    let gid = Gid::from_raw(group);
    let result = nix::unistd::setresgid(gid, gid, gid);
    observe("setresgid", || format!("{group}, {group}, {group}"), result)
}

/// Sets real, effective and saved user, setresuid(2).
///
/// The raw call of this thread, which is the only one: glibc's wrapper would signal all threads it
/// believes to exist, and in a cloned process that belief is the parent's.
pub fn set_user(user: u32) -> Result<()> {
    let uid = Uid::from_raw(user);
    let result = nix::unistd::setresuid(uid, uid, uid);
    observe("setresuid", || format!("{user}, {user}, {user}"), result)
}

/// Sets the file mode creation mask, umask(2), and gives the one before.
pub fn set_umask(mask: u32) -> u32 {
    nix::sys::stat::umask(Mode::from_bits_truncate(mask)).bits()
}

/// The effective user that this program was started as, getauxval(3): no system call, and right for
/// a process that has not changed it.
pub fn starting_user() -> u32 {
    // SAFETY: getauxval takes a number, and answers with one.
    #[expect(unsafe_code, reason = "no crate wraps getauxval(3)")]
    let user = unsafe { libc::getauxval(libc::AT_EUID) };
    u32::try_from(user).unwrap_or_else(|_| effective_user())
}

/// The effective user of this process.
pub fn effective_user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// The effective group of this process.
pub fn effective_group() -> u32 {
    nix::unistd::getegid().as_raw()
}

/// Changes the owner of what `fd` refers to, fchown(2).
pub fn change_owner(fd: impl std::os::fd::AsFd, user: u32, group: u32) -> Result<()> {
    let result = nix::unistd::fchown(fd, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
    observe("fchown", || format!("{user}, {group}"), result)
}
