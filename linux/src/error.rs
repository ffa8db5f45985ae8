//! What a failed syscall looks like.

use nix::errno::Errno;

/// A result whose error names the syscall that failed.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed syscall: which one, on what, and the kernel's answer.
///
/// It prints as `strace` would show it, with the errno's plain text at the end, because callers of
/// a runtime match on that text (Docker and Podman derive exit codes from it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The syscall, as in section 2 of the manual.
    pub call: &'static str,
    /// Its arguments, as `strace` would print them.
    pub arguments: String,
    /// The kernel's answer.
    pub errno: Errno,
    /// What the kernel said beyond the errno (the message log of a file system context).
    pub kernel_says: Option<String>,
}

impl Error {
    /// An error of `call` on `arguments`.
    pub fn new(call: &'static str, arguments: impl Into<String>, errno: Errno) -> Self {
        Self { call, arguments: arguments.into(), errno, kernel_says: None }
    }

    /// Adds what the kernel's own log says about the failure.
    #[must_use]
    pub fn with_kernel_log(mut self, log: Option<String>) -> Self {
        self.kernel_says = log;
        self
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}({}): {:?}: {}",
            self.call,
            self.arguments,
            self.errno,
            self.errno.desc().to_lowercase()
        )?;
        if let Some(log) = &self.kernel_says {
            write!(f, " ({log})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_like_strace_and_ends_in_the_errno_text() {
        let error = Error::new("openat2", "\"proc\"", Errno::ENOENT);
        assert_eq!(error.to_string(), "openat2(\"proc\"): ENOENT: no such file or directory");
    }
}
