//! minisup: keeps services alive, and loses no request.
//!
//! One program, four roles. `minisup up` and its kind are short-lived; what stays is a keeper, a
//! brain and a data plane per project, so that no failure of one touches the others.

#[macro_use]
mod speech;

mod accounts;
mod balance;
mod brain;
mod cli;
mod client;
mod clock;
mod commands;
mod compose;
mod discovery;
mod door;
mod image;
mod init;
mod keeper;
mod layout;
mod model;
mod netns;
mod plane;
mod programs;
mod publish;
mod quantity;
mod ready;
mod roles;
mod secrets;
mod settings;
mod store;
mod template;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser};
use minisup_core::input::Command as Wish;

use cli::{Cli, Verb};
use roles::Role;

/// The program: reads its arguments, does what they say, and gives its exit status.
pub fn main() -> ExitCode {
    let ran = match Role::of_this_process() {
        Some(role) => role.play(),
        None => run(Cli::parse()),
    };
    match ran {
        Ok(code) => code,
        Err(error) => {
            eprintln!("minisup: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The description of the command line, from which manual pages and completions are made.
pub fn command() -> clap::Command {
    Cli::command()
}

/// What needs no brain.
fn run(cli: Cli) -> Result<ExitCode> {
    match cli.verb {
        Verb::Simulate { seed, days, trace } => commands::simulate::run(seed, days, trace)?,
        Verb::Replay { file, until, trace } => commands::replay::run(&file, until, trace)?,
        Verb::Install { file, directory, print } => {
            commands::install::run(cli.project.as_deref(), &file, &directory, print)?;
        }
        verb => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            return runtime.block_on(speak(cli.project.as_deref(), verb));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What talks to a brain.
async fn speak(project: Option<&str>, verb: Verb) -> Result<ExitCode> {
    use commands::{
        autopsy, doctor, down, events, exec, explain, inspect, logs, ls, metrics, ps, registry,
        signal, stats, top, up, upgrade,
    };
    match verb {
        Verb::Up(up) => up::run(project, *up).await,
        Verb::Plan(up) => return up::preview(project, *up).await,
        Verb::Down { volumes } => down::run(project, volumes).await,
        Verb::Ls => ls::run().await,
        Verb::Ps(wanted) => ps::run(project, wanted).await,
        Verb::Logs(wanted) => logs::run(project, wanted).await,
        Verb::Stats { no_stream, json } => stats::run(project, no_stream, json).await,
        Verb::Top => top::run(project).await,
        Verb::Exec(wanted) => exec::run(project, wanted).await,
        Verb::Kill { signal, whom } => signal::run(project, &whom, "kill", Some(&signal)).await,
        Verb::Pause { whom } => signal::run(project, &whom, "pause", None).await,
        Verb::Unpause { whom } => signal::run(project, &whom, "resume", None).await,
        Verb::Inspect => inspect::run(project).await,
        Verb::Events { slot, follow, json } => {
            events::run(project, slot.as_deref(), follow, json).await
        }
        Verb::Explain { whom, lines } => explain::run(project, &whom, lines).await,
        Verb::Autopsy { whom } => autopsy::run(project, &whom).await,
        Verb::Doctor => doctor::run(project).await,
        Verb::Registry { watch, json } => registry::run(project, watch, json).await,
        Verb::Metrics => metrics::run(project).await,
        Verb::Upgrade { all: true } => upgrade::all().await,
        Verb::Upgrade { all: false } => upgrade::run(project).await,
        other => wish(project, other).await,
    }?;
    Ok(ExitCode::SUCCESS)
}

/// What is a command of the core.
async fn wish(project: Option<&str>, verb: Verb) -> Result<()> {
    use commands::service;
    let wish = match verb {
        Verb::Scale { wanted } => return service::scale(project, &wanted).await,
        Verb::Restart { service } => Wish::Restart { service: service.as_str().into() },
        Verb::Stop { service } => Wish::Stop { service: service.as_str().into() },
        Verb::Start { service } => Wish::Start { service: service.as_str().into() },
        Verb::Reset { slot } => Wish::Reset { slot },
        _ => return Ok(()), // done before
    };
    service::run(project, wish).await
}
