//! The head of a message: read, judged, and written again for the other side.
//!
//! Pure: bytes in, bytes out. Fields about one connection only (RFC 9110, 7.6.1) do not travel,
//! the client's address is added, everything else is passed on byte by byte.

use std::mem::MaybeUninit;
use std::net::SocketAddr;

use super::framing::Framing;

/// The most fields of one message.
const FIELDS: usize = 100;

/// What a request asks for, as far as it matters for its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The length of the head in the input.
    pub(crate) length: usize,
    pub(crate) body: Framing,
    /// Whether the client's connection can be used again.
    pub(crate) keep_alive: bool,
    /// The client speaks HTTP/1.0 and understands no chunks.
    pub(crate) old: bool,
    /// Another protocol may follow (WebSocket).
    pub(crate) upgrade: bool,
    /// The client waits for a word before it sends the body.
    pub(crate) expects_continue: bool,
    /// The answer has no body, whatever its head says.
    pub(crate) is_head: bool,
    /// To ask twice is as good as to ask once (RFC 9110, 9.2.2).
    pub(crate) idempotent: bool,
    /// The application knows a repeated request when it sees one.
    pub(crate) has_key: bool,
}

/// The head of an answer, as far as it matters for its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    /// The length of the head in the input.
    pub(crate) length: usize,
    pub(crate) status: u16,
    pub(crate) body: Framing,
    /// Whether the instance's connection can be used again.
    pub(crate) keep_alive: bool,
}

/// Why a request is not passed on: the status and what is said to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) &'static str, pub(crate) &'static str);

const BAD: &str = "400 Bad Request";

/// What is added to every request of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    address: String,
    scheme: &'static str,
}

impl Origin {
    pub(crate) fn of(client: SocketAddr, tls: bool) -> Origin {
        let scheme = if tls { "https" } else { "http" };
        Origin { address: client.ip().to_canonical().to_string(), scheme }
    }
}

/// A field by the length of its name, which sorts out nearly all at once.
fn is(name: &str, wanted: &str) -> bool {
    name.len() == wanted.len() && name.eq_ignore_ascii_case(wanted)
}

/// Whether a field is about one connection only, whatever `Connection` names.
fn is_hop_by_hop(name: &str) -> bool {
    match name.len() {
        2 => is(name, "te"),
        7 => is(name, "trailer") || is(name, "upgrade"),
        10 => is(name, "connection") || is(name, "keep-alive"),
        16 => is(name, "proxy-connection"),
        17 => is(name, "transfer-encoding"),
        _ => false,
    }
}

/// Whether a comma-separated list has that token.
fn has_token(value: &[u8], token: &str) -> bool {
    value
        .split(|byte| *byte == b',')
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// What the fields of either kind of message say together.
#[derive(Default)]
struct Fields<'a> {
    /// The values of `Connection`.
    connection: Vec<&'a [u8]>,
    length: Option<u64>,
    coded: bool,
    chunked: bool,
    hosts: u32,
    upgrade: bool,
    expect: bool,
    key: bool,
    forwarded_host: bool,
    forwarded_proto: bool,
}

impl<'a> Fields<'a> {
    /// Reads what matters; `None` if lengths contradict each other.
    fn read(headers: &[httparse::Header<'a>]) -> Option<Fields<'a>> {
        let mut fields = Fields::default();
        for header in headers {
            let (name, value) = (header.name, header.value);
            match name.len() {
                4 if is(name, "host") => fields.hosts += 1,
                6 if is(name, "expect") => {
                    fields.expect = value.eq_ignore_ascii_case(b"100-continue")
                }
                7 if is(name, "upgrade") => fields.upgrade = true,
                10 if is(name, "connection") => fields.connection.push(value),
                // Twice the same is allowed, but not worth the risk.
                14 if is(name, "content-length") && fields.length.is_some() => return None,
                14 if is(name, "content-length") => fields.length = Some(number(value)?),
                15 if is(name, "idempotency-key") => fields.key = true,
                16 if is(name, "x-forwarded-host") => fields.forwarded_host = true,
                17 if is(name, "x-forwarded-proto") => fields.forwarded_proto = true,
                17 if is(name, "transfer-encoding") => {
                    fields.chunked = !fields.coded && value.eq_ignore_ascii_case(b"chunked");
                    fields.coded = true;
                }
                _ => {}
            }
        }
        Some(fields)
    }

    fn connection_has(&self, token: &str) -> bool {
        self.connection.iter().any(|value| has_token(value, token))
    }

    /// Copies the fields that travel.
    fn copy(
        &self,
        headers: &[httparse::Header<'_>],
        out: &mut Vec<u8>,
        skip: impl Fn(&str) -> bool,
    ) {
        // Nearly always it names only itself; then no field has to be looked for in it.
        let usual = |value: &&[u8]| {
            [&b"keep-alive"[..], b"close", b"upgrade"]
                .iter()
                .any(|word| value.eq_ignore_ascii_case(word))
        };
        let names = !self.connection.iter().all(usual);
        for header in headers {
            let named = || names && self.connection_has(header.name);
            if is_hop_by_hop(header.name) || skip(header.name) || named() {
                continue;
            }
            field(out, header.name, header.value);
        }
    }
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Digits and nothing else.
fn number(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()
}

/// Reads a request's head and writes it for an instance. `None` while it is not whole.
pub(crate) fn request(
    input: &[u8],
    origin: &Origin,
    out: &mut Vec<u8>,
) -> Result<Option<Asked>, Refusal> {
    let mut space = [const { MaybeUninit::uninit() }; FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let length = match parsed.parse_with_uninit_headers(input, &mut space) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal("431 Request Header Fields Too Large", "too many fields\n"));
        }
        Err(_) => return Err(Refusal(BAD, "this is not an HTTP/1.1 request\n")),
    };
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Ok(None);
    };
    let Some(fields) = Fields::read(parsed.headers) else {
        return Err(Refusal(BAD, "lengths contradict each other\n"));
    };
    let asked = judge(&fields, method, version, length)?;
    for part in [method, " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    if fields.hosts == 0 {
        out.extend_from_slice(b"Host:\r\n");
    }
    let ours = |name: &str| is(name, "x-forwarded-for") || is(name, "expect");
    fields.copy(parsed.headers, out, ours);
    forwarded(parsed.headers, &fields, origin, out);
    if asked.upgrade {
        let protocol = parsed.headers.iter().find(|header| is(header.name, "upgrade"));
        field(out, "Upgrade", protocol.map_or(b"", |header| header.value));
        out.extend_from_slice(b"Connection: Upgrade\r\n");
    }
    if fields.chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Ok(Some(asked))
}

/// What the fields of a request mean together.
fn judge(fields: &Fields<'_>, method: &str, version: u8, length: usize) -> Result<Asked, Refusal> {
    if method == "CONNECT" {
        return Err(Refusal("501 Not Implemented", "there is no CONNECT here\n"));
    }
    let old = version == 0;
    let body = match (fields.coded, fields.length) {
        (true, _) if old => return Err(Refusal(BAD, "HTTP/1.0 has no transfer codings\n")),
        (true, Some(_)) => return Err(Refusal(BAD, "a length and a transfer coding\n")),
        (true, None) if fields.chunked => Framing::CHUNKED,
        (true, None) => return Err(Refusal("501 Not Implemented", "only chunked is understood\n")),
        (false, length) => Framing::Length(length.unwrap_or(0)),
    };
    if fields.hosts > 1 || (fields.hosts == 0 && !old) {
        return Err(Refusal(BAD, "a request has one Host\n"));
    }
    let keep_alive =
        if old { fields.connection_has("keep-alive") } else { !fields.connection_has("close") };
    let idempotent = matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE" | "TRACE");
    Ok(Asked {
        length,
        body,
        keep_alive,
        old,
        upgrade: fields.upgrade && fields.connection_has("upgrade") && !old,
        expects_continue: fields.expect && !old && !body.is_done(),
        is_head: method == "HEAD",
        idempotent,
        has_key: fields.key,
    })
}

/// Says whose request it is.
fn forwarded(
    headers: &[httparse::Header<'_>],
    fields: &Fields<'_>,
    origin: &Origin,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"X-Forwarded-For: ");
    for header in headers.iter().filter(|header| is(header.name, "x-forwarded-for")) {
        out.extend_from_slice(header.value);
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(origin.address.as_bytes());
    out.extend_from_slice(b"\r\n");
    if !fields.forwarded_proto {
        field(out, "X-Forwarded-Proto", origin.scheme.as_bytes());
    }
    let host = headers.iter().find(|header| is(header.name, "host"));
    if let (false, Some(host)) = (fields.forwarded_host, host) {
        field(out, "X-Forwarded-Host", host.value);
    }
}

/// The head of an answer cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nonsense;

/// Reads an answer's head and writes it for the client. `None` while it is not whole.
pub(crate) fn answer(
    input: &[u8],
    asked: &Asked,
    out: &mut Vec<u8>,
) -> Result<Option<Answered>, Nonsense> {
    let mut space = [const { MaybeUninit::uninit() }; FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut parsed, input, &mut space) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Nonsense),
    };
    let (Some(status), Some(version)) = (parsed.code, parsed.version) else { return Ok(None) };
    let fields = Fields::read(parsed.headers).ok_or(Nonsense)?;
    let bodiless = asked.is_head || status < 200 || status == 204 || status == 304;
    let body = match fields.length {
        _ if bodiless => Framing::EMPTY,
        _ if fields.chunked => Framing::CHUNKED,
        _ if fields.coded => Framing::UntilEnd,
        Some(length) => Framing::Length(length),
        None => Framing::UntilEnd,
    };
    let keep_alive = version == 1 && !fields.connection_has("close") && body != Framing::UntilEnd;
    out.extend_from_slice(b"HTTP/1.1 ");
    let digits = [status / 100 % 10, status / 10 % 10, status % 10];
    out.extend(digits.map(|digit| b'0' + u8::try_from(digit).unwrap_or(0)));
    out.push(b' ');
    out.extend_from_slice(parsed.reason.unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    // A coding wins over a length (RFC 9112, 6.3), and the length must not travel then.
    let contradicted = |name: &str| fields.coded && is(name, "content-length");
    fields.copy(parsed.headers, out, contradicted);
    if fields.chunked && !asked.old {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if status == 101 {
        let protocol = parsed.headers.iter().find(|header| is(header.name, "upgrade"));
        field(out, "Upgrade", protocol.map_or(b"", |header| header.value));
        out.extend_from_slice(b"Connection: Upgrade\r\n");
    } else if status >= 200 && !asked.client_stays(&body) {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if asked.old {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Ok(Some(Answered { length, status, body, keep_alive }))
}

impl Asked {
    /// Whether the client's connection can be used again after an answer with such a body.
    pub(crate) fn client_stays(&self, body: &Framing) -> bool {
        let framed = match body {
            Framing::Length(_) => true,
            Framing::Chunked(_) => !self.old,
            Framing::UntilEnd => false,
        };
        self.keep_alive && framed
    }
}

#[cfg(test)]
mod tests;
