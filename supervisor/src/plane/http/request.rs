//! A request on its way in: its head, and as much of its body as is kept at hand.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use super::framing::Framing;
use super::head::{self, Asked, Refusal};
use super::{AT_HAND, Client, Duplex, HEAD, before, set};
use crate::plane::access_log::Line;
use crate::plane::buffer;

const BROKEN: Refusal = Refusal("400 Bad Request", "the request body broke off\n");

/// A request, ready to be sent, more than once if it may be.
pub(super) struct Request {
    /// The head as an instance gets it, and behind it the body if it is at hand.
    pub(super) bytes: Vec<u8>,
    pub(super) asked: Asked,
    /// What is still to be read of the body.
    pub(super) body: Framing,
    pub(super) begun: Instant,
    /// How often an answer has been lost.
    pub(super) losses: u32,
    /// How often a silent instance was left for another.
    pub(super) left: u32,
    /// What the access log will say, if there is one.
    pub(super) line: Option<Line>,
}

impl Request {
    /// Whether everything that has to be sent is at hand.
    pub(super) fn is_whole(&self) -> bool {
        self.body.is_done()
    }

    /// Whether it may be sent again after its answer was lost.
    pub(super) fn is_repeatable(&self, unsafe_too: bool) -> bool {
        self.is_whole() && (self.asked.idempotent || self.asked.has_key || unsafe_too)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        buffer::give_back(std::mem::take(&mut self.bytes));
    }
}

impl<S: Duplex> Client<'_, S> {
    /// Reads the next request; `None` when there is none any more.
    pub(super) async fn request(&mut self) -> Result<Option<Request>, Refusal> {
        let idle = Duration::from_millis(self.port.service.rules().idle_ms);
        let mut idle_since: Option<Instant> = None;
        let (bytes, mut asked) = loop {
            if !self.input.is_empty() {
                let mut bytes = buffer::borrow();
                match head::request(self.input.bytes(), &self.origin, &mut bytes)? {
                    Some(asked) => break (bytes, asked),
                    None => buffer::give_back(bytes),
                }
                if self.input.bytes().len() >= HEAD {
                    let status = "431 Request Header Fields Too Large";
                    return Err(Refusal(status, "the head is longer than 32 KiB\n"));
                }
            }
            // The alarm still stands somewhere ahead; it is moved only when it rings.
            match before(self.alarm.as_mut(), self.input.fill(&mut self.stream)).await {
                Some(Ok(1..)) => {}
                Some(Ok(0) | Err(_)) => return Ok(None),
                None => {
                    let now = Instant::now();
                    let since = *idle_since.get_or_insert(now);
                    if now >= since + idle {
                        return Ok(None);
                    }
                    set(self.alarm.as_mut(), since + idle);
                }
            }
        };
        // The next one is the successor's.
        asked.keep_alive &= !self.port.term.is_over();
        let begun = Instant::now();
        self.port.service.budget.request(begun);
        let line = self.port.service.log().map(|_| Line::of(self.address, self.input.bytes()));
        self.input.consume(asked.length);
        let body = asked.body;
        let mut request = Request { bytes, asked, body, begun, losses: 0, left: 0, line };
        self.read_body(&mut request).await?;
        Ok(Some(request))
    }

    /// Reads the body if it is short.
    async fn read_body(&mut self, request: &mut Request) -> Result<(), Refusal> {
        let Request { body, asked, bytes, .. } = request;
        if body.is_done() {
            return Ok(());
        }
        if asked.expects_continue && self.input.is_empty() {
            let go = self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
            go.map_err(|_| BROKEN)?;
        }
        match *body {
            Framing::Length(length) if length <= AT_HAND => {}
            // Chunks that are all there already are as good as a length.
            Framing::Chunked(_) => {
                let mut scanned = *body;
                let taken = scanned.take(self.input.bytes(), None).map_err(|_| BROKEN)?;
                if scanned.is_done() {
                    bytes.extend_from_slice(&self.input.bytes()[..taken]);
                    self.input.consume(taken);
                    *body = scanned;
                }
                return Ok(());
            }
            _ => return Ok(()),
        }
        loop {
            let taken = body.take(self.input.bytes(), None).map_err(|_| BROKEN)?;
            bytes.extend_from_slice(&self.input.bytes()[..taken]);
            self.input.consume(taken);
            if body.is_done() {
                return Ok(());
            }
            let idle = Duration::from_millis(self.port.service.rules().idle_ms);
            set(self.alarm.as_mut(), Instant::now() + idle);
            match before(self.alarm.as_mut(), self.input.fill(&mut self.stream)).await {
                Some(Ok(1..)) => {}
                _ => return Err(BROKEN),
            }
        }
    }
}
