//! Idle connections to an instance.
//!
//! Applications close them after a while, some after seconds. Who sends a request at that moment
//! cannot know whether it was read. One that may be repeated is; for one that may not, only a
//! connection is good enough that was used a moment ago.

use std::cell::RefCell;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

/// Connections kept per instance.
const KEPT: usize = 256;

/// No application closes a connection that was used so short a time ago, unless it has said so.
pub(crate) const FRESH: Duration = Duration::from_millis(50);

/// Idle connections, the latest used last.
#[derive(Debug, Default)]
pub(crate) struct Pool(RefCell<Vec<Idle>>);

#[derive(Debug)]
struct Idle {
    port: u16,
    stream: TcpStream,
    since: Instant,
}

impl Pool {
    /// The latest used connection to that port; with `fresh` none that may be closed just now. One
    /// that has something to say on its own account is closed or confused, and dropped.
    pub(crate) fn take(&self, port: u16, fresh: bool) -> Option<TcpStream> {
        let mut idle = self.0.borrow_mut();
        while let Some(place) = idle.iter().rposition(|idle| idle.port == port) {
            let Idle { stream, since, .. } = idle.remove(place);
            if fresh && since.elapsed() > FRESH {
                return None; // a new one takes its place, so there do not get more
            }
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
            idle.push(Idle { port, stream, since: Instant::now() });
        }
    }

    /// Closes all idle connections.
    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}
