//! The agent of a seccomp filter: another program that decides about the calls with
//! `SCMP_ACT_NOTIFY`.
//!
//! Init says the number of the listener when the filter is loaded; its creator (or whoever calls
//! `start` or `exec`) takes a copy by pidfd_getfd(2) and sends it to the agent's socket, with the
//! container's state. Nothing of the program runs before that.
//!
//! See: runtime-spec config-linux.md, "Container Process State"; seccomp_unotify(2).

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use linux::{pidfd, socket};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::state::State;
use crate::error::Cause;
use crate::plan::Plan;
use crate::seccomp::Listener;

/// Who decides, and about what container; written down for `start`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Agent {
    socket: PathBuf,
    metadata: Option<String>,
    /// The state of the container, without the process's number.
    state: Value,
}

impl Agent {
    pub(crate) fn new(listener: &Listener, state: &State) -> Self {
        let pid = state.init.map_or(0, |init| init.pid);
        let State { id, bundle, annotations, .. } = state;
        let state = Plan::state_value(id, "creating", pid, bundle, annotations);
        Self { socket: listener.path.clone(), metadata: listener.metadata.clone(), state }
    }

    /// Takes the listener `number` from `process` and gives it to the agent.
    pub(crate) fn give(&self, process: BorrowedFd<'_>, pid: i32, number: i32) -> Result<(), Cause> {
        let listener = pidfd::take_descriptor(process, number).map_err(|error| {
            Cause::from(error)
                .remedy("this takes CAP_SYS_PTRACE over the container's first process")
        })?;
        let mut state = self.state.clone();
        if state["pid"] == 0 {
            state["pid"] = pid.into();
        }
        let message = json!({
            "ociVersion": crate::spec::VERSION,
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": self.metadata.as_deref().unwrap_or_default(),
            "state": state,
        });
        let failed = |error: linux::Error| {
            Cause::from(error).remedy(format!(
                "an agent must listen at linux.seccomp.listenerPath {}",
                self.socket.display()
            ))
        };
        let stream = socket::connect_to(&self.socket).map_err(failed)?;
        use std::os::fd::AsFd;
        let text = message.to_string();
        socket::send(&stream, text.as_bytes(), &[listener.as_fd()]).map_err(failed)
    }
}
