//! An answer on its way out: whole if it is short, as it comes if not.

use std::rc::Rc;
use std::time::{Duration, Instant};

use minisup_core::input::Evidence;
use minisup_core::instance::Route;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::Sleep;

use super::attempt::{Lack, Server};
use super::framing::Framing;
use super::head::{self, Answered, Asked};
use super::request::Request;
use super::{AT_HAND, Client, Duplex, HEAD, Next, before, set};
use crate::plane::Port;
use crate::plane::backend::{Backend, InFlight};
use crate::plane::buffer::{self, Buffer};
use crate::plane::silence::{self, Silence};
use crate::plane::turn;

/// What an answer has left behind.
pub(super) struct Passed {
    pub(super) status: u16,
    pub(super) bytes: u64,
    /// The instance's connection can be used again.
    pub(super) server_stays: bool,
    /// The client's connection can be used again.
    pub(super) client_stays: bool,
}

/// Everything that waiting for an answer needs to know.
pub(super) struct Waiter<'a> {
    pub(super) port: &'a Port,
    pub(super) backend: &'a Rc<Backend>,
    pub(super) asked: &'a Asked,
    pub(super) begun: Instant,
    /// Whether a silent instance may be left for another.
    pub(super) may_leave: bool,
}

impl<S: Duplex> Client<'_, S> {
    /// Waits for the answer to a request that has been sent and passes it on.
    pub(super) async fn answer(
        &mut self,
        mut server: Server,
        in_flight: InFlight,
        request: &mut Request,
        cut: bool,
    ) -> Result<Next, Lack> {
        let waiter = Waiter {
            port: self.port,
            backend: &in_flight.0,
            asked: &request.asked,
            begun: Instant::now(),
            may_leave: request.left < turn::MOST_LEFT
                && request.is_repeatable(self.port.service.rules().retry_unsafe),
        };
        let (reader, input) = (&mut server.stream, &mut server.input);
        let passed = waiter.pass(reader, input, &mut self.stream, self.alarm.as_mut()).await?;
        Ok(self.after(passed, server, in_flight, request, cut))
    }

    /// What follows an answer that has been passed on.
    pub(super) fn after(
        &mut self,
        passed: Passed,
        server: Server,
        in_flight: InFlight,
        request: &mut Request,
        cut: bool,
    ) -> Next {
        if let (Some(log), Some(line)) = (self.port.service.log(), request.line.take()) {
            let took = request.begun.elapsed();
            log.write(line, passed.status, passed.bytes, took, Some(&in_flight.0.id));
        }
        if passed.status == 101 {
            return Next::Switch(Box::new((server.stream, server.input, in_flight)));
        }
        let usable = passed.server_stays && !cut && server.input.is_empty();
        if usable && in_flight.0.route.get() == Route::Active {
            in_flight.0.pool.put(self.port.publish.port, server.stream);
        }
        if passed.client_stays && !cut { Next::Request } else { Next::End }
    }
}

impl Waiter<'_> {
    /// Reads the answer and writes it to the client.
    pub(super) async fn pass(
        &self,
        reader: &mut (impl AsyncRead + Unpin),
        input: &mut Buffer,
        client: &mut (impl AsyncWrite + Unpin),
        mut alarm: std::pin::Pin<&mut Sleep>,
    ) -> Result<Passed, Lack> {
        let mut out = buffer::borrow();
        let answered = self.head(reader, input, client, &mut out, alarm.as_mut()).await?;
        let now = Instant::now();
        self.backend.answered(answered.status, now - self.begun, now);
        let mut body = answered.body;
        let head = out.len();
        let plain = self.asked.old && matches!(body, Framing::Chunked(_));
        if matches!(body, Framing::Length(length) if length <= AT_HAND) {
            loop {
                let taken = body.take(input.bytes(), None).map_err(|_| Lack::Lost)?;
                out.extend_from_slice(&input.bytes()[..taken]);
                input.consume(taken);
                if body.is_done() {
                    break;
                }
                self.more(reader, input, alarm.as_mut()).await?;
            }
        }
        let sent = client.write_all(&out).await;
        let mut bytes = (out.len() - head) as u64;
        buffer::give_back(out);
        sent.map_err(|_| Lack::Over)?;
        while !body.is_done() && answered.status != 101 {
            if input.is_empty() {
                match input.fill(reader).await {
                    Ok(1..) => {}
                    Ok(0) if body == Framing::UntilEnd => break,
                    Ok(0) | Err(_) => return Err(Lack::Over),
                }
            }
            bytes += forward(input, &mut body, plain, client).await? as u64;
        }
        Ok(Passed {
            status: answered.status,
            bytes,
            server_stays: answered.keep_alive,
            client_stays: self.asked.client_stays(&answered.body),
        })
    }

    /// Waits for the head of the final answer. Those before it (1xx) are passed on at once.
    async fn head(
        &self,
        reader: &mut (impl AsyncRead + Unpin),
        input: &mut Buffer,
        client: &mut (impl AsyncWrite + Unpin),
        out: &mut Vec<u8>,
        mut alarm: std::pin::Pin<&mut Sleep>,
    ) -> Result<Answered, Lack> {
        loop {
            if !input.is_empty() {
                let answered = head::answer(input.bytes(), self.asked, out);
                match answered.map_err(|_| Lack::Lost)? {
                    Some(answered) if answered.status >= 200 || answered.status == 101 => {
                        input.consume(answered.length);
                        return Ok(answered);
                    }
                    Some(early) => {
                        input.consume(early.length);
                        // The word to go on has been given already, and old clients know none.
                        if early.status != 100 && !self.asked.old {
                            client.write_all(out).await.map_err(|_| Lack::Over)?;
                        }
                        out.clear();
                        continue;
                    }
                    None if input.bytes().len() >= HEAD => return Err(Lack::Lost),
                    None => {}
                }
            }
            self.more(reader, input, alarm.as_mut()).await?;
        }
    }

    /// Waits for more of the answer. A silent instance is doubted after a while; when a probe has
    /// failed as well, a request that may be repeated is sent to another.
    async fn more(
        &self,
        reader: &mut (impl AsyncRead + Unpin),
        input: &mut Buffer,
        mut alarm: std::pin::Pin<&mut Sleep>,
    ) -> Result<(), Lack> {
        let service = &self.port.service;
        let limit = service.rules().response_ms;
        let late = limit.map(|ms| self.begun + Duration::from_millis(ms));
        let mut silence = Silence::begin();
        // Most answers come before anybody has to listen to changes of the routes.
        let mut listens = false;
        loop {
            let changed = service.changed.notified();
            let next = silence.next(self.backend);
            set(alarm.as_mut(), late.map_or(next, |late| late.min(next)));
            let waiting = async {
                tokio::select! {
                    biased;
                    read = input.fill(reader) => Some(read),
                    () = changed, if listens => None,
                }
            };
            match before(alarm.as_mut(), waiting).await.flatten() {
                Some(Ok(1..)) => return Ok(()),
                Some(Ok(0) | Err(_)) => return Err(Lack::Lost),
                None => {}
            }
            if late.is_some_and(|late| Instant::now() >= late) {
                self.backend.doubt(Evidence::Silent);
                return Err(Lack::Late);
            }
            listens = true;
            silence.look(self.backend);
            if self.may_leave && silence::may_leave(service, self.backend) {
                return Err(Lack::Left);
            }
        }
    }
}

/// Writes what has been read of a body. `plain` is without its chunks, for old clients.
pub(super) async fn forward(
    input: &mut Buffer,
    body: &mut Framing,
    plain: bool,
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<usize, Lack> {
    let mut payload = plain.then(buffer::borrow);
    let taken = body.take(input.bytes(), payload.as_mut()).map_err(|_| Lack::Over)?;
    let sent = match &payload {
        Some(payload) => to.write_all(payload).await,
        None => to.write_all(&input.bytes()[..taken]).await,
    };
    input.consume(taken);
    payload.into_iter().for_each(buffer::give_back);
    sent.map_err(|_| Lack::Over)?;
    Ok(taken)
}
