//! HTTP/1.1: requests find an instance, survive its death, and wait when there is none.
//!
//! A request may be sent again when that cannot do harm: it was never sent (the connection was
//! refused, or an idle one turned out to be closed), or it is idempotent (RFC 9110, 9.2.2), its
//! body is at hand, and no byte of an answer has reached the client. Answers up to 64 KiB are
//! read whole before they are passed on, so that a death in the middle of one is not seen either.
//! A POST whose answer is lost is not sent again: nobody can know whether it was done.

mod body;
mod pool;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use minisup_core::input::Evidence;
use minisup_core::instance::Route;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::table::{Backend, InFlight};
use super::{Port, QUEUE};
pub(crate) use body::Answer;
pub(crate) use pool::Pool;
use pool::Sender;

/// Bodies up to this size are kept at hand, requests to repeat them, answers to complete them.
const AT_HAND: u64 = 64 << 10;
/// What a connection may buffer in each direction: with many, memory is what they buffer. Fields
/// longer than this are refused with 431.
const BUFFER: usize = 32 << 10;
/// How often an answer may be lost before the client is told.
const LOSSES: u32 = 3;
/// An instance that takes longer for its first byte is doubted; the request goes on waiting.
const SILENCE: Duration = Duration::from_millis(500);

/// The body of a request on its way to an instance.
pub(crate) type Payload = Either<Full<Bytes>, Incoming>;

/// Serves one client connection.
pub(crate) async fn serve(stream: TcpStream, client: SocketAddr, port: Rc<Port>) {
    let service = service_fn(move |request| {
        let port = port.clone();
        async move { Ok::<_, Infallible>(answer(&port, client, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .max_buf_size(BUFFER)
        .pipeline_flush(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    // A client that breaks off has nobody left to be told.
    let _ = connection.await;
}

/// Why there is no answer from an instance.
enum Lack {
    /// Nothing was sent; here is the request back, if it was made at all.
    Unsent,
    /// It was sent, and its answer will never come.
    Lost,
}

/// A request, ready to be sent more than once if it may be.
struct Work {
    head: Parts,
    /// The body, when it is at hand.
    at_hand: Option<Bytes>,
    /// The body, when it is not; it can be sent once.
    stream: Option<Incoming>,
    /// The client's side of an upgrade.
    upgrade: Option<hyper::upgrade::OnUpgrade>,
}

async fn answer(port: &Port, client: SocketAddr, request: Request<Incoming>) -> Response<Answer> {
    let mut work = match prepare(client, request).await {
        Ok(work) => work,
        Err(refusal) => return refusal,
    };
    let deadline = Instant::now() + QUEUE;
    let mut tried = Vec::new();
    let mut losses = 0;
    loop {
        if Instant::now() >= deadline {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "no replica became ready in time\n");
        }
        let changed = port.service.changed.notified();
        let Some(backend) = port.table.pick(&port.service, &tried) else {
            // Parked: the request waits until there is somebody to answer it. Those that failed
            // get another chance, for they may have come back under the same name.
            tried.clear();
            let _ = tokio::time::timeout(Duration::from_millis(25), changed).await;
            continue;
        };
        match attempt(port, &backend, &mut work).await {
            Ok(answer) => return answer,
            Err(Lack::Unsent) => {
                backend.rest();
                backend.doubt(Evidence::Refused);
                tried.push(backend.id.clone());
            }
            Err(Lack::Lost) => {
                losses += 1;
                let repeatable = work.head.method.is_idempotent() && work.at_hand.is_some();
                if !repeatable || losses > LOSSES {
                    return plain(StatusCode::BAD_GATEWAY, "the replica died while answering\n");
                }
                tried.push(backend.id.clone());
            }
        }
        if work.at_hand.is_none() && work.stream.is_none() {
            return plain(StatusCode::BAD_GATEWAY, "the replica died while reading the request\n");
        }
    }
}

/// Understands the request: hop-by-hop fields go, the client's address comes, a short body is
/// read.
async fn prepare(
    client: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Work, Response<Answer>> {
    let upgrade = is_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
    let (mut head, body) = request.into_parts();
    let kept = upgrade.is_some().then(|| head.headers.get(header::UPGRADE).cloned()).flatten();
    strip_hop_by_hop(&mut head.headers);
    if let Some(protocol) = kept {
        head.headers.insert(header::UPGRADE, protocol);
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    forwarded(&mut head, client);
    head.version = Version::HTTP_11;
    let short = body.size_hint().upper().is_some_and(|upper| upper <= AT_HAND);
    if !short {
        return Ok(Work { head, at_hand: None, stream: Some(body), upgrade });
    }
    match body.collect().await {
        Ok(body) => Ok(Work { head, at_hand: Some(body.to_bytes()), stream: None, upgrade }),
        Err(_) => Err(plain(StatusCode::BAD_REQUEST, "the request body broke off\n")),
    }
}

fn forwarded(head: &mut Parts, client: SocketAddr) {
    let name = HeaderName::from_static("x-forwarded-for");
    let mut hops = head.headers.get(&name).map(|v| v.as_bytes().to_vec()).unwrap_or_default();
    if !hops.is_empty() {
        hops.extend_from_slice(b", ");
    }
    hops.extend_from_slice(client.ip().to_string().as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&hops) {
        head.headers.insert(name, value);
    }
    let proto = HeaderName::from_static("x-forwarded-proto");
    head.headers.entry(proto).or_insert(HeaderValue::from_static("http"));
}

/// Sends the request to one instance and waits for its answer.
async fn attempt(
    port: &Port,
    backend: &Rc<Backend>,
    work: &mut Work,
) -> Result<Response<Answer>, Lack> {
    let in_flight = InFlight::at(backend);
    let begun = Instant::now();
    let mut sender = loop {
        let (mut sender, pooled) = connect(backend, port.publish.port).await?;
        // An idle connection may be closed by the time it is used: hyper says so, and hands the
        // request back unsent; then the next one is tried, at last a new one.
        if sender.ready().await.is_ok() {
            break sender;
        }
        if !pooled {
            return Err(Lack::Unsent);
        }
    };
    let request = Request::from_parts(work.head.clone(), payload(work)?);
    let sent = wait_for_answer(port, backend, work, sender.try_send_request(request)).await;
    let answer = match sent {
        Ok(answer) => answer,
        Err(Failed::Lost) => return Err(Lack::Lost),
        Err(Failed::Returned(request)) => {
            if let Either::Right(stream) = request.into_body() {
                work.stream = Some(stream);
            }
            return Err(Lack::Unsent);
        }
    };
    backend.measure(begun.elapsed());
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(switch(answer, work.upgrade.take(), in_flight));
    }
    pass_on(answer, sender, in_flight, port.publish.port).await
}

fn payload(work: &mut Work) -> Result<Payload, Lack> {
    match (&work.at_hand, work.stream.take()) {
        (Some(bytes), _) => Ok(Either::Left(Full::new(bytes.clone()))),
        (None, Some(stream)) => Ok(Either::Right(stream)),
        (None, None) => Err(Lack::Lost),
    }
}

/// A sending that failed.
enum Failed {
    Returned(Box<Request<Payload>>),
    Lost,
}

/// Waits for the first byte. A silent instance is reported after a while; when the brain has
/// turned traffic away from it, a request that may be repeated does not wait any longer.
async fn wait_for_answer(
    port: &Port,
    backend: &Backend,
    work: &Work,
    sending: impl Future<
        Output = Result<Response<Incoming>, hyper::client::conn::TrySendError<Request<Payload>>>,
    >,
) -> Result<Response<Incoming>, Failed> {
    let mut sending = std::pin::pin!(sending);
    let repeatable = work.head.method.is_idempotent() && work.at_hand.is_some();
    loop {
        let changed = port.service.changed.notified();
        tokio::select! {
            biased;
            sent = &mut sending => return sent.map_err(|mut error| {
                error.take_message().map_or(Failed::Lost, |back| Failed::Returned(Box::new(back)))
            }),
            () = changed => {
                let turned_away = matches!(backend.route.get(), Route::Suspect | Route::Absent);
                let other = port.table.pick(&port.service, std::slice::from_ref(&backend.id));
                if repeatable && turned_away && other.is_some() {
                    return Err(Failed::Lost);
                }
            }
            () = tokio::time::sleep(SILENCE) => backend.doubt(Evidence::Silent),
        }
    }
}

async fn connect(backend: &Rc<Backend>, port: u16) -> Result<(Sender, bool), Lack> {
    if let Some(sender) = backend.pool.take(port) {
        return Ok((sender, true));
    }
    let namespace = backend.namespace.as_fd();
    let stream = crate::netns::connect(namespace, port, super::tcp::CONNECT)
        .await
        .map_err(|_| Lack::Unsent)?;
    let shaken = hyper::client::conn::http1::Builder::new()
        .max_buf_size(BUFFER)
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, connection) = shaken.map_err(|_| Lack::Unsent)?;
    tokio::task::spawn_local(async move {
        // How it ended is told to whoever waits for an answer on it.
        let _ = connection.with_upgrades().await;
    });
    Ok((sender, false))
}

/// Gives the answer to the client: whole if it is short, as it comes if not.
async fn pass_on(
    answer: Response<Incoming>,
    sender: Sender,
    in_flight: InFlight,
    port: u16,
) -> Result<Response<Answer>, Lack> {
    let (mut head, body) = answer.into_parts();
    strip_hop_by_hop(&mut head.headers);
    let short = body.size_hint().upper().is_some_and(|upper| upper <= AT_HAND);
    if !short {
        let answer = Answer::streamed(body, sender, in_flight, port);
        return Ok(Response::from_parts(head, answer));
    }
    let whole = body.collect().await.map_err(|_| Lack::Lost)?.to_bytes();
    in_flight.0.pool.put(port, sender);
    Ok(Response::from_parts(head, Answer::whole(whole)))
}

/// Connects the two sides of an upgraded connection (WebSocket) with each other.
fn switch(
    mut answer: Response<Incoming>,
    client: Option<hyper::upgrade::OnUpgrade>,
    in_flight: InFlight,
) -> Response<Answer> {
    let server = hyper::upgrade::on(&mut answer);
    let (head, _) = answer.into_parts();
    if let Some(client) = client {
        tokio::task::spawn_local(async move {
            let _in_flight = in_flight;
            if let (Ok(client), Ok(server)) = (client.await, server.await) {
                let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
                // Either side may end it in any way.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
    Response::from_parts(head, Answer::whole(Bytes::new()))
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
        && headers.get_all(header::CONNECTION).iter().any(|value| {
            value.to_str().is_ok_and(|text| text.to_ascii_lowercase().contains("upgrade"))
        })
}

/// Removes the fields that are about one connection only (RFC 9110, 7.6.1).
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in ["connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"] {
        headers.remove(name);
    }
    headers.remove(header::TRANSFER_ENCODING);
}

fn plain(status: StatusCode, text: &'static str) -> Response<Answer> {
    let mut answer = Response::new(Answer::whole(Bytes::from_static(text.as_bytes())));
    *answer.status_mut() = status;
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_one_connection_do_not_travel() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("accept", "*/*"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }
}
