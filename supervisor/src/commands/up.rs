//! `minisup up`: make it so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use minisup_core::input::Command;
use minisup_core::restart::{RestartOn, RestartPolicy};
use minisup_core::spec::Order;

use super::events;
use super::logs::Reader;
use crate::balance::Balance;
use crate::client::Client;
use crate::compose;
use crate::layout::Layout;
use crate::model::{Health, Probe, Protocol, Publish, ServiceSpec, Stack};
use crate::quantity;

/// What `up` can be told.
#[derive(Args, Debug)]
pub(crate) struct Up {
    /// The bundle: a directory with config.json and a root file system [else compose.yaml counts]
    bundle: Option<PathBuf>,
    /// The command, instead of the bundle's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
    /// A Compose file; several are laid over each other
    #[arg(long, short, conflicts_with = "bundle")]
    file: Vec<PathBuf>,
    /// The service's name [the bundle directory's]
    #[arg(requires = "bundle", long)]
    name: Option<String>,
    /// How many replicas
    #[arg(requires = "bundle", long, default_value_t = 1)]
    replicas: u32,
    /// Publish a port of the replicas at a port of the host, balanced: 8080:3000
    #[arg(requires = "bundle", long, short, value_parser = quantity::publish)]
    publish: Vec<(std::net::SocketAddr, u16)>,
    /// A port of the replicas that other services of the project reach: 5432
    #[arg(requires = "bundle", long)]
    expose: Vec<u16>,
    /// What is spoken on published ports; auto looks at the client's first bytes
    #[arg(requires = "bundle", long, default_value = "auto", value_parser = ["auto", "http", "h2c", "tcp"])]
    protocol: String,
    /// Set a variable in the containers: NAME=value
    #[arg(requires = "bundle", long, short)]
    env: Vec<String>,
    /// The memory limit and reservation of each replica: 512m
    #[arg(requires = "bundle", long, value_parser = quantity::bytes)]
    memory: Option<u64>,
    /// Healthy is when this shell command succeeds in the container
    #[arg(requires = "bundle", long, group = "health")]
    health_cmd: Option<String>,
    /// Healthy is a status of 200 to 399 at PORT/PATH: 3000/health
    #[arg(requires = "bundle", long, group = "health")]
    health_http: Option<String>,
    /// Healthy is a connection to this port
    #[arg(requires = "bundle", long, group = "health")]
    health_tcp: Option<u16>,
    /// The pause between two probes
    #[arg(requires = "bundle", long, default_value = "1s", value_parser = quantity::duration_ms)]
    health_interval: u64,
    /// How long a probe may take
    #[arg(requires = "bundle", long, default_value = "1s", value_parser = quantity::duration_ms)]
    health_timeout: u64,
    /// Failures in a row that mean unhealthy
    #[arg(requires = "bundle", long, default_value_t = 3)]
    health_retries: u32,
    /// How long after the start failures do not count
    #[arg(requires = "bundle", long, default_value = "30s", value_parser = quantity::duration_ms)]
    health_start_period: u64,
    /// When to start again: no, on-failure[:N], always
    #[arg(requires = "bundle", long, default_value = "always")]
    restart: String,
    /// What asks the containers to stop
    #[arg(requires = "bundle", long, default_value = "TERM")]
    stop_signal: String,
    /// How long they may take to stop
    #[arg(requires = "bundle", long, default_value = "10s", value_parser = quantity::duration_ms)]
    stop_timeout: u64,
    /// How long requests in flight may take to finish before a stop
    #[arg(requires = "bundle", long, default_value = "10s", value_parser = quantity::duration_ms)]
    drain: u64,
    /// How many replicas an update takes out at a time
    #[arg(requires = "bundle", long, default_value_t = 1)]
    update_parallelism: u32,
    /// Whether a replacement starts before the old one stops
    #[arg(requires = "bundle", long, default_value = "start-first", value_parser = ["start-first", "stop-first"])]
    update_order: String,
    /// The OCI runtime [minirun beside this program, or in PATH]
    #[arg(long)]
    runtime: Option<PathBuf>,
    /// Leave it running and return
    #[arg(long, short)]
    detach: bool,
    /// Wait until every replica is ready; fail if one cannot be
    #[arg(long)]
    wait: bool,
}

/// Starts or changes a project.
pub(crate) async fn run(named: Option<&str>, up: Up) -> Result<()> {
    let runtime = runtime(up.runtime.as_deref())?;
    let (client, services) = match &up.bundle {
        Some(bundle) => {
            let bundle = bundle.canonicalize().with_context(|| {
                format!("there is no bundle {}; `minirun spec` makes one", bundle.display())
            })?;
            let name = up.name.clone().map_or_else(|| service_name(&bundle), Ok)?;
            let layout = Layout::of(named.unwrap_or(&name))?;
            let spec = service(&up, bundle)?;
            let client = Client { layout };
            client.start().await?;
            // What else the project has stays as it is.
            let mut services = client.state().await?.stack.services;
            services.insert(name, spec);
            (client, services)
        }
        None => {
            let loaded = compose::load(&up.file, named)?;
            loaded.warnings.iter().for_each(|warning| eprintln!("{warning}"));
            let client = Client { layout: Layout::of(&loaded.name)? };
            client.start().await?;
            (client, loaded.services)
        }
    };
    let stack = Stack { runtime, services };
    let seen = last_event(&client).await?;
    if let Err(error) = client.apply(&stack).await {
        leave_if_empty(&client).await;
        return Err(error);
    }
    if up.wait {
        wait_until_ready(&client).await?;
    }
    if up.detach || up.wait {
        return Ok(());
    }
    foreground(&client, seen).await
}

/// A supervisor that was started for a project that is refused has nothing to do.
async fn leave_if_empty(client: &Client) {
    let idle = client.state().await.is_ok_and(|view| view.state.project().services.is_empty());
    if idle {
        let _ = client.command(&Command::Down).await;
    }
}

fn service_name(bundle: &Path) -> Result<String> {
    let name = bundle.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let lower = name.to_ascii_lowercase();
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = lower.chars().map(plain).collect();
    let name = name.trim_matches('-').to_string();
    if name.is_empty() {
        bail!("{} has no name to call the service by; use --name", bundle.display());
    }
    Ok(name)
}

fn service(up: &Up, bundle: PathBuf) -> Result<ServiceSpec> {
    let protocol = match up.protocol.as_str() {
        "http" => Protocol::Http,
        "h2c" => Protocol::H2c,
        "tcp" => Protocol::Tcp,
        _ => Protocol::Auto,
    };
    let publish =
        |(host, port): &(std::net::SocketAddr, u16)| Publish { host: *host, port: *port, protocol };
    if let Some(wrong) = up.env.iter().find(|variable| !variable.contains('=')) {
        bail!("--env {wrong}: write NAME=value");
    }
    Ok(ServiceSpec {
        bundle,
        replicas: up.replicas,
        command: (!up.command.is_empty()).then(|| up.command.clone()),
        env: up.env.clone(),
        memory_bytes: up.memory,
        reserved_bytes: None,
        cpu_millis: None,
        reserved_cpu_millis: 0,
        pids: None,
        needs: BTreeMap::new(),
        publish: up.publish.iter().map(publish).collect(),
        expose: up.expose.clone(),
        balance: Balance::default(),
        health: health(up)?,
        stop_signal: up.stop_signal.clone(),
        stop_grace_ms: up.stop_timeout,
        drain_ms: up.drain,
        restart: restart(&up.restart)?,
        order: if up.update_order == "stop-first" { Order::StopFirst } else { Order::StartFirst },
        parallelism: up.update_parallelism,
    })
}

fn health(up: &Up) -> Result<Option<Health>> {
    let probe = if let Some(command) = &up.health_cmd {
        Probe::Exec(vec!["/bin/sh".into(), "-c".into(), command.clone()])
    } else if let Some(text) = &up.health_http {
        let (port, path) = text.split_once('/').unwrap_or((text, ""));
        let port =
            port.parse().with_context(|| format!("--health-http {text}: write PORT/PATH"))?;
        Probe::Http { port, path: format!("/{path}") }
    } else if let Some(port) = up.health_tcp {
        Probe::Tcp { port }
    } else {
        return Ok(None);
    };
    Ok(Some(Health {
        probe,
        interval_ms: up.health_interval,
        timeout_ms: up.health_timeout,
        retries: up.health_retries,
        start_period_ms: up.health_start_period,
        start_interval_ms: 10,
    }))
}

fn restart(text: &str) -> Result<RestartPolicy> {
    let policy = |on, max_attempts| RestartPolicy { on, max_attempts, ..RestartPolicy::default() };
    match text.split_once(':') {
        None if text == "no" => Ok(policy(RestartOn::Never, None)),
        None if text == "on-failure" => Ok(policy(RestartOn::Failure, None)),
        None if text == "always" => Ok(policy(RestartOn::Any, None)),
        Some(("on-failure", most)) => {
            let most = most.parse().with_context(|| format!("--restart {text}: write a number"))?;
            Ok(policy(RestartOn::Failure, Some(most)))
        }
        _ => bail!("--restart {text}: write no, on-failure, on-failure:N or always"),
    }
}

/// The runtime's program: as given, or `minirun` beside this program, or found in PATH.
fn runtime(given: Option<&Path>) -> Result<PathBuf> {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name("minirun"));
    let candidate = match given {
        Some(path) if path.components().count() > 1 => Some(path.to_path_buf()),
        Some(name) => in_path(name),
        None => beside.filter(|file| file.is_file()).or_else(|| in_path(Path::new("minirun"))),
    };
    let found = candidate.filter(|file| file.is_file());
    let found = found.context("there is no OCI runtime; name one with --runtime")?;
    Ok(found.canonicalize()?)
}

fn in_path(name: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
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

/// Waits until everything is as wanted.
async fn wait_until_ready(client: &Client) -> Result<()> {
    loop {
        let view = client.state().await?;
        if let Some(failed) = view.state.slots().find(|slot| slot.is_failed()) {
            bail!("{} has failed; `minisup events {}` says why", failed.id, failed.id);
        }
        let all = view.state.slots().all(|slot| slot.has_ended() || slot.is_ready());
        if all && view.state.acknowledged() == view.state.generation() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Shows events and logs until somebody presses Ctrl-C; then everything is stopped.
async fn foreground(client: &Client, mut seen: i64) -> Result<()> {
    let mut reader = Reader::default();
    reader.read(&client.layout, None); // what was there before is not shown again
    let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            _ = stop.recv() => break,
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
        match client.events(seen, None, false).await {
            Ok(new) => {
                for event in &new {
                    seen = event.seq;
                    println!("{}", events::line(event));
                }
            }
            Err(_) if Layout::projects().contains(&client.layout.project) => {} // starting again
            Err(_) => return Ok(()), // somebody said down
        }
        for line in reader.read(&client.layout, None) {
            println!("{line}");
        }
    }
    eprintln!("stopping {}", client.layout.project);
    super::down::run(Some(&client.layout.project)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_policies_are_read() {
        assert_eq!(restart("no").unwrap().on, RestartOn::Never);
        assert_eq!(restart("on-failure:3").unwrap().max_attempts, Some(3));
        assert_eq!(restart("always").unwrap(), RestartPolicy::default());
        for bad in ["", "never", "on-failure:x", "always:3"] {
            assert!(restart(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn services_are_called_after_their_bundles() {
        assert_eq!(service_name(Path::new("/x/Web App.d")).unwrap(), "web-app-d");
        assert!(service_name(Path::new("/")).is_err());
    }
}
