//! `x-minisup.lb`: how requests are given to replicas.

use std::path::PathBuf;

use serde::Serialize;

#[cfg(test)]
use schemars::JsonSchema;

use super::unset;
use crate::field::{Field, Fields};
use crate::findings::Findings;
use crate::quantity::{Millis, Percent};

/// `lb`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(JsonSchema), schemars(default))]
pub struct Balance {
    /// How a replica is chosen. Default `p2c-ewma`.
    pub algorithm: Algorithm,
    /// What is spoken on TCP ports whose `app_protocol` does not say it. Default `http`.
    pub protocol: LbProtocol,
    /// Further tries of a request on other replicas. Default 3.
    pub retries: u32,
    /// Retries are at most this share of all requests. Default 20 %.
    pub retry_budget: Percent,
    /// Retry POST and PATCH too when the replica is known to be dead. Default false.
    pub retry_unsafe: bool,
    /// A new replica gets its full share after this time. Default 0.
    pub slow_start: Millis,
    /// Requests at a time in one replica. Default: no limit.
    #[serde(skip_serializing_if = "unset")]
    pub max_inflight: Option<u32>,
    /// Requests that wait while no replica can take them.
    pub queue: Queue,
    /// How long the requests of a stopping replica may take. Default 10 s.
    pub drain: Millis,
    /// When a replica that answers badly gets no requests for a while.
    pub outlier: Outlier,
    /// Below this share of ready replicas all are used, well or not. Default 50 %.
    pub panic_threshold: Percent,
    /// For the connection to a replica. Default 1 s.
    pub connect_timeout: Millis,
    /// For the first byte of an answer. Default: no limit.
    #[serde(skip_serializing_if = "unset")]
    pub response_timeout: Option<Millis>,
    /// For a connection on which nothing is sent. Default 60 s.
    pub idle_timeout: Millis,
    /// Tell replicas the client's address by the PROXY protocol. Default off.
    pub proxy_protocol: ProxyProtocol,
    /// Expect the PROXY protocol from clients. Default false.
    pub accept_proxy: bool,
    /// Write a line for each request. Default false.
    pub access_log: bool,
    /// Speak TLS with clients.
    #[serde(skip_serializing_if = "unset")]
    pub tls: Option<Tls>,
}

/// `algorithm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(JsonSchema))]
pub enum Algorithm {
    /// The better of two replicas drawn at random, by peak latency and requests in flight.
    #[default]
    P2cEwma,
    /// One after the other.
    RoundRobin,
    /// The one with the fewest requests in flight.
    LeastConnections,
}

/// `protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(JsonSchema))]
pub enum LbProtocol {
    /// HTTP/1.1, HTTP/2 without TLS, WebSocket.
    #[default]
    Http,
    /// Bytes.
    Tcp,
}

/// `proxy_protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(JsonSchema))]
pub enum ProxyProtocol {
    /// Not at all.
    #[default]
    Off,
    /// Version 1, a line of text.
    V1,
    /// Version 2, binary.
    V2,
}

/// `queue`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(JsonSchema), schemars(default))]
pub struct Queue {
    /// How many wait; the next is refused with 503. Default 1000.
    pub size: u32,
    /// How long one waits. Default 10 s.
    pub timeout: Millis,
}

/// `outlier`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(JsonSchema), schemars(default))]
pub struct Outlier {
    /// Bad answers in a row. Default 5.
    pub consecutive: u32,
    /// How long the first time; each time longer. Default 5 s.
    pub base: Millis,
    /// Never more than this share of the replicas. Default 50 %.
    pub max_percent: Percent,
}

/// `tls`: files in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Tls {
    /// The certificate and those between it and the root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Default for Balance {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            protocol: LbProtocol::default(),
            retries: 3,
            retry_budget: Percent(200_000),
            retry_unsafe: false,
            slow_start: Millis(0),
            max_inflight: None,
            queue: Queue::default(),
            drain: Millis(10_000),
            outlier: Outlier::default(),
            panic_threshold: Percent(500_000),
            connect_timeout: Millis(1000),
            response_timeout: None,
            idle_timeout: Millis(60_000),
            proxy_protocol: ProxyProtocol::default(),
            accept_proxy: false,
            access_log: false,
            tls: None,
        }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self { size: 1000, timeout: Millis(10_000) }
    }
}

impl Default for Outlier {
    fn default() -> Self {
        Self { consecutive: 5, base: Millis(5000), max_percent: Percent(500_000) }
    }
}

/// A share that is at most the whole.
pub(super) fn share(field: &Field<'_>, cx: &mut Findings) -> Option<Percent> {
    let share = field.percent(cx)?;
    if share.0 > 1_000_000 {
        field.error(cx, "is more than the whole", "write a percentage up to `100%`");
        return None;
    }
    Some(share)
}

impl Balance {
    pub(super) fn read(field: &Field<'_>, cx: &mut Findings) -> Self {
        let mut f = Fields::open(field, cx);
        let d = Self::default();
        let algorithms = [
            ("p2c-ewma", Algorithm::P2cEwma),
            ("round-robin", Algorithm::RoundRobin),
            ("least-connections", Algorithm::LeastConnections),
        ];
        let protocols = [("http", LbProtocol::Http), ("tcp", LbProtocol::Tcp)];
        let proxies =
            [("off", ProxyProtocol::Off), ("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2)];
        let balance = Self {
            algorithm: f
                .get("algorithm", cx, |x, cx| x.one_of(cx, &algorithms))
                .unwrap_or_default(),
            protocol: f.get("protocol", cx, |x, cx| x.one_of(cx, &protocols)).unwrap_or_default(),
            retries: f.get("retries", cx, |x, cx| x.number(cx, 0, 10)).unwrap_or(d.retries),
            retry_budget: f.get("retry_budget", cx, share).unwrap_or(d.retry_budget),
            retry_unsafe: f.get("retry_unsafe", cx, Field::boolean).unwrap_or(false),
            slow_start: f.get("slow_start", cx, Field::millis).unwrap_or(d.slow_start),
            max_inflight: f.get("max_inflight", cx, |x, cx| x.number(cx, 1, 1_000_000)),
            queue: f.list("queue", cx, Queue::read),
            drain: f.get("drain", cx, Field::millis).unwrap_or(d.drain),
            outlier: f.list("outlier", cx, Outlier::read),
            panic_threshold: f.get("panic_threshold", cx, share).unwrap_or(d.panic_threshold),
            connect_timeout: f
                .get("connect_timeout", cx, Field::millis)
                .unwrap_or(d.connect_timeout),
            response_timeout: f.get("response_timeout", cx, Field::millis),
            idle_timeout: f.get("idle_timeout", cx, Field::millis).unwrap_or(d.idle_timeout),
            proxy_protocol: f
                .get("proxy_protocol", cx, |x, cx| x.one_of(cx, &proxies))
                .unwrap_or_default(),
            accept_proxy: f.get("accept_proxy", cx, Field::boolean).unwrap_or(false),
            access_log: f.get("access_log", cx, Field::boolean).unwrap_or(false),
            tls: f.get("tls", cx, Tls::read),
        };
        f.close(cx);
        balance
    }
}

impl Queue {
    fn read(field: &Field<'_>, cx: &mut Findings) -> Self {
        let mut f = Fields::open(field, cx);
        let default = Self::default();
        let queue = Self {
            size: f.get("size", cx, |x, cx| x.number(cx, 0, 1_000_000)).unwrap_or(default.size),
            timeout: f.get("timeout", cx, Field::millis).unwrap_or(default.timeout),
        };
        f.close(cx);
        queue
    }
}

impl Outlier {
    fn read(field: &Field<'_>, cx: &mut Findings) -> Self {
        let mut f = Fields::open(field, cx);
        let default = Self::default();
        let outlier = Self {
            consecutive: f
                .get("consecutive", cx, |x, cx| x.number(cx, 1, 1000))
                .unwrap_or(default.consecutive),
            base: f.get("base", cx, Field::millis).unwrap_or(default.base),
            max_percent: f.get("max_percent", cx, share).unwrap_or(default.max_percent),
        };
        f.close(cx);
        outlier
    }
}

impl Tls {
    fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let path = |x: &Field<'_>, cx: &mut Findings| {
            let path = x.word(cx)?;
            Some(cx.sources.resolve(x.node.span.file, &path))
        };
        let (certificate, key) = (f.get("certificate", cx, path), f.get("key", cx, path));
        let missing = ["certificate", "key"].into_iter().find(|key| f.map_keys(&[key]).is_none());
        f.close(cx);
        if let Some(missing) = missing {
            field.error(
                cx,
                format!("`{missing}` is missing"),
                "write `certificate:` and `key:`, files in PEM",
            );
        }
        Some(Self { certificate: certificate?, key: key? })
    }
}
