//! New connections: who it is, and what is spoken.
//!
//! ```text
//!   accept ─▶ PROXY protocol? ─▶ TLS? ─▶ first bytes ─┬─ "PRI * HTTP/2.0" ─▶ HTTP/2
//!                                                     ├─ a request line ───▶ HTTP/1.1
//!                                                     └─ anything else ────▶ bytes
//! ```

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::ahead::Ahead;
use super::buffer::Buffer;
use super::http::Duplex;
use super::proxy_protocol::{self, Said};
use super::{Port, http, http2, tcp};
use crate::model::Protocol;

/// How long the client's first bytes are waited for when they decide what it speaks, unless it is
/// known of the port that the server speaks first.
pub(super) const FIRST_BYTES: Duration = Duration::from_millis(50);
/// How long a client may take to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long whoever connects may take to say for whom.
const PROXY: Duration = Duration::from_secs(3);

/// Accepts connections, for ever.
pub(crate) async fn accept(listener: TcpListener, port: Rc<Port>) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                // One that finds none waits here, the next ones in the kernel's queue. Not before
                // somebody comes: a listener that nobody uses needs no place.
                let place = match &port.places {
                    Some(places) => places.clone().acquire_owned().await.ok(),
                    None => None,
                };
                let (port, inside) = (port.clone(), port.term.enter());
                tokio::task::spawn_local(async move {
                    begin(stream, client, port).await;
                    drop((inside, place));
                });
            }
            // Out of descriptors: those who wait will be served when others are done.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn begin(mut stream: TcpStream, mut client: SocketAddr, port: Rc<Port>) {
    let _ = stream.set_nodelay(true);
    let mut input = Buffer::default();
    if port.published && port.service.rules().accept_proxy {
        let said = tokio::time::timeout(PROXY, for_whom(&mut stream, &mut input)).await;
        match said {
            Ok(Some(told)) => client = told.unwrap_or(client),
            Ok(None) | Err(_) => return,
        }
    }
    if port.service.rules().tls.is_some() && port.published {
        return begin_tls(stream, input, client, port).await;
    }
    let patience = if port.greets.get() { Duration::ZERO } else { FIRST_BYTES };
    match spoken(&mut stream, &mut input, port.publish.protocol, patience).await {
        Speech::Http1 => http::serve(stream, input, client, false, &port).await,
        Speech::Http2 => http2::serve(stream, input, client, false, port).await,
        Speech::Bytes => tcp::serve_plain(stream, input, client, &port).await,
    }
}

/// The same behind TLS. Without a usable certificate nobody is served.
async fn begin_tls(stream: TcpStream, input: Buffer, client: SocketAddr, port: Rc<Port>) {
    let Some(mut config) = port.service.tls() else { return };
    if port.publish.protocol == Protocol::Tcp {
        // What is spoken inside is the application's; we can promise nothing in its name.
        Arc::make_mut(&mut config).alpn_protocols.clear();
    }
    let accepting = TlsAcceptor::from(config).accept(Ahead::new(stream, input));
    let Ok(Ok(mut stream)) = tokio::time::timeout(HANDSHAKE, accepting).await else { return };
    let mut input = Buffer::default();
    match spoken(&mut stream, &mut input, port.publish.protocol, FIRST_BYTES).await {
        Speech::Http1 => http::serve(stream, input, client, true, &port).await,
        Speech::Http2 => http2::serve(stream, input, client, true, port).await,
        Speech::Bytes => tcp::serve(stream, input, client, &port).await,
    }
}

/// Reads the PROXY protocol's header; `None` is the end of the connection.
async fn for_whom(stream: &mut TcpStream, input: &mut Buffer) -> Option<Option<SocketAddr>> {
    loop {
        match proxy_protocol::read(input.bytes()) {
            Said::Client(length, client) => {
                input.consume(length);
                return Some(client);
            }
            Said::More => {}
            Said::Nonsense => return None,
        }
        if !matches!(input.fill(stream).await, Ok(1..)) {
            return None;
        }
    }
}

/// What is spoken on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Speech {
    Http1,
    Http2,
    Bytes,
}

/// Finds out what a client speaks. One that says nothing waits for the server to speak first,
/// which no HTTP client does; `patience` is how long it is given.
async fn spoken(
    stream: &mut impl Duplex,
    input: &mut Buffer,
    protocol: Protocol,
    patience: Duration,
) -> Speech {
    let first =
        async { while input.bytes().len() < 4 && matches!(input.fill(stream).await, Ok(1..)) {} };
    match protocol {
        Protocol::Tcp | Protocol::Udp => return Speech::Bytes,
        Protocol::H2c => {
            first.await;
            return Speech::Http2;
        }
        Protocol::Http => first.await,
        Protocol::Auto => {
            let _ = tokio::time::timeout(patience, first).await;
        }
    }
    match begins_with(input.bytes()) {
        Speech::Bytes if protocol == Protocol::Http => Speech::Http1,
        speech => speech,
    }
}

fn begins_with(bytes: &[u8]) -> Speech {
    const METHODS: [&[u8]; 9] =
        [b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"OPTI", b"PATC", b"TRAC", b"CONN"];
    let is_http1 = match first_line(bytes) {
        Some(line) => names_http(line),
        None => bytes.get(..4).is_some_and(|first| METHODS.contains(&first)),
    };
    match bytes.get(..4) {
        Some(b"PRI ") => Speech::Http2,
        _ if is_http1 => Speech::Http1,
        _ => Speech::Bytes,
    }
}

/// The first line with something on it, if it is whole. Servers skip empty ones (RFC 9112, 2.2).
fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let length = bytes[start..].iter().position(|byte| *byte == b'\n')?;
    Some(bytes[start..start + length].trim_ascii_end())
}

/// Whether a line ends as one of an HTTP request does, right or wrong: what a lenient server would
/// take for a request must not get past us as something else.
fn names_http(line: &[u8]) -> bool {
    let last = line.rsplit(|byte| *byte == b' ').next();
    last.and_then(|word| word.get(..5)).is_some_and(|word| word.eq_ignore_ascii_case(b"HTTP/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_bytes_say_what_is_spoken() {
        for (text, auto, http) in [
            (&b"GET / HTTP/1.1\r\n"[..], Speech::Http1, Speech::Http1),
            (b"PRI * HTTP/2.0\r\n", Speech::Http2, Speech::Http2),
            (b"\x16\x03\x01\x02", Speech::Bytes, Speech::Http1),
            (b"GE", Speech::Bytes, Speech::Http1),
            (b"GET /half", Speech::Http1, Speech::Http1),
            (b"PROPFIND / HTTP/1.1\r\n", Speech::Http1, Speech::Http1),
            (b"\r\nget / http/1.1\r\n", Speech::Http1, Speech::Http1),
            (b"GET key\r\n", Speech::Bytes, Speech::Http1), // Redis, by hand
            (b"\r\n\r\n", Speech::Bytes, Speech::Http1),
        ] {
            for (protocol, expected) in [(Protocol::Auto, auto), (Protocol::Http, http)] {
                let (mut ours, mut theirs) = tokio::io::duplex(64);
                tokio::io::AsyncWriteExt::write_all(&mut theirs, text).await.unwrap();
                drop(theirs);
                let mut input = Buffer::default();
                let heard = spoken(&mut ours, &mut input, protocol, FIRST_BYTES).await;
                assert_eq!(heard, expected, "{text:?}");
                assert_eq!(input.bytes(), text, "nothing is lost");
            }
        }
    }
}
