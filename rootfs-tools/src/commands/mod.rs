//! The commands, one file per verb.

pub(crate) mod build;
pub(crate) mod bundle;
pub(crate) mod container;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod ls;
pub(crate) mod manage;
pub(crate) mod output;
pub(crate) mod registry;
pub(crate) mod sync;
pub(crate) mod text;

use clap::{Args, CommandFactory, Parser, Subcommand};
use rootfs_tools::layer::limits::Limits;
use rootfs_tools::{Error, Result, Store};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// The program: parses, does, reports.
pub fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has read enough.
        Err(Error::Io(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            // When nobody hears it, the exit status still tells.
            drop(writeln!(std::io::stderr(), "rootfs-tools: {}", error.chain()));
            ExitCode::FAILURE
        }
    }
}

/// The description of the program, for manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// From any OCI image to a running root file system
#[derive(Debug, Parser)]
#[command(name = "rootfs-tools", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// Where images are kept [default: /var/lib/minirun/images for root, otherwise
    /// $XDG_DATA_HOME/minirun/images]
    #[arg(long, global = true, value_name = "DIR")]
    store: Option<PathBuf>,
    #[command(flatten)]
    output: output::Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Import(Box<import::Import>),
    Ls(ls::Ls),
    Pull(registry::Pull),
    Push(registry::Push),
    Bundle(bundle::Bundle),
    Build(build::Build),
    Diff(container::Diff),
    Commit(container::Commit),
    Export(container::Export),
    Mount(container::Mount),
    Inspect(inspect::Inspect),
    Tag(manage::Tag),
    Rm(manage::Rm),
    Gc(manage::Gc),
    Df(manage::Df),
    Verify(manage::Verify),
    Sync(sync::Sync),
}

/// Limits on what an image may ask for.
#[derive(Debug, Args)]
pub(crate) struct LimitArgs {
    /// The largest unpacked layer, and the largest file in it, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().bytes)]
    max_layer_size: u64,
    /// The most entries of a layer
    #[arg(long, value_name = "N", default_value_t = Limits::default().entries)]
    max_layer_entries: u64,
}

impl Default for LimitArgs {
    fn default() -> Self {
        let Limits { bytes, entries } = Limits::default();
        Self { max_layer_size: bytes, max_layer_entries: entries }
    }
}

impl LimitArgs {
    pub(crate) fn limits(&self) -> Limits {
        Limits { bytes: self.max_layer_size, entries: self.max_layer_entries }
    }
}

impl Cli {
    pub(crate) fn run(self) -> Result<()> {
        let path = self.store.map_or_else(Store::default_path, Ok)?;
        let output = self.output;
        if let Command::Sync(command) = self.command {
            return command.run(&path, output);
        }
        let store = Store::open(&path)?;
        let result = match self.command {
            // The end of the store is its own.
            Command::Gc(command) => return command.run(store, output),
            // Done above, before the store was opened.
            Command::Sync(_) => Ok(()),
            Command::Import(command) => command.run(&store, output),
            Command::Ls(command) => command.run(&store, output),
            Command::Pull(command) => command.run(&store, output),
            Command::Push(command) => command.run(&store, output),
            Command::Bundle(command) => command.run(&store, output),
            Command::Build(command) => command.run(&store, output),
            Command::Diff(command) => command.run(&store, output),
            Command::Commit(command) => command.run(&store, output),
            Command::Export(command) => command.run(&store, output),
            Command::Mount(command) => command.run(&store, output),
            Command::Inspect(command) => command.run(&store),
            Command::Tag(command) => command.run(&store, output),
            Command::Rm(command) => command.run(&store, output),
            Command::Df(command) => command.run(&store, output),
            Command::Verify(command) => command.run(&store, output),
        };
        // Also a command that failed may have written layers.
        result.and(sync::afterwards(&store, output))
    }
}
