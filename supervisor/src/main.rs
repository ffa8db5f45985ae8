//! minisup: keeps services alive, and loses no request.
//!
//! One program, four roles. `minisup up` and its kind are short-lived; what stays is a keeper, a
//! brain and a data plane per project, so that no failure of one touches the others.

mod balance;
mod brain;
mod client;
mod clock;
mod commands;
mod compose;
mod discovery;
mod keeper;
mod layout;
mod model;
mod netns;
mod plane;
mod quantity;
mod ready;
mod store;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use minisup_core::input::Command as Wish;

/// Keeps services alive, and loses no request.
#[derive(Parser, Debug)]
#[command(name = "minisup", version, arg_required_else_help = true)]
struct Cli {
    /// The project [the only one that runs]
    #[arg(long, short = 'P', global = true, env = "MINISUP_PROJECT")]
    project: Option<String>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Start a service, or change what runs to what is given
    Up(Box<commands::up::Up>),
    /// Stop everything and leave nothing
    Down,
    /// List the projects that run
    Ls,
    /// List slots and their instances
    Ps {
        /// Only this service
        service: Option<String>,
    },
    /// Show what containers printed
    Logs {
        /// A service (web), a slot (web.1) or an instance (web.1.3)
        of: Option<String>,
        /// Go on as more comes
        #[arg(long, short)]
        follow: bool,
        /// Only the last lines
        #[arg(long, short = 'n')]
        tail: Option<usize>,
    },
    /// Set numbers of replicas: web=6
    Scale {
        /// SERVICE=NUMBER
        #[arg(required = true)]
        wanted: Vec<String>,
    },
    /// Replace every instance of a service, one slot after another
    Restart {
        /// The service
        service: String,
    },
    /// Stop a service and leave it stopped
    Stop {
        /// The service
        service: String,
    },
    /// Start a stopped service
    Start {
        /// The service
        service: String,
    },
    /// Give a failed slot another chance
    Reset {
        /// The slot: web.1
        slot: minisup_core::name::SlotId,
    },
    /// Show everything that is known, as JSON
    Inspect,
    /// Show what happened, and why
    Events {
        /// Only this slot (web.1)
        slot: Option<String>,
        /// Go on as more comes
        #[arg(long, short)]
        follow: bool,
        /// One JSON document per line
        #[arg(long)]
        json: bool,
    },
    /// Live through simulated days of failures with the real decision core
    Simulate {
        /// The first day
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// How many days
        #[arg(long, default_value_t = 1)]
        days: u64,
        /// Show what led to a failure
        #[arg(long)]
        trace: bool,
    },
    /// Run as the keeper of a project
    #[command(hide = true)]
    Keeper {
        project: String,
        #[arg(long)]
        heritage_fd: Option<i32>,
        #[arg(long)]
        plane_pid: Option<i32>,
    },
    /// Run as the brain of a project
    #[command(hide = true)]
    Brain {
        project: String,
        #[arg(long)]
        keeper_fd: i32,
    },
    /// Run as the data plane of a project
    #[command(hide = true)]
    Plane { project: String },
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("minisup: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.verb {
        Verb::Keeper { project, heritage_fd, plane_pid } => {
            keeper::run(&project, heritage_fd, plane_pid)
        }
        Verb::Brain { project, keeper_fd } => brain::run(&project, keeper_fd),
        Verb::Plane { project } => plane::run(&project),
        Verb::Simulate { seed, days, trace } => commands::simulate::run(seed, days, trace),
        verb => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(speak(cli.project.as_deref(), verb))
        }
    }
}

/// The commands that talk to a brain.
async fn speak(project: Option<&str>, verb: Verb) -> Result<()> {
    use commands::{down, events, inspect, logs, ls, ps, service, up};
    match verb {
        Verb::Up(up) => up::run(project, *up).await,
        Verb::Down => down::run(project).await,
        Verb::Ls => ls::run().await,
        Verb::Ps { service } => ps::run(project, service.as_deref()).await,
        Verb::Logs { of, follow, tail } => logs::run(project, of.as_deref(), follow, tail).await,
        Verb::Scale { wanted } => service::scale(project, &wanted).await,
        Verb::Restart { service } => {
            service::run(project, Wish::Restart { service: service.as_str().into() }).await
        }
        Verb::Stop { service } => {
            service::run(project, Wish::Stop { service: service.as_str().into() }).await
        }
        Verb::Start { service } => {
            service::run(project, Wish::Start { service: service.as_str().into() }).await
        }
        Verb::Reset { slot } => service::run(project, Wish::Reset { slot }).await,
        Verb::Inspect => inspect::run(project).await,
        Verb::Events { slot, follow, json } => {
            events::run(project, slot.as_deref(), follow, json).await
        }
        Verb::Simulate { .. } | Verb::Keeper { .. } | Verb::Brain { .. } | Verb::Plane { .. } => {
            Ok(()) // done before
        }
    }
}
