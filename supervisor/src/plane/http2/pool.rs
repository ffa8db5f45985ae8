//! Connections to an instance that can carry a request.

use std::cell::RefCell;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::{Request, Response};

use super::Payload;
use crate::plane::http::FRESH;

/// Connections kept per instance.
const KEPT: usize = 128;

/// A connection.
#[derive(Debug)]
pub(super) enum Sender {
    /// Of HTTP/1.1: one request at a time.
    One(http1::SendRequest<Payload>),
    /// Of HTTP/2: shared by all who have a copy.
    Two(http2::SendRequest<Payload>),
}

impl Sender {
    fn is_closed(&self) -> bool {
        match self {
            Sender::One(sender) => sender.is_closed(),
            Sender::Two(sender) => sender.is_closed(),
        }
    }

    /// Whether it takes a request now.
    pub(super) async fn ready(&mut self) -> bool {
        match self {
            Sender::One(sender) => sender.ready().await.is_ok(),
            Sender::Two(sender) => sender.ready().await.is_ok(),
        }
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Payload>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Payload>>> {
        match self {
            Sender::One(sender) => sender.try_send_request(request).await,
            Sender::Two(sender) => sender.try_send_request(request).await,
        }
    }
}

/// Connections, the latest used last.
#[derive(Debug, Default)]
pub(crate) struct Pool(RefCell<Vec<Kept>>);

#[derive(Debug)]
struct Kept {
    port: u16,
    sender: Sender,
    since: Instant,
}

impl Pool {
    /// The latest used connection to that port that is not closed; with `fresh` none that may be
    /// closed just now. (With HTTP/2 whoever closes says what was not read.)
    pub(super) fn take(&self, port: u16, fresh: bool) -> Option<Sender> {
        let mut kept = self.0.borrow_mut();
        while let Some(place) = kept.iter().rposition(|kept| kept.port == port) {
            if let Sender::Two(sender) = &kept[place].sender
                && !sender.is_closed()
            {
                return Some(Sender::Two(sender.clone()));
            }
            let Kept { sender, since, .. } = kept.remove(place);
            if fresh && since.elapsed() > FRESH && !matches!(sender, Sender::Two(_)) {
                return None; // a new one takes its place, so there do not get more
            }
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    /// Keeps a connection whose answer has been read. A shared one is kept once.
    pub(super) fn put(&self, port: u16, sender: Sender) {
        let mut kept = self.0.borrow_mut();
        let shared = matches!(sender, Sender::Two(_)) && kept.iter().any(|kept| kept.port == port);
        if !sender.is_closed() && kept.len() < KEPT && !shared {
            kept.push(Kept { port, sender, since: Instant::now() });
        }
    }

    /// Lets all of them go.
    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}
