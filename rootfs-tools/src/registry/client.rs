//! A connection to one repository of a registry: requests, credentials, patience.

use super::auth::{Challenge, basic};
use super::credentials::{self, Credentials};
use crate::error::{Context, Error, Result};
use crate::reference::{DOCKER, Reference};
use serde::Deserialize;
use std::fs;
use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, SendBody};

/// How a registry is reached.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Speak HTTP without TLS. For a registry on this machine only.
    pub insecure: bool,
    /// A file with certificates (PEM) to trust besides those of the system.
    pub ca: Option<PathBuf>,
    /// Registries to ask before the one that the name says: `host[:port]`.
    pub mirrors: Vec<String>,
}

/// How often a request is made that fails for a reason that may pass.
pub(super) const TRIES: u32 = 5;
/// How long to wait before the second try; twice as long before each further one.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// A server that asks for more patience than this gets none.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// More than any answer but a blob has.
const ANSWER_LIMIT: u64 = 4 << 20;

/// A repository of a registry.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    /// `https://host:port`.
    base: String,
    /// The path of the image in the registry.
    path: String,
    credentials: Option<Credentials>,
    /// The header that the registry wanted last time.
    authorization: Mutex<Option<String>>,
}

impl Client {
    /// A client for the repository of `image` at `host`, which may be a mirror.
    ///
    /// # Errors
    /// When the options do not allow to speak with the host, or its password cannot be read.
    pub fn new(host: &str, image: &Reference, options: &Options) -> Result<Self> {
        if options.insecure && !is_loopback(host) {
            return Err(Error::Unsupported(format!(
                "--insecure is for a registry on this machine, and {host} is not; for a certificate of your own use --ca"
            )));
        }
        let scheme = if options.insecure { "http" } else { "https" };
        Ok(Self {
            agent: agent(options)?,
            base: format!("{scheme}://{}", server(host)),
            path: image.repository(),
            credentials: credentials::find(host, &image.repository())?,
            authorization: Mutex::default(),
        })
    }

    /// The URL of something of the repository: `manifests/latest`.
    pub fn url(&self, what: &str) -> String {
        format!("{}/v2/{}/{what}", self.base, self.path)
    }

    /// The URL that a server answered, which may be relative to the registry.
    pub fn absolute(&self, location: &str) -> String {
        if location.starts_with('/') { format!("{}{location}", self.base) } else { location.into() }
    }

    /// Makes a request without a body until it is answered: once more with credentials when they
    /// are asked for, and a few times when the reason may pass.
    ///
    /// # Errors
    /// When no answer comes. An answer that says no is an answer.
    pub fn request(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response<Body>> {
        self.send(method, url, headers, || Ok(SendBody::none()))
    }

    /// The same with a body, which is made anew for each try.
    ///
    /// # Errors
    /// As for [`Client::request`].
    pub fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Fn() -> Result<SendBody<'static>>,
    ) -> Result<Response<Body>> {
        let mut pause = FIRST_PAUSE;
        let mut asked = false;
        let mut tries = 0;
        loop {
            tries += 1;
            let answer = self.once(&method, url, headers, body()?);
            let last = tries >= TRIES;
            match answer {
                Ok(response) if response.status() == StatusCode::UNAUTHORIZED && !asked => {
                    asked = true;
                    self.authorize(&response).context(|| format!("log in to {}", self.base))?;
                }
                Ok(response) if !may_pass(response.status()) || last => return Ok(response),
                Ok(response) => {
                    sleep(wanted_pause(&response).unwrap_or(pause).min(LONGEST_PAUSE));
                    pause *= 2;
                }
                Err(error) if last || !is_passing(&error) => {
                    return Err(network(&error)).context(|| format!("{method} {url}"));
                }
                Err(_) => {
                    sleep(pause);
                    pause *= 2;
                }
            }
        }
    }

    /// Makes a request once, with credentials when they are asked for: for bodies of which the
    /// registry may have kept a part.
    ///
    /// # Errors
    /// [`Error::Network`] when no answer comes.
    pub fn attempt(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Fn() -> Result<SendBody<'static>>,
    ) -> Result<Response<Body>> {
        let step = || format!("{method} {url}");
        let once = || -> Result<Response<Body>> {
            let answer = self.once(&method, url, headers, body()?);
            answer.map_err(|error| network(&error)).context(step)
        };
        let response = once()?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        self.authorize(&response).context(|| format!("log in to {}", self.base))?;
        once()
    }

    fn once(
        &self,
        method: &Method,
        url: &str,
        headers: &[(&str, &str)],
        body: SendBody<'static>,
    ) -> std::result::Result<Response<Body>, ureq::Error> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        // Credentials are for the registry; a URL elsewhere that it sent us to has its own.
        let ours = url.starts_with(&format!("{}/", self.base));
        let authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = authorization.as_ref().filter(|_| ours) {
            request = request.header("Authorization", value);
        }
        drop(authorization);
        self.agent.run(request.body(body)?)
    }

    /// Gets what a registry asked for.
    fn authorize(&self, response: &Response<Body>) -> Result<()> {
        let header =
            response.headers().get("www-authenticate").and_then(|value| value.to_str().ok());
        let value = match header.and_then(Challenge::parse) {
            Some(Challenge::Basic) => match &self.credentials {
                Some(known) => basic(&known.user, &known.password),
                None => {
                    return Err(Error::Unsupported(
                        "it wants a password, and no auth file has one for it; log in with `skopeo login` or set REGISTRY_AUTH_FILE".into(),
                    ));
                }
            },
            Some(Challenge::Bearer { realm, service, scope }) => {
                format!("Bearer {}", self.token(&realm, service.as_deref(), scope.as_deref())?)
            }
            None => {
                return Err(Error::Unsupported(
                    "it asks for a kind of login that registries do not have".into(),
                ));
            }
        };
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        Ok(())
    }

    fn token(&self, realm: &str, service: Option<&str>, scope: Option<&str>) -> Result<String> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        // A password may go where the registry says, but not out of its encryption.
        if self.base.starts_with("https:") && !realm.starts_with("https:") {
            return Err(Error::Invalid(format!(
                "it sends us to {realm} for a token, without encryption"
            )));
        }
        let step = || format!("get a token from {realm}");
        let mut request = self.agent.get(realm);
        for (key, value) in [("service", service), ("scope", scope)] {
            if let Some(value) = value {
                request = request.query(key, value);
            }
        }
        if let Some(known) = &self.credentials {
            request = request.header("Authorization", basic(&known.user, &known.password));
        }
        let response = request.call().map_err(|error| network(&error)).context(step)?;
        let response = expect(response, &[StatusCode::OK]).context(step)?;
        let token: Token = serde_json::from_slice(&read(response)?).context(step)?;
        token
            .token
            .or(token.access_token)
            .ok_or_else(|| Error::Invalid("the answer has no token".into()))
            .context(step)
    }
}

/// What speaks HTTP.
///
/// # Errors
/// When no certificate is trusted.
pub(crate) fn agent(options: &Options) -> Result<Agent> {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .user_agent(concat!("rootfs-tools/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_per_read(Some(Duration::from_secs(60)));
    if !options.insecure {
        let roots = RootCerts::new_with_certs(&certificates(options)?);
        config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
    }
    Ok(config.build().new_agent())
}

/// The certificates to trust: the system's and those that were given.
fn certificates(options: &Options) -> Result<Vec<Certificate<'static>>> {
    const BUNDLES: [&str; 3] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/cert.pem",
    ];
    let system = std::env::var_os("SSL_CERT_FILE")
        .map(PathBuf::from)
        .or_else(|| BUNDLES.iter().map(PathBuf::from).find(|bundle| bundle.is_file()));
    let mut found = Vec::new();
    for file in system.iter().chain(&options.ca) {
        let pem = fs::read(file).context(|| format!("read {}", file.display()))?;
        for item in parse_pem(&pem) {
            if let Ok(PemItem::Certificate(certificate)) = item {
                found.push(certificate);
            }
        }
    }
    if found.is_empty() {
        return Err(Error::Unsupported(
            "no certificates are trusted on this machine: install ca-certificates, or give --ca FILE".into(),
        ));
    }
    Ok(found)
}

/// The server of a registry. Docker's has two names: one for people and one for programs.
fn server(host: &str) -> &str {
    if host == DOCKER { "registry-1.docker.io" } else { host }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

pub(super) fn may_pass(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

fn is_passing(error: &ureq::Error) -> bool {
    use ureq::Error as E;
    matches!(error, E::Io(_) | E::Timeout(_) | E::ConnectionFailed | E::Protocol(_))
}

/// What `Retry-After` asks for.
fn wanted_pause(response: &Response<Body>) -> Option<Duration> {
    let header = response.headers().get("retry-after")?.to_str().ok()?;
    header.parse().ok().map(Duration::from_secs)
}

/// An error of the network as ours.
pub(crate) fn network(error: &ureq::Error) -> Error {
    Error::Network(error.to_string())
}

/// An error of a stream that breaks off, as ours.
pub(crate) fn broken(error: std::io::Error) -> Error {
    match error.downcast::<ureq::Error>() {
        Ok(error) => network(&error),
        Err(error) => Error::Network(error.to_string()),
    }
}

/// The answer, when its status is one of those expected.
///
/// # Errors
/// What the registry says about its refusal.
pub(crate) fn expect(response: Response<Body>, wanted: &[StatusCode]) -> Result<Response<Body>> {
    #[derive(Deserialize)]
    struct Refusal {
        errors: Vec<Reason>,
    }
    #[derive(Deserialize)]
    struct Reason {
        code: String,
        #[serde(default)]
        message: String,
    }
    let status = response.status();
    if wanted.contains(&status) {
        return Ok(response);
    }
    let body = read(response).unwrap_or_default();
    let reasons = serde_json::from_slice::<Refusal>(&body).map(|refusal| refusal.errors);
    let reasons: Vec<_> = reasons
        .unwrap_or_default()
        .into_iter()
        .map(|reason| format!("{}: {}", reason.code, reason.message))
        .collect();
    let detail =
        if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) };
    Err(Error::Refused { status: status.as_u16(), reason: format!("{status}{detail}") })
}

/// Reads an answer that is a document.
///
/// # Errors
/// When it breaks off, or is too large.
pub(super) fn read(response: Response<Body>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let reader = response.into_body().into_with_config().limit(ANSWER_LIMIT + 1).reader();
    reader
        .take(ANSWER_LIMIT)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::Network(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "[::1]:5000", "127.9.9.9"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["r.example", "10.0.0.1:5000", "localhost.example:5000", "[::2]:5000"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
