//! `x-minisup` of a service: what of it has an effect, and what not yet.

use anyhow::Result;
use minisup_compose::minisup::{self, Balance, Check, Probes, ServiceExtension};

use super::Place;
use crate::model::{Health, Probe, Roles};

impl Place<'_> {
    /// Refuses what `x-minisup` asks for and this supervisor cannot do.
    pub(super) fn check_extension(&self, asked: &ServiceExtension) -> Result<()> {
        let usual = ServiceExtension::default();
        let known =
            ServiceExtension { probes: Probes::default(), lb: Balance::default(), ..asked.clone() };
        if known == usual {
            return Ok(());
        }
        let (known, usual) = (serde_json::to_value(&known)?, serde_json::to_value(&usual)?);
        let differs = |key: &&String| known[key.as_str()] != usual[key.as_str()];
        let keys = known.as_object().into_iter().flat_map(serde_json::Map::keys);
        let key = keys.into_iter().find(differs).cloned().unwrap_or_default();
        let remedy = "leave it out; probes and lb have an effect today";
        Err(self.refuse(&format!("x-minisup.{key}"), "is not supported yet", remedy))
    }
}

/// The checks of the three roles.
pub(super) fn roles(asked: &Probes) -> Roles {
    let role = |probe: &Option<minisup::Probe>| probe.as_ref().map(role);
    Roles { startup: role(&asked.startup), ready: role(&asked.ready), live: role(&asked.live) }
}

fn role(asked: &minisup::Probe) -> Health {
    let probe = match &asked.check {
        Check::Exec(words) => Probe::Exec(words.clone()),
        Check::Tcp(tcp) => Probe::Tcp { port: tcp.port },
        Check::Http(http) => {
            Probe::Http { port: http.port, path: http.path.clone(), host: http.host.clone() }
        }
        Check::Grpc(grpc) => {
            Probe::Grpc { port: grpc.port, service: grpc.service.clone().unwrap_or_default() }
        }
        Check::Unix(unix) => Probe::Unix { path: unix.path.clone() },
    };
    Health {
        probe,
        interval_ms: asked.interval.0,
        timeout_ms: asked.timeout.0,
        retries: asked.failures,
        start_period_ms: 30_000,
        start_interval_ms: 10,
        rise: asked.successes,
    }
}
