//! How requests are given to the replicas of a service: what `x-minisup.lb` says.
//!
//! It may change while containers run, and is therefore no part of a revision.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The rules of one service. Every default is what `docs/reference/compose.md` says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Balance {
    pub(crate) algorithm: Algorithm,
    /// Further tries of a request whose answer was lost.
    pub(crate) retries: u32,
    /// Retries are at most this share of requests, in thousandths.
    pub(crate) retry_budget_permille: u32,
    /// Requests that are not idempotent are repeated too when their replica died.
    pub(crate) retry_unsafe: bool,
    /// A new replica gets its full share after this time.
    pub(crate) slow_start_ms: u64,
    /// Requests at a time in one replica.
    pub(crate) max_inflight: Option<u32>,
    /// How many requests may wait for a replica.
    pub(crate) queue_size: u32,
    /// How long one may wait.
    pub(crate) queue_ms: u64,
    /// Bad answers in a row that turn traffic away from a replica.
    pub(crate) outlier_consecutive: u32,
    /// For how long, the first time.
    pub(crate) outlier_base_ms: u64,
    /// From how many of the replicas at most, in thousandths.
    pub(crate) outlier_max_permille: u32,
    /// With fewer good replicas than this, in thousandths, all are used.
    pub(crate) panic_permille: u32,
    /// How long a connection to a replica may take.
    pub(crate) connect_ms: u64,
    /// How long the first byte of an answer may take.
    pub(crate) response_ms: Option<u64>,
    /// How long a connection may be silent.
    pub(crate) idle_ms: u64,
    /// The PROXY protocol towards replicas.
    pub(crate) send_proxy: Option<ProxyVersion>,
    /// The PROXY protocol from clients.
    pub(crate) accept_proxy: bool,
    /// A line for each request.
    pub(crate) access_log: bool,
    /// TLS towards clients.
    pub(crate) tls: Option<Tls>,
}

/// How a replica is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Algorithm {
    /// The better of two at random, by peak latency and requests in flight.
    #[default]
    P2cEwma,
    /// One after the other.
    RoundRobin,
    /// The one with the fewest requests in flight.
    LeastConnections,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Files in PEM.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Tls {
    /// The certificate and those between it and the root.
    pub(crate) certificate: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
}

impl Default for Balance {
    fn default() -> Balance {
        Balance {
            algorithm: Algorithm::default(),
            retries: 3,
            retry_budget_permille: 200,
            retry_unsafe: false,
            slow_start_ms: 0,
            max_inflight: None,
            queue_size: 1000,
            queue_ms: 10_000,
            outlier_consecutive: 5,
            outlier_base_ms: 5000,
            outlier_max_permille: 500,
            panic_permille: 500,
            connect_ms: 1000,
            response_ms: None,
            idle_ms: 60_000,
            send_proxy: None,
            accept_proxy: false,
            access_log: false,
            tls: None,
        }
    }
}

impl From<&minisup_compose::minisup::Balance> for Balance {
    fn from(said: &minisup_compose::minisup::Balance) -> Balance {
        /// Parts per million, the Compose model's unit, in a thousandth.
        const PPM: u64 = 1000;
        let permille = |share: minisup_compose::Percent| {
            u32::try_from(u64::from(share.0) / PPM).unwrap_or(u32::MAX)
        };
        use minisup_compose::minisup::{Algorithm as Said, ProxyProtocol};
        Balance {
            algorithm: match said.algorithm {
                Said::P2cEwma => Algorithm::P2cEwma,
                Said::RoundRobin => Algorithm::RoundRobin,
                Said::LeastConnections => Algorithm::LeastConnections,
            },
            retries: said.retries,
            retry_budget_permille: permille(said.retry_budget),
            retry_unsafe: said.retry_unsafe,
            slow_start_ms: said.slow_start.0,
            max_inflight: said.max_inflight,
            queue_size: said.queue.size,
            queue_ms: said.queue.timeout.0,
            outlier_consecutive: said.outlier.consecutive,
            outlier_base_ms: said.outlier.base.0,
            outlier_max_permille: permille(said.outlier.max_percent),
            panic_permille: permille(said.panic_threshold),
            connect_ms: said.connect_timeout.0,
            response_ms: said.response_timeout.map(|time| time.0),
            idle_ms: said.idle_timeout.0,
            send_proxy: match said.proxy_protocol {
                ProxyProtocol::Off => None,
                ProxyProtocol::V1 => Some(ProxyVersion::V1),
                ProxyProtocol::V2 => Some(ProxyVersion::V2),
            },
            accept_proxy: said.accept_proxy,
            access_log: said.access_log,
            tls: said
                .tls
                .as_ref()
                .map(|tls| Tls { certificate: tls.certificate.clone(), key: tls.key.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_s_defaults_are_ours() {
        assert_eq!(
            Balance::from(&minisup_compose::minisup::Balance::default()),
            Balance::default()
        );
    }

    #[test]
    fn nothing_said_is_the_default_and_something_changes_only_itself() {
        assert_eq!(serde_json::from_str::<Balance>("{}").unwrap(), Balance::default());
        let some: Balance = serde_json::from_str(r#"{"algorithm":"round-robin"}"#).unwrap();
        assert_eq!(some, Balance { algorithm: Algorithm::RoundRobin, ..Balance::default() });
    }
}
