//! The command line: every verb and what it can be told.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use minisup_core::name::SlotId;

use crate::commands::exec::Exec;
use crate::commands::logs::Logs;
use crate::commands::ps::Ps;
use crate::commands::up::Up;

/// Keeps services alive, and loses no request.
#[derive(Parser, Debug)]
#[command(name = "minisup", version, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// The project [the only one that runs]
    #[arg(long, short = 'P', global = true, env = "MINISUP_PROJECT")]
    pub(crate) project: Option<String>,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Start a service or project, or change what runs to what is given
    Up(Box<Up>),
    /// Show what `up` would change, and its impact; status 2 if anything
    Plan(Box<Up>),
    /// Stop everything and leave nothing but named volumes
    Down {
        /// Nor these, with all that is in them
        #[arg(long, short)]
        volumes: bool,
    },
    /// List the projects that run
    Ls,
    /// List slots and their instances
    Ps(Ps),
    /// Show what containers printed
    Logs(Logs),
    /// Show what replicas use
    Stats {
        /// Once, also on a terminal
        #[arg(long)]
        no_stream: bool,
        /// JSON
        #[arg(long)]
        json: bool,
    },
    /// Show everything on one screen, each second
    Top,
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
        slot: SlotId,
    },
    /// Run a command in a container
    Exec(Exec),
    /// Send a signal to containers; one that ends is replaced
    Kill {
        /// The signal
        #[arg(long, short, default_value = "KILL")]
        signal: String,
        /// Services, slots or instances
        #[arg(required = true)]
        whom: Vec<String>,
    },
    /// Freeze containers; probes do not count until `unpause`
    Pause {
        /// Services, slots or instances
        #[arg(required = true)]
        whom: Vec<String>,
    },
    /// Thaw containers
    Unpause {
        /// Services, slots or instances
        #[arg(required = true)]
        whom: Vec<String>,
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
    /// Explain why a service or slot is as it is
    Explain {
        /// A service (web) or a slot (web.1)
        whom: String,
        /// Reasons shown of each slot
        #[arg(long, short = 'n', default_value_t = 12)]
        lines: usize,
    },
    /// Show what is known of the last death in a slot
    Autopsy {
        /// A slot (web.1) or an instance (web.1.3)
        whom: String,
    },
    /// Look for what this host or a project lacks
    Doctor,
    /// Show who can be reached
    Registry {
        /// Again whenever that changes
        #[arg(long, short)]
        watch: bool,
        /// JSON
        #[arg(long)]
        json: bool,
    },
    /// Show metrics in the text format of Prometheus
    Metrics,
    /// Have this minisup supervise a project that another version started
    ///
    /// Containers go on, and no request is lost.
    Upgrade {
        /// All projects that run, one after the other
        #[arg(long)]
        all: bool,
    },
    /// Write a systemd unit that starts a project at boot
    Install {
        /// The Compose files
        #[arg(long, short)]
        file: Vec<PathBuf>,
        /// Where units are
        #[arg(long, default_value = "/etc/systemd/system")]
        directory: PathBuf,
        /// Only show it
        #[arg(long)]
        print: bool,
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
    /// Live through a recorded history again
    Replay {
        /// A history.db, or the lines of `events --json`
        file: PathBuf,
        /// Up to this event
        #[arg(long)]
        until: Option<i64>,
        /// Show each event
        #[arg(long)]
        trace: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_description_is_consistent() {
        Cli::command().debug_assert();
    }
}
