//! A data plane's term: it ends when another takes over, and whoever is inside may finish.
//!
//! ```text
//!   "retire" ─▶ published sockets are let go ─▶ the lock too: the successor begins
//!            ─▶ until it is at work, and OVERLAP longer, names and services' own addresses
//!               are offered here as well
//!            ─▶ requests under way are answered, each client's connection ends with an answer
//!            ─▶ the last client has gone, or LONGEST has passed, or the project: the end
//! ```
//! Nobody is refused meanwhile: the published sockets are the keeper's as well, and who connects
//! before the successor listens waits in their queues.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::brain::Stage;
use crate::layout::{Layout, Place};

/// How long names and services' own addresses are offered beside the successor when its brain is at
/// work: it opens them with that brain's first words.
const OVERLAP: Duration = Duration::from_secs(3);
/// How long there may be none.
const VACANCY: Duration = Duration::from_secs(60);
/// How long the connections of clients may go on: those of HTTP end with the next answer, others
/// (databases, WebSocket) as their clients like.
const LONGEST: Duration = Duration::from_secs(600);
/// The time between two looks whether anybody is left.
const LOOK: Duration = Duration::from_millis(100);

/// Waits until names and services' own addresses can be left to the successor. Its socket for the
/// brain is another than `socket`, which was ours.
pub(super) async fn successor(layout: &Layout, socket: Option<Place>) {
    let since = Instant::now();
    let is_at_work = || layout.plane_place() != socket && Stage::is_at_work_in(&layout.brain());
    while !is_at_work() && since.elapsed() < VACANCY {
        tokio::time::sleep(LOOK).await;
    }
    tokio::time::sleep(OVERLAP).await;
}

/// The term, shared by all connections.
#[derive(Debug, Default)]
pub(crate) struct Term {
    over: Cell<bool>,
    closed: Cell<bool>,
    ended: Notify,
    inside: Cell<usize>,
}

impl Term {
    /// No connection is to be kept for another request.
    pub(crate) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Waits until that is so.
    pub(super) async fn over(&self) {
        while !self.is_over() {
            self.ended.notified().await;
        }
    }

    pub(super) fn end(&self) {
        self.over.set(true);
        self.ended.notify_waiters();
    }

    /// Nothing comes any more through the sockets that are shared with the successor, and none of
    /// them may stay open: what the kernel put into its queue would be lost.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    pub(super) fn close(&self) {
        self.closed.set(true);
    }

    /// A client comes; it is inside until what this gives is dropped.
    pub(super) fn enter(self: &Rc<Term>) -> Inside {
        self.inside.set(self.inside.get() + 1);
        Inside(self.clone())
    }

    /// Waits until nobody is inside, or nobody should be.
    pub(super) async fn everybody_left(&self) {
        let since = Instant::now();
        while self.inside.get() > 0 && since.elapsed() < LONGEST {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Inside(Rc<Term>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.inside.set(self.0.inside.get() - 1);
    }
}
