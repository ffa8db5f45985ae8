//! What this program prints.
//!
//! The macros of the standard library panic when nothing can be printed: a full disk under
//! `keeper.log` would end the supervisor, and `minisup events | head` with a backtrace. These have
//! their names and take their place everywhere in this crate.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// The status of a command whose reader has gone, as of one that SIGPIPE ended.
const READER_GONE: i32 = 128 + 13;

macro_rules! print {
    ($($what:tt)*) => { $crate::speech::out(format_args!($($what)*), false) };
}
macro_rules! println {
    ($($what:tt)*) => { $crate::speech::out(format_args!($($what)*), true) };
}
macro_rules! eprintln {
    ($($what:tt)*) => { $crate::speech::complain(format_args!($($what)*)) };
}

/// Prints on standard output. Without a reader, or without room, the command ends here: all that
/// it is for is what it prints.
pub(crate) fn out(what: Arguments<'_>, line: bool) {
    let mut output = std::io::stdout().lock();
    let end = if line { "\n" } else { "" };
    let Err(error) = output.write_fmt(format_args!("{what}{end}")) else { return };
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(READER_GONE);
    }
    complain(format_args!("minisup: cannot write to standard output: {error}"));
    std::process::exit(1);
}

/// Prints a line on standard error, if that can be.
pub(crate) fn complain(what: Arguments<'_>) {
    let _ = std::io::stderr().lock().write_fmt(format_args!("{what}\n"));
}
