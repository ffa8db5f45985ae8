//! rootfs-tools: images for minirun. Everything is in the library; this is its command line.

mod commands;

use clap::Parser;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    match commands::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has read enough.
        Err(rootfs_tools::Error::Io(error)) if error.kind() == ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            // When nobody hears it, the exit status still tells.
            drop(writeln!(std::io::stderr(), "rootfs-tools: {}", error.chain()));
            ExitCode::FAILURE
        }
    }
}
