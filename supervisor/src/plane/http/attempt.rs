//! One request and its instances: the first that answers, as often as is safe.

use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::request::Request;
use super::{Client, Duplex, Next};
use crate::plane::backend::{Backend, InFlight};
use crate::plane::buffer::Buffer;
use crate::plane::turn::{self, NoTurn, Tried};
use crate::plane::{Port, reach};

/// Why there is no answer from an instance. Nothing has reached the client yet.
pub(super) enum Lack {
    /// Nothing was sent.
    Unsent,
    /// It was sent, and its answer will never come.
    Lost,
    /// The same, on a connection that had been idle: the instance may just have closed it.
    Stale,
    /// It is silent and in doubt, and another may answer sooner.
    Left,
    /// The answer took longer than is allowed.
    Late,
    /// The client is gone, or has got a part of an answer that will never be whole.
    Over,
}

/// A connection to an instance.
pub(super) struct Server {
    pub(super) stream: TcpStream,
    pub(super) input: Buffer,
    /// It has carried a request before.
    pooled: bool,
}

impl<S: Duplex> Client<'_, S> {
    /// Has the request answered.
    pub(super) async fn exchange(&mut self, mut request: Request) -> Next {
        let rules = self.port.service.rules();
        let deadline = request.begun + Duration::from_millis(rules.queue_ms);
        let mut tried = Tried::default();
        let service = &self.port.service;
        loop {
            let now = if tried.is_empty() { request.begun } else { Instant::now() };
            let (backend, in_flight) = match turn::next(service, &mut tried, now, deadline).await {
                Ok(given) => given,
                Err(NoTurn::Full) => {
                    return self
                        .fail(&mut request, "503 Service Unavailable", "too many wait\n")
                        .await;
                }
                Err(NoTurn::TooLate) => {
                    let text = "no replica became ready in time\n";
                    return self.fail(&mut request, "503 Service Unavailable", text).await;
                }
            };
            let lack = match self.attempt(&backend, in_flight, &mut request).await {
                Ok(next) => return next,
                Err(lack) => lack,
            };
            match lack {
                Lack::Over => return Next::End,
                Lack::Unsent => {
                    backend.refused(Instant::now());
                    tried.passed(&backend.id);
                }
                Lack::Lost | Lack::Stale => {
                    request.losses += 1;
                    let now = Instant::now();
                    match lack {
                        Lack::Stale => tried.passed(&backend.id),
                        _ => tried.lost(&backend.id, now),
                    }
                    backend.lost(matches!(lack, Lack::Stale), now);
                    // Its other connections are most likely dead, too.
                    backend.pool.clear();
                    let may = request.losses <= rules.retries
                        && request.is_repeatable(rules.retry_unsafe);
                    let in_flight = service.in_flight();
                    if !may || !service.budget.retry(now, rules.retry_budget_permille, in_flight) {
                        let text = "the replica died while answering\n";
                        return self.fail(&mut request, "502 Bad Gateway", text).await;
                    }
                }
                Lack::Left => {
                    request.left += 1;
                    tried.passed(&backend.id);
                }
                Lack::Late => {
                    let text = "the replica did not answer in time\n";
                    return self.fail(&mut request, "504 Gateway Timeout", text).await;
                }
            }
            if Instant::now() >= deadline {
                let text = "no replica became ready in time\n";
                return self.fail(&mut request, "503 Service Unavailable", text).await;
            }
        }
    }

    /// Tells the client that there will be no answer. What is left of a body that nobody wants
    /// would be taken for the next request, so the connection ends with it.
    async fn fail(
        &mut self,
        request: &mut Request,
        status: &'static str,
        text: &'static str,
    ) -> Next {
        let stays = request.asked.keep_alive && request.is_whole();
        if let (Some(log), Some(line)) = (self.port.service.log(), request.line.take()) {
            let code = status.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0);
            log.write(line, code, text.len() as u64, request.begun.elapsed(), None);
        }
        if !stays {
            self.refuse(super::head::Refusal(status, text)).await;
            return Next::End;
        }
        match self.say(status, text, false).await {
            Ok(()) => Next::Request,
            Err(_) => Next::End,
        }
    }

    /// Sends the request to one instance and passes its answer on.
    async fn attempt(
        &mut self,
        backend: &Rc<Backend>,
        in_flight: InFlight,
        request: &mut Request,
    ) -> Result<Next, Lack> {
        loop {
            let mut server = connect(self.port, backend, self.address, request).await?;
            let pooled = server.pooled;
            let stale = |lack| match lack {
                Lack::Lost if pooled => Lack::Stale,
                lack => lack,
            };
            // A connection that was closed while it was idle refuses the first byte: nothing was
            // sent then, and the next one is tried, at last a new one.
            match server.stream.write(&request.bytes).await {
                Ok(sent) => {
                    let rest = &request.bytes[sent..];
                    if !rest.is_empty() && server.stream.write_all(rest).await.is_err() {
                        // It may have answered before it stopped to read.
                        return self.answer(server, in_flight, request, true).await.map_err(stale);
                    }
                }
                Err(_) if pooled => continue,
                Err(_) => return Err(Lack::Unsent),
            }
            if request.is_whole() {
                return self.answer(server, in_flight, request, false).await.map_err(stale);
            }
            return self.stream_both_ways(server, in_flight, request).await.map_err(stale);
        }
    }
}

/// A connection to the instance: an idle one, or a new one.
async fn connect(
    port: &Port,
    backend: &Rc<Backend>,
    client: std::net::SocketAddr,
    request: &Request,
) -> Result<Server, Lack> {
    let rules = port.service.rules();
    // Who cannot be repeated, or was lost before (all replicas may have died together), is worth a
    // look whether the connection is still there.
    let careful = request.losses > 0 || !request.is_repeatable(rules.retry_unsafe);
    // With the PROXY protocol a connection belongs to its client.
    while rules.send_proxy.is_none()
        && let Some(stream) = backend.pool.take(port.publish.port, careful)
    {
        if careful && !is_quiet(&stream) {
            continue;
        }
        return Ok(Server { stream, input: Buffer::default(), pooled: true });
    }
    let limit = Duration::from_millis(rules.connect_ms);
    let connected = reach::connect(backend.namespace.as_fd(), port, client, limit).await;
    let stream = connected.map_err(|_| Lack::Unsent)?;
    Ok(Server { stream, input: Buffer::default(), pooled: false })
}

/// Whether the kernel has nothing to read, not even an end.
fn is_quiet(stream: &TcpStream) -> bool {
    let kind = stream.try_read(&mut [0]).map_err(|error| error.kind());
    kind == Err(std::io::ErrorKind::WouldBlock)
}
