//! `minisup up`: make it so.

mod service;
mod summary;
mod wait;
mod watch;
pub(super) mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use minisup_core::input::Command;

use super::plan;
use crate::client::Client;
use crate::compose::Loaded;
use crate::image::{Images, Pull};
use crate::layout::Layout;
use crate::model::{Named, ServiceSpec, Stack};
use crate::{compose, programs, quantity};

/// What `up` can be told.
#[derive(Args, Debug)]
pub(crate) struct Up {
    /// A bundle directory, an image of the store, or an image archive [else compose.yaml counts];
    /// with --file a service
    #[arg(value_name = "BUNDLE|IMAGE")]
    bundle: Option<String>,
    /// The command, instead of the bundle's; with --file more services
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
    /// A Compose file; several are laid over each other
    #[arg(long, short)]
    file: Vec<PathBuf>,
    /// A profile of the Compose file that is active; `*` is all
    #[arg(long, conflicts_with = "name")]
    profile: Vec<String>,
    /// A file of variables for the Compose file, instead of .env
    #[arg(long, conflicts_with = "name")]
    env_file: Vec<PathBuf>,
    /// Build what has `build:` in the Compose file, also where the store has its image
    #[arg(long, conflicts_with = "name")]
    build: bool,
    /// The service's name [the bundle directory's]
    #[arg(requires = "bundle", conflicts_with = "file", long)]
    name: Option<String>,
    /// How many replicas [1]; with a Compose file SERVICE=NUMBER, instead of the file's
    #[arg(long, value_name = "NUMBER|SERVICE=NUMBER")]
    replicas: Vec<String>,
    /// Publish a port of the replicas at a port of the host, balanced: 8080:3000, 53:53/udp; 3000
    /// takes any free port, 8080-8090:3000 a free one of these
    #[arg(requires = "bundle", conflicts_with = "file", long, short, value_parser = quantity::publish)]
    publish: Vec<quantity::Published>,
    /// A port of the replicas that other services of the project reach: 5432
    #[arg(requires = "bundle", conflicts_with = "file", long)]
    pub(super) expose: Vec<u16>,
    /// What is spoken on published ports; auto looks at the client's first bytes
    #[arg(requires = "bundle", conflicts_with = "file", long, default_value = "auto", value_parser = ["auto", "http", "h2c", "tcp"])]
    protocol: String,
    /// Set a variable in the containers: NAME=value
    #[arg(requires = "bundle", conflicts_with = "file", long, short)]
    env: Vec<String>,
    /// The memory limit and reservation of each replica: 512m
    #[arg(requires = "bundle", conflicts_with = "file", long, value_parser = quantity::bytes)]
    memory: Option<u64>,
    /// Healthy is when this shell command succeeds in the container
    #[arg(requires = "bundle", conflicts_with = "file", long, group = "health")]
    health_cmd: Option<String>,
    /// Healthy is a status of 200 to 399 at PORT/PATH: 3000/health
    #[arg(requires = "bundle", conflicts_with = "file", long, group = "health")]
    health_http: Option<String>,
    /// Healthy is a connection to this port
    #[arg(requires = "bundle", conflicts_with = "file", long, group = "health")]
    health_tcp: Option<u16>,
    /// The pause between two probes
    #[arg(requires = "bundle", conflicts_with = "file", long, default_value = "1s", value_parser = quantity::duration_ms)]
    health_interval: u64,
    /// How long a probe may take
    #[arg(requires = "bundle", conflicts_with = "file", long, default_value = "1s", value_parser = quantity::duration_ms)]
    health_timeout: u64,
    /// Failures in a row that mean unhealthy
    #[arg(requires = "bundle", conflicts_with = "file", long, default_value_t = 3)]
    health_retries: u32,
    /// How long after the start failures do not count
    #[arg(requires = "bundle", conflicts_with = "file", long, default_value = "30s", value_parser = quantity::duration_ms)]
    health_start_period: u64,
    /// When to start again: no, on-failure[:N], always
    #[arg(requires = "bundle", conflicts_with = "file", long, default_value = "always")]
    restart: String,
    /// What asks the containers to stop [that of the image, or TERM]
    #[arg(requires = "bundle", conflicts_with = "file", long)]
    stop_signal: Option<String>,
    /// How long they may take to stop
    #[arg(requires = "bundle", conflicts_with = "file", long, default_value = "10s", value_parser = quantity::duration_ms)]
    stop_timeout: u64,
    /// How long requests in flight may take to finish before a stop
    #[arg(requires = "bundle", conflicts_with = "file", long, default_value = "10s", value_parser = quantity::duration_ms)]
    drain: u64,
    /// How many replicas an update takes out at a time
    #[arg(requires = "bundle", conflicts_with = "file", long, default_value_t = 1)]
    update_parallelism: u32,
    /// Whether a replacement starts before the old one stops
    #[arg(requires = "bundle", conflicts_with = "file", long, default_value = "start-first", value_parser = ["start-first", "stop-first"])]
    update_order: String,
    /// Whether a registry is asked for the image
    #[arg(requires = "bundle", conflicts_with = "file", long, default_value = "missing", value_parser = ["missing", "always", "never"])]
    pull: String,
    /// The image store [that of rootfs-tools]
    #[arg(long, env = "MINISUP_STORE")]
    store: Option<PathBuf>,
    /// The OCI runtime [minirun beside this program, or in PATH]
    #[arg(long)]
    runtime: Option<PathBuf>,
    /// Whether containers may reach the world outside of the host, unless a file says `internal`
    #[arg(long, env = "MINISUP_WAY_OUT", default_value = "yes", value_parser = ["yes", "no"])]
    way_out: String,
    /// Leave it running and return
    #[arg(long, short)]
    detach: bool,
    /// Wait until every replica is ready; fail if one cannot be
    #[arg(long)]
    wait: bool,
    /// How long --wait may take
    #[arg(long, requires = "wait", default_value = "2m", value_parser = quantity::duration_ms)]
    wait_timeout: u64,
}

/// Starts or changes a project.
pub(crate) async fn run(named: Option<&str>, up: Up) -> Result<()> {
    let project = Wanted::read(named, &up)?;
    project.warnings.iter().for_each(|warning| eprintln!("{warning}"));
    let client = Client { layout: project.layout.clone() };
    client.start().await?;
    let stack = project.stack(client.state().await?.stack.services);
    let seen = last_event(&client).await?;
    if let Err(error) = client.apply(&stack).await {
        leave_if_empty(&client).await;
        return Err(error);
    }
    ways::tell(&client.state().await?);
    if up.wait {
        wait::until_ready(&client, Duration::from_millis(up.wait_timeout)).await?;
    }
    if up.detach || up.wait {
        print!("{}", summary::of(&client.layout.project, &client.state().await?));
        return Ok(());
    }
    watch::foreground(&client, seen).await
}

/// Shows what `run` would change. Status 2 says that there is something.
pub(crate) async fn preview(named: Option<&str>, up: Up) -> Result<ExitCode> {
    let project = Wanted::read(named, &up)?;
    project.warnings.iter().for_each(|warning| eprintln!("{warning}"));
    let client = Client { layout: project.layout.clone() };
    let view = client.state().await.ok();
    let there = view.as_ref().map(|view| view.stack.services.clone()).unwrap_or_default();
    let stack = project.stack(there);
    stack.check()?;
    let plan = plan::plan(view.as_ref(), &stack);
    println!("project {}", client.layout.project);
    plan.lines.iter().for_each(|line| println!("{line}"));
    ways::preview(&project.services, project.no_way_out).iter().for_each(|l| println!("{l}"));
    if view.is_none() && !client.layout.stack().exists() {
        client.layout.remove(); // bundles of images were made to look into them
    }
    let changes = plan.changes;
    println!("{changes} changes");
    Ok(if changes == 0 { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// What options and files ask for.
struct Wanted {
    layout: Layout,
    runtime: PathBuf,
    services: BTreeMap<String, ServiceSpec>,
    /// Whether these are some of the project, and what else it has stays as it is.
    is_one: bool,
    volumes: BTreeSet<String>,
    networks: BTreeMap<String, Named>,
    no_way_out: bool,
    warnings: Vec<String>,
}

impl Wanted {
    fn read(named: Option<&str>, up: &Up) -> Result<Wanted> {
        let runtime = programs::runtime(up.runtime.as_deref())?;
        let no_way_out = up.way_out == "no";
        let images = |layout: &Layout| {
            let (store, bundles) = (up.store.clone(), layout.images());
            Images { store, bundles, build: up.build }
        };
        let Some(source) = up.bundle.as_ref().filter(|_| up.file.is_empty()) else {
            let words = up.bundle.iter().chain(&up.command).cloned().collect();
            let choice = compose::Choice {
                files: up.file.clone(),
                services: words,
                profiles: up.profile.clone(),
                env_files: up.env_file.clone(),
            };
            let file = compose::File::read(&choice, named)?;
            let layout = Layout::of(file.name())?;
            let Loaded { mut services, volumes, networks, warnings } =
                file.services(&images(&layout), &layout)?;
            service::set_replicas(&up.replicas, &mut services)?;
            let is_one = !choice.services.is_empty();
            return Ok(Wanted {
                layout,
                runtime,
                services,
                is_one,
                volumes,
                networks,
                no_way_out,
                warnings,
            });
        };
        if up.build || !up.profile.is_empty() || !up.env_file.is_empty() {
            bail!(
                "--build, --profile and --env-file are for Compose files, and {source} is taken for \
                 a bundle or an image; if it is a service, name the file as well: --file compose.yaml"
            );
        }
        let name = up.name.clone().map_or_else(|| service::name(source), Ok)?;
        let layout = Layout::of(named.unwrap_or(&name))?;
        let pull = match up.pull.as_str() {
            "always" => Pull::Always,
            "never" => Pull::Never,
            _ => Pull::Missing,
        };
        let made = images(&layout).bundle(source, &std::env::current_dir()?, pull)?;
        let services = BTreeMap::from([(name, service::service(up, made)?)]);
        Ok(Wanted {
            layout,
            runtime,
            services,
            is_one: true,
            volumes: BTreeSet::new(),
            networks: BTreeMap::new(),
            no_way_out,
            warnings: Vec::new(),
        })
    }

    /// The whole project, given what it has now.
    fn stack(&self, there: BTreeMap<String, ServiceSpec>) -> Stack {
        let mut services = if self.is_one { there } else { BTreeMap::new() };
        services.extend(self.services.clone());
        Stack {
            runtime: self.runtime.clone(),
            services,
            networks: self.networks.clone(),
            no_way_out: self.no_way_out,
            volumes: self.volumes.clone(),
        }
    }
}

/// A supervisor that was started for a project that is refused has nothing to do.
async fn leave_if_empty(client: &Client) {
    let idle = client.state().await.is_ok_and(|view| view.state.project().services.is_empty());
    if idle {
        let _ = client.command(&Command::Down).await;
    }
}

async fn last_event(client: &Client) -> Result<i64> {
    let mut last = 0;
    loop {
        match client.events(last, None, false).await?.last() {
            Some(event) => last = event.seq,
            None => return Ok(last),
        }
    }
}
