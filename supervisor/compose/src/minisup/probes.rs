//! `x-minisup.probes`: checks in the three roles.

use serde::Serialize;

#[cfg(test)]
use schemars::JsonSchema;

use super::unset;
use crate::field::{Field, Fields};
use crate::findings::Findings;
use crate::quantity::Millis;

/// `probes`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Probes {
    /// Until it succeeds once, the replica starts and the other probes rest.
    #[serde(skip_serializing_if = "unset")]
    pub startup: Option<Probe>,
    /// While it fails, the replica gets no requests.
    #[serde(skip_serializing_if = "unset")]
    pub ready: Option<Probe>,
    /// When it fails, the replica is replaced.
    #[serde(skip_serializing_if = "unset")]
    pub live: Option<Probe>,
}

/// One check: exactly one of `exec`, `http`, `tcp`, `grpc` and `unix`, and its times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Probe {
    /// What is asked.
    #[serde(flatten)]
    pub check: Check,
    /// Between the end of one and the start of the next. Default 1 s.
    pub interval: Millis,
    /// After this it has failed. Default 1 s.
    pub timeout: Millis,
    /// Failures in a row that count as failing. Default 3.
    pub failures: u32,
    /// Successes in a row that count as well again. Default 1.
    pub successes: u32,
}

/// What a probe asks. All but `exec` are asked by the supervisor inside the container's network
/// namespace, without starting a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(JsonSchema))]
pub enum Check {
    /// A program in the container ends with 0.
    Exec(Vec<String>),
    /// An HTTP request is answered with a status from 200 to 399.
    Http(HttpProbe),
    /// A TCP connection is accepted.
    Tcp(TcpProbe),
    /// The gRPC health service answers SERVING.
    Grpc(GrpcProbe),
    /// A unix socket in the container accepts a connection.
    Unix(UnixProbe),
}

/// `http`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct HttpProbe {
    /// The port in the container.
    pub port: u16,
    /// The path and query. Default `/`.
    pub path: String,
    /// The Host header. Default `localhost`.
    #[serde(skip_serializing_if = "unset")]
    pub host: Option<String>,
}

/// `tcp`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct TcpProbe {
    /// The port in the container.
    pub port: u16,
}

/// `grpc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct GrpcProbe {
    /// The port in the container.
    pub port: u16,
    /// The service asked for. Default: the server as a whole.
    #[serde(skip_serializing_if = "unset")]
    pub service: Option<String>,
}

/// `unix`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct UnixProbe {
    /// The socket in the container; absolute.
    pub path: String,
}

impl Probes {
    pub(super) fn read(field: &Field<'_>, cx: &mut Findings) -> Self {
        let mut f = Fields::open(field, cx);
        let probes = Self {
            startup: f.get("startup", cx, Probe::read),
            ready: f.get("ready", cx, Probe::read),
            live: f.get("live", cx, Probe::read),
        };
        f.close(cx);
        probes
    }
}

impl Probe {
    fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let checks = [
            f.get("exec", cx, read_exec),
            f.get("http", cx, read_http),
            f.get("tcp", cx, |x, cx| read_port(x, cx).map(|port| Check::Tcp(TcpProbe { port }))),
            f.get("grpc", cx, read_grpc),
            f.get("unix", cx, read_unix),
        ];
        let kinds = ["exec", "http", "tcp", "grpc", "unix"];
        let given = kinds.into_iter().filter(|kind| f.map_keys(&[kind]).is_some()).count();
        let positive = |x: &Field<'_>, cx: &mut Findings| {
            let value = x.millis(cx)?;
            if value.0 == 0 {
                x.error(cx, "must be longer than 0", "write a duration such as `500ms`");
            }
            Some(value)
        };
        let interval = f.get("interval", cx, positive).unwrap_or(Millis(1000));
        let timeout = f.get("timeout", cx, positive).unwrap_or(Millis(1000));
        let failures = f.get("failures", cx, |x, cx| x.number(cx, 1, 1000)).unwrap_or(3);
        let successes = f.get("successes", cx, |x, cx| x.number(cx, 1, 1000)).unwrap_or(1);
        f.close(cx);
        if given != 1 {
            let message = format!("a probe asks one thing, and this asks {given}");
            field.error(cx, message, "write one of `exec`, `http`, `tcp`, `grpc` and `unix`");
            return None;
        }
        let check = checks.into_iter().flatten().next()?;
        Some(Self { check, interval, timeout, failures, successes })
    }
}

fn read_exec(field: &Field<'_>, cx: &mut Findings) -> Option<Check> {
    let words = field.texts(cx);
    if words.is_empty() {
        field.error(cx, "must not be empty", "write `[PROGRAM, ARGUMENT, …]`");
        return None;
    }
    Some(Check::Exec(words))
}

fn port(f: &mut Fields<'_>, field: &Field<'_>, cx: &mut Findings) -> Option<u16> {
    if f.map_keys(&["port"]).is_none() {
        field.error(cx, "`port` is missing", "write the port in the container");
    }
    f.get("port", cx, |x, cx| x.number(cx, 1, u16::MAX))
}

fn read_port(field: &Field<'_>, cx: &mut Findings) -> Option<u16> {
    let mut f = Fields::open(field, cx);
    let port = port(&mut f, field, cx);
    f.close(cx);
    port
}

fn read_http(field: &Field<'_>, cx: &mut Findings) -> Option<Check> {
    let mut f = Fields::open(field, cx);
    let port = port(&mut f, field, cx);
    let path = f.get("path", cx, absolute).unwrap_or_else(|| "/".into());
    let host = f.get("host", cx, Field::word);
    f.close(cx);
    Some(Check::Http(HttpProbe { port: port?, path, host }))
}

fn read_grpc(field: &Field<'_>, cx: &mut Findings) -> Option<Check> {
    let mut f = Fields::open(field, cx);
    let port = port(&mut f, field, cx);
    let service = f.get("service", cx, Field::word);
    f.close(cx);
    Some(Check::Grpc(GrpcProbe { port: port?, service }))
}

fn read_unix(field: &Field<'_>, cx: &mut Findings) -> Option<Check> {
    let mut f = Fields::open(field, cx);
    let path = f.get("path", cx, absolute);
    if f.map_keys(&["path"]).is_none() {
        field.error(cx, "`path` is missing", "write the path of the socket in the container");
    }
    f.close(cx);
    Some(Check::Unix(UnixProbe { path: path? }))
}

/// A path that begins with `/`, without spaces or control characters (it goes on the wire).
fn absolute(field: &Field<'_>, cx: &mut Findings) -> Option<String> {
    field.parsed(cx, "a path that begins with `/`, without spaces", |text| {
        let clean = !text.contains(|c: char| c.is_whitespace() || c.is_control());
        (text.starts_with('/') && clean).then(|| text.to_owned())
    })
}
