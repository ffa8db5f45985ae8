//! Undoing a container, however far it got: kill, cgroup, writable layer, network,
//! state.
//!
//! Nothing here stops at the first failure: that would leave everything after it.

use std::io::ErrorKind;
use std::path::Path;

use super::state::{Home, State};
use crate::cgroup::Cgroup;
use crate::error::{Error, Result};

/// Ends what runs and removes everything that the state knows of. The state goes last, and only
/// when the rest is gone, so that what failed can be tried again.
pub(crate) fn remove(home: &Home, state: Option<&State>, cgroup: Option<Cgroup>) -> Result<()> {
    let recorded = state.and_then(|state| state.cgroup.as_ref());
    let cgroup = cgroup.or_else(|| super::open_cgroup(recorded));
    let mut failures = Vec::new();
    if let Some(cgroup) = cgroup {
        // Without processes of ours in it there is nothing to kill.
        if let Err(error) = cgroup.kill_all().and_then(|()| cgroup.remove()) {
            failures.push(Error::from(error));
        }
    }
    if let Some(dir) = state.and_then(|state| state.writable.as_deref())
        && let Err(error) = remove_writable_layer(dir)
    {
        failures.push(error);
    }
    if let Some(connected) = state.and_then(|state| state.network.as_ref())
        && let Err(error) = crate::steps::network::disconnect(connected)
    {
        failures.push(Error::Config(network::in_one_line(&error)));
    }
    if failures.is_empty() {
        return home.remove();
    }
    let texts: Vec<_> = failures.iter().map(ToString::to_string).collect();
    Err(Error::WrongState(format!("remove container {}: {}", home.id(), texts.join("; "))))
}

fn remove_writable_layer(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::file(format!("remove the writable layer {}", dir.display()))(error))
        }
        _ => Ok(()),
    }
}
