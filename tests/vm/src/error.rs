//! Why a guest cannot go on.

use std::{io, time::Duration};

/// Why a guest cannot go on. Each carries the last lines of its console.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// It did not get as far as taking commands.
    #[error("the guest did not boot within {timeout:?}; its console:\n{console}")]
    BootTimeout {
        /// How long it had.
        timeout: Duration,
        /// The console's last lines.
        console: String,
    },
    /// Its kernel panicked.
    #[error("the guest's kernel panicked; its console:\n{console}")]
    Panicked {
        /// The console's last lines.
        console: String,
    },
    /// QEMU ended.
    #[error("the guest ended ({status}); its console:\n{console}")]
    Ended {
        /// How QEMU ended.
        status: String,
        /// The console's last lines.
        console: String,
    },
    /// A command took too long and was killed. The guest can go on.
    #[error("the command {command} took longer than {timeout:?} and was killed")]
    CommandTimeout {
        /// The command, quoted as for a shell.
        command: String,
        /// How long it had.
        timeout: Duration,
    },
    /// A command took too long and the guest did not even kill it.
    #[error("the guest hangs in the command {command} ({timeout:?}); its console:\n{console}")]
    Hung {
        /// The command, quoted as for a shell.
        command: String,
        /// How long it had.
        timeout: Duration,
        /// The console's last lines.
        console: String,
    },
    /// The guest refused a request, most often: no such program.
    #[error("in the guest: {0}")]
    Refused(String),
    /// The port carries something else than the protocol.
    #[error("the port to the guest is broken: {0}")]
    Port(#[from] io::Error),
}

/// The error for QEMU's end: a panic reboots, and QEMU ends instead of rebooting.
pub(crate) fn ended(status: String, console: String) -> GuestError {
    if console.contains("Kernel panic - not syncing") {
        return GuestError::Panicked { console };
    }
    GuestError::Ended { status, console }
}

pub(crate) fn refused(reason: &[u8]) -> GuestError {
    GuestError::Refused(String::from_utf8_lossy(reason).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_from_another_end() {
        let console = "  | [ 1.0] Kernel panic - not syncing: Attempted to kill init!\n";
        let error = ended("exit status: 0".into(), console.into());
        assert!(matches!(error, GuestError::Panicked { .. }));
        let error = ended("exit status: 1".into(), "  | qemu: no such file\n".into());
        assert!(error.to_string().contains("exit status: 1"));
        assert!(error.to_string().contains("no such file"));
    }
}
