//! Undoing a container, however far it got: kill, cgroup, writable layer, network,
//! state.
//!
//! Nothing here stops at the first failure: that would leave everything after it.

use std::fs::Permissions;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::state::{Home, State};
use crate::cgroup::{self, Cgroup, Host, Record};
use crate::error::{Error, Result};

/// Ends what runs and removes everything that the state knows of. The state goes last, and only
/// when the rest is gone, so that what failed can be tried again.
pub(crate) fn remove(home: &Home, state: Option<&State>, cgroup: Option<Cgroup>) -> Result<()> {
    let recorded = state.and_then(|state| state.cgroup.as_ref());
    let mut failures = Vec::new();
    failures.extend(remove_group(cgroup, recorded).err().map(Error::from));
    if let Some(dir) = state.and_then(|state| state.writable.as_deref())
        && let Err(error) = remove_writable_layer(dir)
    {
        failures.push(error);
    }
    if let Some(group) = state.and_then(|state| state.resctrl.as_ref())
        && let Err(cause) = group.remove()
    {
        failures.push(Error::Config(cause.text));
    }
    if let Some(connected) = state.and_then(|state| state.network.as_ref())
        && let Err(error) = crate::steps::network::disconnect(connected, home.path())
    {
        failures.push(Error::Config(network::in_one_line(&error)));
    }
    if failures.is_empty() {
        return home.remove();
    }
    let texts: Vec<_> = failures.iter().map(ToString::to_string).collect();
    Err(Error::WrongState(format!("remove container {}: {}", home.id(), texts.join("; "))))
}

/// Ends what is in the container's group, and removes it.
fn remove_group(
    cgroup: Option<Cgroup>,
    recorded: Option<&Record>,
) -> std::result::Result<(), cgroup::Error> {
    let record = cgroup.as_ref().map(Cgroup::record).or(recorded);
    // What the kernel removes at once was empty, and there was nothing to end.
    if record.is_none_or(Record::remove_empty) {
        return Ok(());
    }
    let Ok(Some(host)) = Host::get() else { return Ok(()) };
    match (cgroup.or_else(|| super::open_cgroup(recorded)), recorded) {
        (Some(cgroup), _) => cgroup.kill_all().and_then(|()| cgroup.remove()),
        // Its maker died before it was in the tree that processes are born into.
        (None, Some(record)) => Cgroup::remove_recorded(host, record),
        (None, None) => Ok(()),
    }
}

fn remove_writable_layer(dir: &Path) -> Result<()> {
    let mut removed = std::fs::remove_dir_all(dir);
    if removed.as_ref().is_err_and(|error| error.kind() == ErrorKind::PermissionDenied) {
        // For those who are not root, directories that nobody may enter are in the way: the kernel
        // makes one (overlayfs, `work`), and the container's programs may have made others.
        open_directories(dir);
        removed = std::fs::remove_dir_all(dir);
    }
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::file(format!("remove the writable layer {}", dir.display()))(error))
        }
        _ => Ok(()),
    }
}

/// Lets us into every directory at and below `dir`, as far as they are ours. What does not work is
/// told by the removal.
fn open_directories(dir: &Path) {
    drop(std::fs::set_permissions(dir, Permissions::from_mode(0o700)));
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        // A link is no directory here, wherever it leads.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_directories(&entry.path());
        }
    }
}
