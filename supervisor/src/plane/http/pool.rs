//! Idle connections to an instance.

use std::cell::RefCell;
use std::task::{Context, Waker};

use tokio::net::TcpStream;

/// Connections kept per instance.
const KEPT: usize = 256;

/// Idle connections, the latest used last.
#[derive(Debug, Default)]
pub(crate) struct Pool(RefCell<Vec<(u16, TcpStream)>>);

impl Pool {
    /// The latest used connection to that port. One that has something to say on its own account
    /// is closed or confused, and dropped.
    pub(crate) fn take(&self, port: u16) -> Option<TcpStream> {
        let mut idle = self.0.borrow_mut();
        while let Some(place) = idle.iter().rposition(|(to, _)| *to == port) {
            let (_, stream) = idle.swap_remove(place);
            let mut context = Context::from_waker(Waker::noop());
            if stream.poll_read_ready(&mut context).is_pending() {
                return Some(stream);
            }
        }
        None
    }

    /// Keeps a connection whose answer has been read.
    pub(crate) fn put(&self, port: u16, stream: TcpStream) {
        let mut idle = self.0.borrow_mut();
        if idle.len() < KEPT {
            idle.push((port, stream));
        }
    }

    /// Closes all idle connections.
    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}
