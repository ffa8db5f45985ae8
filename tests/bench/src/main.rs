//! minirun beside its peers, on the same bundle, with pauses between starts.
//!
//! A loop of starts hides what an isolated start costs: the kernel keeps locks prepared and caches
//! warm that a user's single start finds cold. So every measurement is followed by a pause, the
//! runtimes take turns, and medians, p90 and p99 are printed, never a pass or a failure.
//!
//! ```text
//! cargo run --release -p bench -- [--runs 50] [--pause-ms 150] [--json FILE]
//! ```
//!
//! `--proxies` compares minisup's data plane with nginx and HAProxy instead ([`proxies`]), and
//! `--networks` the bridges of minirun, Podman and Docker ([`networks`]).

mod measure;
mod networks;
mod peers;
mod proxies;
mod table;
mod work;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

use measure::Measurement;
use peers::Peer;
use work::{Operation, Workshop};

#[derive(Debug, Parser)]
#[command(about = "Times minirun, crun, runc, youki and a C program that does only the syscalls")]
struct Arguments {
    /// How often each is measured
    #[arg(long, default_value_t = 50)]
    runs: usize,
    /// The pause before each measurement
    #[arg(long, default_value_t = 150)]
    pause_ms: u64,
    /// Only this operation: run, lifecycle, exec, state, kill
    #[arg(long)]
    only: Option<Operation>,
    /// Also write the figures as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// The minirun to measure [the one beside this program]
    #[arg(long)]
    minirun: Option<PathBuf>,
    /// Compare minisup's data plane with nginx and HAProxy, in so many rounds
    #[arg(long, value_name = "ROUNDS")]
    proxies: Option<usize>,
    /// Connections at the same time, of each kind of traffic
    #[arg(long, value_delimiter = ',', default_values_t = [1, 32, 256], requires = "proxies")]
    connections: Vec<u32>,
    /// Only this kind of traffic
    #[arg(long, value_parser = ["http", "tcp"], requires = "proxies")]
    traffic: Option<String>,
    /// Compare the bridges of minirun, Podman and Docker, in so many rounds
    #[arg(long, value_name = "ROUNDS")]
    networks: Option<usize>,
    /// This host is one that was made for it (used by this program itself)
    #[arg(long, hide = true)]
    inside: bool,
    /// How long wrk asks each proxy, each time
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// The minisup to measure [the one beside this program]
    #[arg(long)]
    minisup: Option<PathBuf>,
    /// Answer HTTP requests at a port (used by this program itself)
    #[arg(long, hide = true)]
    respond: Option<u16>,
    /// Print the peak memory of a command and its children, in KiB (used by this program itself)
    #[arg(long, hide = true, num_args = 1.., allow_hyphen_values = true)]
    peak_of: Option<Vec<String>>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(command) = arguments.peak_of {
        return measure::print_peak(&command);
    }
    if let Some(port) = arguments.respond {
        return proxies::respond::at(port);
    }
    if let Some(rounds) = arguments.proxies {
        let beside = std::env::current_exe()?.with_file_name("minisup");
        let minisup = arguments.minisup.unwrap_or(beside);
        let (connections, traffic) = (arguments.connections, arguments.traffic.as_deref());
        let kinds = [(false, "http"), (true, "tcp")];
        let kinds = kinds.iter().filter(|(_, name)| traffic.is_none_or(|only| only == *name));
        let tcp = kinds.map(|(tcp, _)| *tcp).collect();
        let plan = proxies::Plan { rounds, seconds: arguments.seconds, connections, tcp };
        return proxies::run(&minisup, &plan);
    }
    let minirun = match arguments.minirun {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name("minirun"),
    };
    let pause = Duration::from_millis(arguments.pause_ms);
    match arguments.networks {
        Some(rounds) if arguments.inside => return networks::measure(&minirun, rounds, pause),
        Some(rounds) => return networks::run(&minirun, rounds, pause),
        None => {}
    }
    let workshop = Workshop::open(&minirun)?;
    let peers = peers::find(&minirun, &workshop)?;
    for peer in &peers {
        println!("{:<10} {}", peer.name, peer.version);
    }
    let mut all: Vec<Measurement> = Vec::new();
    for operation in Operation::ALL {
        if arguments.only.is_some_and(|only| only != operation) {
            continue;
        }
        let able: Vec<&Peer> = peers.iter().filter(|peer| peer.can(operation)).collect();
        let measured = measure::in_turns(&workshop, operation, &able, arguments.runs, pause)
            .with_context(|| format!("measure {}", operation.name()))?;
        print!("{}", table::of(operation, &measured));
        all.extend(measured);
    }
    if let Some(file) = arguments.json {
        let text = serde_json::to_string_pretty(&all)?;
        std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}
