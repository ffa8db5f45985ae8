//! The health protocol of gRPC: `grpc.health.v1.Health/Check`, one question over HTTP/2.
//!
//! The two messages are so small that they are written out here instead of generated:
//!
//! ```text
//! HealthCheckRequest   field 1, text: the service       0a LEN BYTES…
//! HealthCheckResponse  field 1, number: 1 is SERVING    08 01
//! ```
//! Each with five bytes before it: whether it is compressed, and its length.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper::header::HeaderMap;
use hyper::rt::{Read, Write};
use hyper::{Request, StatusCode};

use crate::plane::Local;

/// `ServingStatus.SERVING`.
const SERVING: u64 = 1;
/// More of an answer is not read, in bytes.
const LONGEST: usize = 4096;

/// Asks a server whether a service of it is serving; an empty name is the server as a whole.
///
/// # Errors
/// It is not, or no such server is there, in words.
pub(super) async fn check(
    io: impl Read + Write + Unpin + 'static,
    port: u16,
    service: &str,
) -> Result<(), String> {
    let in_words = |error: hyper::Error| format!("no HTTP/2: {error}");
    let shaken = http2::Builder::new(Local).handshake(io).await;
    let (mut sender, connection) = shaken.map_err(in_words)?;
    let connection = tokio::task::spawn_local(async move { connection.await.ok() });
    let request = Request::post(format!("http://localhost:{port}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "minisup-probe")
        .body(Full::new(Bytes::from(question(service))))
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(in_words)?;
    if answer.status() != StatusCode::OK {
        return Err(format!("status {}: it does not speak gRPC", answer.status()));
    }
    let (head, body) = answer.into_parts();
    let whole = Limited::new(body, LONGEST).collect().await;
    connection.abort();
    let whole = whole.map_err(|error| format!("no whole answer: {error}"))?;
    let refused = whole.trailers().and_then(refusal).or_else(|| refusal(&head.headers));
    match (refused, serving_status(&whole.to_bytes())) {
        (Some(refused), _) => Err(refused),
        (None, Some(SERVING)) => Ok(()),
        (None, Some(status)) => Err(format!("it is {}", name(status))),
        (None, None) => Err("the answer is no HealthCheckResponse".to_string()),
    }
}

/// Why the call was refused, if it was: `grpc-status` and `grpc-message`.
fn refusal(fields: &HeaderMap) -> Option<String> {
    let text = |key| fields.get(key).and_then(|value| value.to_str().ok());
    match text("grpc-status")? {
        "0" => None,
        "5" => Some("it knows no such service (grpc-status 5)".to_string()),
        "12" => Some("it does not answer questions about health (grpc-status 12)".to_string()),
        other => Some(format!("grpc-status {other} {}", text("grpc-message").unwrap_or_default())),
    }
}

fn name(status: u64) -> String {
    match status {
        0 => "UNKNOWN".to_string(),
        2 => "NOT_SERVING".to_string(),
        3 => "SERVICE_UNKNOWN".to_string(),
        other => format!("in state {other}"),
    }
}

/// A message with a text as field 1, and the five bytes before it.
fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), &message].concat()
}

/// The number in field 1 of the first message; 0 if it is left out, as zeros are.
fn serving_status(bytes: &[u8]) -> Option<u64> {
    let (head, rest) = bytes.split_at_checked(5)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    let mut message = rest.get(..usize::try_from(length).ok()?).filter(|_| head[0] == 0)?;
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => {
                let value = varint(&mut message)?;
                status = if tag >> 3 == 1 { value } else { status };
            }
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            _ => return None, // no such field is known
        }
    }
    Some(status)
}

/// A number of seven bits to the byte, the lowest first.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use hyper::body::{Body, Frame, Incoming};
    use hyper::service::service_fn;
    use hyper::{Response, server};
    use hyper_util::rt::TokioIo;

    use super::*;

    #[test]
    fn messages_are_as_the_protocol_says() {
        assert_eq!(question(""), [0, 0, 0, 0, 0]);
        assert_eq!(question("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(question(&"x".repeat(200))[5..8], [0x0a, 0xc8, 0x01]);
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(serving_status(&[0, 0, 0, 0, 0]), Some(0));
        // A field that is not known yet is passed over.
        assert_eq!(serving_status(&[0, 0, 0, 0, 5, 0x12, 1, b'x', 8, 2]), Some(2));
        for nonsense in
            [&b""[..], b"\0\0\0\0\x09\x08", b"\x01\0\0\0\x02\x08\x01", b"\0\0\0\0\x01\x08"]
        {
            assert_eq!(serving_status(nonsense), None, "{nonsense:?}");
        }
    }

    /// What is said of a server that gives this answer and these trailers.
    async fn told(message: &'static [u8], status: &'static str) -> Result<(), String> {
        let answer = move |request: Request<Incoming>| async move {
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            let asked = request.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(asked[..], question("shop.Cart")[..]);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", status.parse().unwrap());
            let frames = [Frame::data(Bytes::from_static(message)), Frame::trailers(trailers)];
            Ok::<_, Infallible>(Response::new(Frames(frames.into_iter().collect())))
        };
        let (ours, theirs) = tokio::io::duplex(4096);
        let serve = server::conn::http2::Builder::new(Local)
            .serve_connection(TokioIo::new(theirs), service_fn(answer));
        tokio::task::spawn_local(async move { serve.await.ok() });
        check(TokioIo::new(ours), 50051, "shop.Cart").await
    }

    /// A body of what is there already.
    struct Frames(VecDeque<Frame<Bytes>>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    #[tokio::test]
    async fn a_server_says_how_it_is() {
        tokio::task::LocalSet::new()
            .run_until(async {
                assert_eq!(told(&[0, 0, 0, 0, 2, 8, 1], "0").await, Ok(()));
                let not = told(&[0, 0, 0, 0, 2, 8, 2], "0").await;
                assert_eq!(not, Err("it is NOT_SERVING".to_string()));
                let unknown = told(&[], "5").await.unwrap_err();
                assert!(unknown.contains("no such service"), "{unknown}");
                assert!(told(&[], "0").await.is_err());
            })
            .await;
    }
}
