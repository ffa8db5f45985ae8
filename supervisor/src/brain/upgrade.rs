//! Another program takes over, and nobody notices.
//!
//! ```text
//!   minisup upgrade ─▶ brain: can the program do it? ─▶ data plane: "retire"
//!                        │ lets the baton go, and waits
//!                        └─▶ keeper: becomes the program, in the same process
//!                               ├─▶ a new data plane, which waits for the old one's lock
//!                               └─▶ a new brain, which takes the baton; the old one goes
//! ```
//! The keeper is the parent of the containers, and stays it. If anything goes wrong on the way, it
//! ends as if the keeper had been killed: the old brain gets its baton back and starts a keeper
//! from the program that it runs itself.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::End;
use super::api::{Reply, SupervisorView};
use super::engine::Brain;
use crate::plane::protocol::Order;

/// What the keeper needs to know.
pub(crate) struct Upgrade {
    /// The program to become.
    pub(crate) program: OwnedFd,
    /// The data plane that goes on, if it could not be told to retire.
    pub(crate) plane: Option<i32>,
}

impl Brain {
    /// Has a program take over, if it is one that can.
    pub(super) fn upgrade(&mut self, program: &Path) -> Reply {
        let opened = File::open(program).with_context(|| format!("open {}", program.display()));
        let able = opened.and_then(|file| {
            is_able(&file).with_context(|| format!("{} cannot take over", program.display()))?;
            Ok(OwnedFd::from(file))
        });
        match able {
            Err(error) => Reply::refused(format!("{error:#}")),
            Ok(program) => {
                self.link.tell(&Order::Retire, None);
                let plane = if self.link.is_connected() { None } else { self.plane() };
                self.end = Some(End::Upgrade(Upgrade { program, plane }));
                Reply::done()
            }
        }
    }

    /// Who supervises the project.
    pub(super) fn supervisor(&self) -> SupervisorView {
        let program = std::fs::read_link("/proc/self/exe").unwrap_or_default();
        SupervisorView {
            version: env!("CARGO_PKG_VERSION").to_string(),
            program,
            keeper: std::os::unix::process::parent_id(),
            brain: std::process::id(),
            plane: self.link.process,
        }
    }
}

/// Whether the program is a minisup to which a keeper can hand on what it has. It will be all that
/// keeps the project, so it is asked before.
fn is_able(program: &File) -> Result<()> {
    let path = format!("/proc/self/fd/{}", program.as_raw_fd());
    let mut question = Command::new(path);
    question.args(["keeper", "--help"]).stdin(Stdio::null()).stderr(Stdio::null());
    let answer = question.output().context("it cannot be executed")?;
    let words = String::from_utf8_lossy(&answer.stdout);
    if !answer.status.success() || !words.contains("--estate-fd") {
        bail!("it is no minisup that can take over from this one");
    }
    Ok(())
}
