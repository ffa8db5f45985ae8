//! Idle connections to an instance.

use std::cell::RefCell;

use hyper::client::conn::http1::SendRequest;

use super::Payload;

/// A connection that can carry a request.
pub(crate) type Sender = SendRequest<Payload>;

/// Connections kept per instance.
const KEPT: usize = 128;

/// Idle connections, the latest used last.
#[derive(Debug, Default)]
pub(crate) struct Pool(RefCell<Vec<(u16, Sender)>>);

impl Pool {
    /// The latest used connection to that port that is not closed.
    pub(crate) fn take(&self, port: u16) -> Option<Sender> {
        let mut idle = self.0.borrow_mut();
        while let Some(place) = idle.iter().rposition(|(to, _)| *to == port) {
            let (_, sender) = idle.remove(place);
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    /// Keeps a connection whose answer has been read.
    pub(crate) fn put(&self, port: u16, sender: Sender) {
        let mut idle = self.0.borrow_mut();
        if !sender.is_closed() && idle.len() < KEPT {
            idle.push((port, sender));
        }
    }

    /// Closes all idle connections.
    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}
