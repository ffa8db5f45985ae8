//! `cargo xtask test`: everything that can be tested here.

use std::process::Command;

use anyhow::Result;

use crate::programs::{run as call, workspace};

pub(crate) fn run() -> Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    call(Command::new(cargo).current_dir(workspace()).args(["test", "--workspace"]))
}
