//! One service from the command line's options.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use linux::inet::Transport;
use minisup_core::restart::{RestartOn, RestartPolicy};
use minisup_core::spec::Order;

use super::Up;
use crate::balance::Balance;
use crate::image::Made;
use crate::model::{Health, Probe, Protocol, Publish, Roles, ServiceSpec};
use crate::quantity::Published;
use crate::settings::Settings;

/// What a service is called that is made of `source`: a bundle, an archive or an image's name.
///
/// # Errors
/// Nothing of it can be a name.
pub(super) fn name(source: &str) -> Result<String> {
    let last = source.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let last = last.split(['@', ':']).next().unwrap_or_default().to_ascii_lowercase();
    let last = last.trim_end_matches(".tar").trim_end_matches(".tar.gz");
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = last.chars().map(plain).collect();
    let name = name.trim_matches('-').to_string();
    if name.is_empty() {
        bail!("{source} has no name to call the service by; use --name");
    }
    Ok(name)
}

/// The service that the options describe.
pub(super) fn service(up: &Up, made: Made) -> Result<ServiceSpec> {
    let protocol = match up.protocol.as_str() {
        "http" => Protocol::Http,
        "h2c" => Protocol::H2c,
        "tcp" => Protocol::Tcp,
        _ => Protocol::Auto,
    };
    let publish = |wanted: &Published| {
        let udp = wanted.door.transport == Transport::Udp;
        let protocol = if udp { Protocol::Udp } else { protocol };
        Publish {
            host: wanted.door.at,
            among: wanted.among,
            ipv6_too: wanted.ipv6_too,
            port: wanted.inside,
            protocol,
        }
    };
    let exposed = |by: Transport| -> Vec<u16> {
        let of_image = made.exposed.iter().filter(|(_, transport)| *transport == by);
        of_image.map(|(port, _)| *port).collect()
    };
    let mut expose = [up.expose.clone(), exposed(Transport::Tcp)].concat();
    expose.sort_unstable();
    expose.dedup();
    if let Some(wrong) = up.env.iter().find(|variable| !variable.contains('=')) {
        bail!("--env {wrong}: write NAME=value");
    }
    Ok(ServiceSpec {
        bundle: made.bundle,
        replicas: number(&up.replicas)?,
        command: command(made.entrypoint, &up.command),
        env: up.env.clone(),
        memory_bytes: up.memory,
        reserved_bytes: None,
        cpu_millis: None,
        reserved_cpu_millis: 0,
        pids: None,
        needs: BTreeMap::new(),
        publish: up.publish.iter().map(publish).collect(),
        expose,
        expose_udp: exposed(Transport::Udp),
        balance: Balance::default(),
        health: health(up)?.or(made.health),
        stop_signal: up.stop_signal.clone().or(made.stop_signal).unwrap_or_else(|| "TERM".into()),
        stop_grace_ms: up.stop_timeout,
        drain_ms: up.drain,
        restart: restart(&up.restart)?,
        order: if up.update_order == "stop-first" { Order::StopFirst } else { Order::StartFirst },
        moves: Order::StartFirst,
        parallelism: up.update_parallelism,
        settings: Settings::default(),
        roles: Roles::default(),
        labels: BTreeMap::new(),
        follows: BTreeMap::new(),
        attach: true,
    })
}

/// The one number of replicas, 1 if none is given.
fn number(given: &[String]) -> Result<u32> {
    match given {
        [] => Ok(1),
        [one] => one.parse().with_context(|| format!("--replicas {one}: write a number")),
        _ => bail!("--replicas was given more than once"),
    }
}

/// Numbers of replicas for services of a Compose file: `web=3`.
pub(super) fn set_replicas(
    given: &[String],
    services: &mut BTreeMap<String, ServiceSpec>,
) -> Result<()> {
    for text in given {
        let wrong = || format!("--replicas {text}: write SERVICE=NUMBER, as web=3");
        let (name, count) = text.split_once('=').with_context(wrong)?;
        let known: Vec<String> = services.keys().cloned().collect();
        let Some(spec) = services.get_mut(name) else {
            bail!("--replicas {text}: there is no service {name}; there are {}", known.join(", "));
        };
        spec.replicas = count.parse().with_context(wrong)?;
    }
    Ok(())
}

/// A command replaces that of the image, and is given to its entry point.
fn command(mut entrypoint: Vec<String>, command: &[String]) -> Option<Vec<String>> {
    if command.is_empty() {
        return None;
    }
    entrypoint.extend_from_slice(command);
    Some(entrypoint)
}

fn health(up: &Up) -> Result<Option<Health>> {
    let probe = if let Some(command) = &up.health_cmd {
        Probe::Exec(vec!["/bin/sh".into(), "-c".into(), command.clone()])
    } else if let Some(text) = &up.health_http {
        let (port, path) = text.split_once('/').unwrap_or((text, ""));
        let port =
            port.parse().with_context(|| format!("--health-http {text}: write PORT/PATH"))?;
        Probe::Http { port, path: format!("/{path}"), host: None }
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
        rise: 1,
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
    fn replicas_are_one_number_or_of_services() {
        assert_eq!(number(&[]).unwrap(), 1);
        assert_eq!(number(&["3".into()]).unwrap(), 3);
        assert!(number(&["web=3".into()]).is_err());
        assert!(set_replicas(&["3".into()], &mut BTreeMap::new()).is_err());
        let error = set_replicas(&["web=3".into()], &mut BTreeMap::new()).unwrap_err();
        assert!(error.to_string().contains("there is no service web"), "{error}");
    }

    #[test]
    fn services_are_called_after_what_they_are_made_of() {
        assert_eq!(name("/x/Web App.d").unwrap(), "web-app-d");
        assert_eq!(name("ghcr.io/shop/web:v2").unwrap(), "web");
        assert_eq!(name("web@sha256:00").unwrap(), "web");
        assert_eq!(name("images/web.tar").unwrap(), "web");
        assert!(name("/").is_err());
    }
}
