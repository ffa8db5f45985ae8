//! `minisup exec`: a command in a container, with our own terminal and streams.

use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use super::{project, target};
use crate::accounts::Accounts;

/// What is run, where, and as whom.
#[derive(Args, Debug)]
pub(crate) struct Exec {
    /// Give it a terminal, also when ours is none
    #[arg(long, short)]
    tty: bool,
    /// Give it none, also when ours is one
    #[arg(long, short = 'T', conflicts_with = "tty")]
    no_tty: bool,
    /// Who it runs as, by names of the container or numbers [as the container's own program]
    #[arg(long, short, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// A variable for it; without a value, with ours
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// The directory that it begins in
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
    /// Do not wait for it
    #[arg(long, short, conflicts_with = "tty")]
    detach: bool,
    /// A service (its first replica), a slot or an instance
    whom: String,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Becomes the runtime's `exec` in the first instance that is meant; its status is ours.
pub(crate) async fn run(named: Option<&str>, wanted: Exec) -> Result<()> {
    let client = project(named).await?;
    let view = client.state().await?;
    let instances = target::running(&view, &wanted.whom)?;
    let first = instances.first().context("nothing runs")?;
    let id = first.id.to_string();
    let mut command = Command::new(&view.stack.runtime);
    command.arg("--root").arg(client.layout.runtime()).arg("exec");
    let ours = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if wanted.tty || (ours && !wanted.no_tty && !wanted.detach) {
        command.arg("--tty");
    }
    if let Some(user) = &wanted.user {
        let pid = view.pids.get(&id).with_context(|| format!("{id} has no process"))?;
        let accounts = Accounts::inside(*pid);
        let (uid, gid) = accounts.user(user)?;
        command.arg("--user").arg(format!("{uid}:{gid}"));
        for group in accounts.groups(user) {
            command.arg("--additional-gids").arg(group.to_string());
        }
    }
    for variable in &wanted.env {
        // As everywhere: a name alone stands for what it is here, if it is anything.
        let known = || std::env::var(variable).ok().map(|value| format!("{variable}={value}"));
        let set = if variable.contains('=') { Some(variable.clone()) } else { known() };
        command.args(set.map(|set| ["--env".to_string(), set]).into_iter().flatten());
    }
    if let Some(dir) = &wanted.workdir {
        command.arg("--cwd").arg(dir);
    }
    if wanted.detach {
        command.arg("--detach");
    }
    command.arg(client.layout.container(&id)).args(&wanted.command);
    // Nothing of ours is needed any more: signals and the terminal are the runtime's business.
    Err(command.exec()).with_context(|| format!("cannot run {}", view.stack.runtime.display()))
}
