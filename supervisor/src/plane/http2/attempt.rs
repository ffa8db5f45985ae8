//! One request at one instance.

use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use super::body::Answer;
use super::pool::Sender;
use super::{AT_HAND, BUFFER, Local, Payload, Work, translate};
use crate::model::Protocol;
use crate::plane::Port;
use crate::plane::backend::{Backend, InFlight};
use crate::plane::silence::{self, Silence};

/// Why there is no answer from an instance.
pub(super) enum Lack {
    /// Nothing was sent.
    Unsent,
    /// It was sent, and its answer will never come.
    Lost,
    /// The same, on a connection that had been used before: the instance may just have closed it.
    Stale,
    /// It is silent and in doubt, and another may answer sooner.
    Left,
}

/// A sending that failed.
enum Failed {
    Returned(Box<Request<Payload>>),
    Lost,
    Left,
}

/// Sends the request to one instance and waits for its answer.
pub(super) async fn attempt(
    port: &Port,
    backend: &Rc<Backend>,
    in_flight: InFlight,
    work: &mut Work,
    may_leave: bool,
) -> Result<Response<Answer>, Lack> {
    let begun = Instant::now();
    let (mut sender, pooled) = loop {
        let (mut sender, pooled) = connect(port, backend, !work.repeatable).await?;
        // An idle connection may be closed by the time it is used: hyper says so, and hands the
        // request back unsent; then the next one is tried, at last a new one.
        if sender.ready().await {
            break (sender, pooled);
        }
        if !pooled {
            return Err(Lack::Unsent);
        }
    };
    let body = match (&work.at_hand, work.stream.take()) {
        (Some(bytes), _) => Either::Left(Full::new(bytes.clone())),
        (None, Some(stream)) => Either::Right(stream),
        (None, None) => return Err(Lack::Lost),
    };
    let request = Request::from_parts(work.head.clone(), body);
    let answer = match wait(port, backend, may_leave, sender.send(request)).await {
        Ok(answer) => answer,
        Err(Failed::Lost) if pooled => return Err(Lack::Stale),
        Err(Failed::Lost) => return Err(Lack::Lost),
        Err(Failed::Left) => return Err(Lack::Left),
        Err(Failed::Returned(request)) => {
            if let Either::Right(stream) = request.into_body() {
                work.stream = Some(stream);
            }
            return Err(Lack::Unsent);
        }
    };
    let now = Instant::now();
    backend.answered(answer.status().as_u16(), now - begun, now);
    pass_on(answer, sender, in_flight, port.publish.port).await
}

/// Waits for the first byte, as in [`http`](crate::plane::http).
async fn wait(
    port: &Port,
    backend: &Backend,
    may_leave: bool,
    sending: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Payload>>>>,
) -> Result<Response<Incoming>, Failed> {
    let mut sending = std::pin::pin!(sending);
    let mut silence = Silence::begin();
    loop {
        let changed = port.service.changed.notified();
        tokio::select! {
            biased;
            sent = &mut sending => return sent.map_err(|mut error| {
                error.take_message().map_or(Failed::Lost, |back| Failed::Returned(Box::new(back)))
            }),
            () = changed => {}
            () = tokio::time::sleep_until(silence.next(backend).into()) => {}
        }
        silence.look(backend);
        if may_leave && silence::may_leave(&port.service, backend) {
            return Err(Failed::Left);
        }
    }
}

async fn connect(port: &Port, backend: &Rc<Backend>, fresh: bool) -> Result<(Sender, bool), Lack> {
    let to = port.publish.port;
    if let Some(sender) = backend.pool2.take(to, fresh) {
        return Ok((sender, true));
    }
    let limit = Duration::from_millis(port.service.rules().connect_ms);
    let connected = crate::netns::connect(backend.namespace.as_fd(), to, limit).await;
    let io = TokioIo::new(connected.map_err(|_| Lack::Unsent)?);
    // How a connection ended is told to whoever waits for an answer on it.
    if port.publish.protocol == Protocol::H2c {
        let shaken = http2::Builder::new(Local).handshake(io).await;
        let (sender, connection) = shaken.map_err(|_| Lack::Unsent)?;
        tokio::task::spawn_local(async move { connection.await.ok() });
        backend.pool2.put(to, Sender::Two(sender.clone()));
        return Ok((Sender::Two(sender), false));
    }
    let shaken = http1::Builder::new().max_buf_size(BUFFER).handshake(io).await;
    let (sender, connection) = shaken.map_err(|_| Lack::Unsent)?;
    tokio::task::spawn_local(async move { connection.await.ok() });
    Ok((Sender::One(sender), false))
}

/// Gives the answer to the client: whole if it is short, as it comes if not.
async fn pass_on(
    answer: Response<Incoming>,
    sender: Sender,
    in_flight: InFlight,
    port: u16,
) -> Result<Response<Answer>, Lack> {
    let (mut head, body) = answer.into_parts();
    translate::strip_hop_by_hop(&mut head.headers);
    let short = body.size_hint().upper().is_some_and(|upper| upper <= AT_HAND);
    if !short {
        let answer = Answer::streamed(body, sender, in_flight, port);
        return Ok(Response::from_parts(head, answer));
    }
    let whole = body.collect().await.map_err(|_| Lack::Lost)?.to_bytes();
    in_flight.0.pool2.put(port, sender);
    Ok(Response::from_parts(head, Answer::whole(whole)))
}
