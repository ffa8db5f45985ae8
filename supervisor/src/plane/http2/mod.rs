//! HTTP/2, with prior knowledge or by TLS: its requests are balanced, repeated and parked like
//! those of HTTP/1.1, each by itself.
//!
//! The protocol is hyper's; a connection that does not speak it never comes here. An instance is
//! spoken to in HTTP/1.1, or in HTTP/2 (gRPC) if its port says so; then clients of HTTP/1.1 are
//! translated here, too. What is repeated is decided as in [`http`](super::http), but a body
//! counts as at hand only if its length is known and short.

mod attempt;
mod body;
mod pool;
mod translate;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

use super::Port;
use super::access_log::Line;
use super::ahead::Ahead;
use super::buffer::Buffer;
use super::http::Duplex;
use super::turn::{self, NoTurn, Tried};
use crate::model::Protocol;
use attempt::{Lack, attempt};
use body::Answer;
pub(crate) use pool::Pool;

/// Bodies up to this size are kept at hand.
const AT_HAND: u64 = 64 << 10;
/// What a connection of HTTP/1.1 may buffer.
const BUFFER: usize = 32 << 10;
/// What a stream may have under way; a client's memory is at most this by the streams below.
const WINDOW: u32 = 64 << 10;
/// Streams of a connection at a time.
const STREAMS: u32 = 128;

/// The body of a request on its way to an instance.
type Payload = Either<Full<Bytes>, Incoming>;

/// Serves one client connection, of which `input` has been read already.
pub(crate) async fn serve(
    stream: impl Duplex + 'static,
    input: Buffer,
    client: SocketAddr,
    tls: bool,
    port: Rc<Port>,
) {
    let old = !input.bytes().starts_with(b"PRI ");
    let term = port.term.clone();
    let service = service_fn(move |request| {
        let port = port.clone();
        async move { Ok::<_, Infallible>(answer(&port, client, tls, request).await) }
    });
    let io = TokioIo::new(Ahead::new(stream, input));
    // A client that breaks off has nobody left to be told.
    if old {
        let mut server = hyper::server::conn::http1::Builder::new();
        let served = server.max_buf_size(BUFFER).serve_connection(io, service);
        let mut served = std::pin::pin!(served);
        tokio::select! {
            _ = served.as_mut() => return,
            () = term.over() => served.as_mut().graceful_shutdown(),
        }
        let _ = served.await;
    } else {
        let mut server = hyper::server::conn::http2::Builder::new(Local);
        server.initial_stream_window_size(WINDOW).max_concurrent_streams(STREAMS);
        let mut served = std::pin::pin!(server.serve_connection(io, service));
        tokio::select! {
            _ = served.as_mut() => return,
            () = term.over() => served.as_mut().graceful_shutdown(),
        }
        let _ = served.await;
    }
}

/// Lets hyper's tasks run on this thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// A request, ready to be sent more than once if it may be.
struct Work {
    head: Parts,
    /// The body, when it is at hand.
    at_hand: Option<Bytes>,
    /// The body, when it is not; it can be sent once.
    stream: Option<Incoming>,
    repeatable: bool,
}

async fn answer(
    port: &Port,
    client: SocketAddr,
    tls: bool,
    request: Request<Incoming>,
) -> Response<Answer> {
    let begun = Instant::now();
    let line = port.service.log().map(|log| {
        let text = format!("{} {} {:?}", request.method(), request.uri(), request.version());
        (log, Line::new(client, text))
    });
    port.service.budget.request(begun);
    let (answer, by) = match prepare(port, client, tls, request).await {
        Ok(work) => find(port, work, begun).await,
        Err(refusal) => (refusal, None),
    };
    if let Some((log, line)) = line {
        let length = answer.body().size_hint().exact().unwrap_or(0);
        log.write(line, answer.status().as_u16(), length, begun.elapsed(), by.as_ref());
    }
    answer
}

/// Sends the request to one instance after the other, as often as is safe.
async fn find(
    port: &Port,
    mut work: Work,
    begun: Instant,
) -> (Response<Answer>, Option<minisup_core::name::InstanceId>) {
    let rules = port.service.rules();
    let deadline = begun + Duration::from_millis(rules.queue_ms);
    let (mut tried, mut losses, mut left) = (Tried::default(), 0, 0);
    loop {
        let now = Instant::now();
        if now >= deadline {
            return (
                plain(StatusCode::SERVICE_UNAVAILABLE, "no replica became ready in time\n"),
                None,
            );
        }
        let (backend, in_flight) = match turn::next(&port.service, &mut tried, now, deadline).await
        {
            Ok(given) => given,
            Err(NoTurn::Full) => {
                return (plain(StatusCode::SERVICE_UNAVAILABLE, "too many wait\n"), None);
            }
            Err(NoTurn::TooLate) => {
                let text = "no replica became ready in time\n";
                return (plain(StatusCode::SERVICE_UNAVAILABLE, text), None);
            }
        };
        let may_leave = work.repeatable && left < turn::MOST_LEFT;
        match attempt(port, &backend, in_flight, &mut work, may_leave).await {
            Ok(answer) => return (answer, Some(backend.id.clone())),
            Err(Lack::Unsent) => {
                backend.refused(Instant::now());
                tried.passed(&backend.id);
            }
            Err(Lack::Left) => {
                left += 1;
                tried.passed(&backend.id);
            }
            Err(lack @ (Lack::Lost | Lack::Stale)) => {
                losses += 1;
                let now = Instant::now();
                match lack {
                    Lack::Stale => tried.passed(&backend.id),
                    _ => tried.lost(&backend.id, now),
                }
                backend.lost(matches!(lack, Lack::Stale), now);
                let may = losses <= rules.retries && work.repeatable;
                let in_flight = port.service.in_flight();
                if !may || !port.service.budget.retry(now, rules.retry_budget_permille, in_flight) {
                    let text = "the replica died while answering\n";
                    return (plain(StatusCode::BAD_GATEWAY, text), Some(backend.id.clone()));
                }
            }
        }
        if work.at_hand.is_none() && work.stream.is_none() {
            let text = "the replica died while reading the request\n";
            return (plain(StatusCode::BAD_GATEWAY, text), Some(backend.id.clone()));
        }
    }
}

/// Understands the request: fields of one connection go, the client's address comes, a short body
/// is read.
async fn prepare(
    port: &Port,
    client: SocketAddr,
    tls: bool,
    request: Request<Incoming>,
) -> Result<Work, Response<Answer>> {
    let (mut head, body) = request.into_parts();
    if head.method == hyper::Method::CONNECT {
        return Err(plain(StatusCode::NOT_IMPLEMENTED, "there is no CONNECT here\n"));
    }
    let two = port.publish.protocol == Protocol::H2c;
    let known = translate::request(&mut head, client, tls, two);
    known.map_err(|text| plain(StatusCode::BAD_REQUEST, text))?;
    let idempotent = head.method.is_idempotent()
        || head.headers.contains_key("idempotency-key")
        || port.service.rules().retry_unsafe;
    let short = body.size_hint().upper().is_some_and(|upper| upper <= AT_HAND);
    if !short {
        return Ok(Work { head, at_hand: None, stream: Some(body), repeatable: false });
    }
    match body.collect().await {
        Ok(body) => {
            let at_hand = Some(body.to_bytes());
            Ok(Work { head, at_hand, stream: None, repeatable: idempotent })
        }
        Err(_) => Err(plain(StatusCode::BAD_REQUEST, "the request body broke off\n")),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Answer> {
    let mut answer = Response::new(Answer::whole(Bytes::from_static(text.as_bytes())));
    *answer.status_mut() = status;
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}
