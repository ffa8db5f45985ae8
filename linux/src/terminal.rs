//! Pseudo-terminals, pty(7).

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::termios::{self, SetArg, Termios};

use crate::trace::{answer, observe};
use crate::{Error, Result, fd, path};

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters per line.
    pub columns: u16,
}

/// Opens a new terminal of the devpts behind `ptmx` and gives (master, slave).
///
/// The slave is opened through its master (`TIOCGPTPEER`), never by the name that a container could
/// have replaced (CVE-2025-52565), and what came out is checked to be a terminal of a devpts.
pub fn open_pair(ptmx: impl AsFd) -> Result<(OwnedFd, OwnedFd)> {
    /// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
    const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
    // O_NOCTTY: opening a terminal must not make it the controlling one of the opener.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY;
    let master = path::open_how(
        ptmx.as_fd(),
        Path::new("ptmx"),
        flags,
        nix::fcntl::ResolveFlag::RESOLVE_BENEATH | nix::fcntl::ResolveFlag::RESOLVE_NO_SYMLINKS,
    )?;
    if fd::file_system(&master)? != DEVPTS_SUPER_MAGIC {
        return Err(Error::new("fstatfs", "ptmx is on no devpts", Errno::ENODEV));
    }
    unlock(&master)?;
    let slave = peer(&master, flags | OFlag::O_CLOEXEC)?;
    Ok((master, slave))
}

fn unlock(master: &OwnedFd) -> Result<()> {
    let locked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which outlives the call.
    #[expect(unsafe_code, reason = "unlockpt(3) of nix wants a PtyMaster of its own making")]
    let value = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const locked) };
    observe("ioctl", || "TIOCSPTLCK, 0".into(), answer(value.into()).map(drop))
}

fn peer(master: &OwnedFd, flags: OFlag) -> Result<OwnedFd> {
    // SAFETY: TIOCGPTPEER takes open flags and returns a new descriptor.
    #[expect(unsafe_code, reason = "TIOCGPTPEER is not wrapped by nix")]
    let value = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags.bits()) };
    let result = answer(value.into()).map(|number| {
        // SAFETY: the call has just returned a new descriptor that nobody else knows.
        #[expect(unsafe_code, reason = "taking ownership of a new descriptor")]
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        fd
    });
    observe("ioctl", || "TIOCGPTPEER".into(), result)
}

/// Sets the size of a terminal; its foreground processes get SIGWINCH.
pub fn set_size(terminal: impl AsFd, size: Size) -> Result<()> {
    let window =
        libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    let number = terminal.as_fd().as_raw_fd();
    // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
    #[expect(unsafe_code, reason = "terminal ioctls are not wrapped by nix")]
    let value = unsafe { libc::ioctl(number, libc::TIOCSWINSZ, &raw const window) };
    let shown = || format!("TIOCSWINSZ, {}x{}", size.columns, size.rows);
    observe("ioctl", shown, answer(value.into()).map(drop))
}

/// The size of a terminal; `ENOTTY` when it is none.
pub fn size(terminal: impl AsFd) -> Result<Size> {
    let mut window = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    let number = terminal.as_fd().as_raw_fd();
    // SAFETY: TIOCGWINSZ fills in one winsize, which outlives the call.
    #[expect(unsafe_code, reason = "terminal ioctls are not wrapped by nix")]
    let value = unsafe { libc::ioctl(number, libc::TIOCGWINSZ, &raw mut window) };
    observe("ioctl", || "TIOCGWINSZ".into(), answer(value.into()).map(drop))?;
    Ok(Size { rows: window.ws_row, columns: window.ws_col })
}

/// Starts a new session without a terminal, setsid(2).
pub fn start_session() -> Result<()> {
    observe("setsid", String::new, nix::unistd::setsid().map(drop))
}

/// Makes `terminal` the controlling one of this session, `TIOCSCTTY`.
pub fn make_controlling(terminal: impl AsFd) -> Result<()> {
    // SAFETY: TIOCSCTTY takes a number.
    #[expect(unsafe_code, reason = "terminal ioctls are not wrapped by nix")]
    let value = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) };
    observe("ioctl", || "TIOCSCTTY".into(), answer(value.into()).map(drop))
}

/// Whether it is a terminal.
pub fn is_terminal(file: impl AsFd) -> bool {
    nix::unistd::isatty(file).unwrap_or(false)
}

/// A terminal that hands every key through, and goes back to what it was when this is dropped.
#[derive(Debug)]
pub struct RawMode<'a, T: AsFd> {
    terminal: &'a T,
    before: Termios,
}

impl<'a, T: AsFd> RawMode<'a, T> {
    /// Switches `terminal` to raw mode, cfmakeraw(3).
    pub fn enter(terminal: &'a T) -> Result<Self> {
        let failed = |errno| Error::new("tcsetattr", "raw", errno);
        let before = termios::tcgetattr(terminal).map_err(failed)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(terminal, SetArg::TCSANOW, &raw).map_err(failed)?;
        Ok(Self { terminal, before })
    }
}

impl<T: AsFd> Drop for RawMode<'_, T> {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let _ = termios::tcsetattr(self.terminal, SetArg::TCSANOW, &self.before);
    }
}

/// Turns off the translation of line ends on output, as a relay to another terminal needs it.
pub fn pass_line_ends(terminal: impl AsFd) -> Result<()> {
    let failed = |errno| Error::new("tcsetattr", "-onlcr", errno);
    let mut mode = termios::tcgetattr(&terminal).map_err(failed)?;
    mode.output_flags.remove(termios::OutputFlags::ONLCR);
    termios::tcsetattr(&terminal, SetArg::TCSANOW, &mode).map_err(failed)
}
