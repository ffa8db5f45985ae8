//! Network namespaces made ahead, for callers that start containers again and again.
//!
//! Making a network namespace costs half a millisecond and, under load, much more; entering one
//! that exists costs microseconds. A pooled namespace is nothing but a descriptor of the caller's:
//! when the caller dies, the kernel removes it, so nothing can be left behind. A container gets it
//! as `--net ns:/proc/PID/fd/N`, and can be attached to its networks before it is started.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use linux::namespace::{Kind, Namespaces, current, enter, unshare};
use linux::netdev::bring_loopback_up;

use crate::error::{During, Result};

/// Network namespaces in which nothing but loopback is, up.
#[derive(Debug, Default)]
pub struct Pool {
    ready: VecDeque<OwnedFd>,
    size: usize,
}

impl Pool {
    /// An empty pool that [`refill`](Self::refill) fills to `size`.
    pub fn new(size: usize) -> Self {
        Self { ready: VecDeque::new(), size }
    }

    /// How many are ready.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// One of them, or a new one when none is ready.
    pub fn take(&mut self) -> Result<OwnedFd> {
        match self.ready.pop_front() {
            Some(namespace) => Ok(namespace),
            None => make(),
        }
    }

    /// Makes one if the pool is not full; `false` when it is. A caller does that when it has
    /// nothing else to do.
    pub fn refill(&mut self) -> Result<bool> {
        if self.ready.len() >= self.size {
            return Ok(false);
        }
        self.ready.push_back(make()?);
        Ok(true)
    }
}

/// A network namespace without a process in it. Only this thread goes there, and comes back.
pub fn make() -> Result<OwnedFd> {
    let step = || "making a network namespace".to_owned();
    let home = current(Kind::Network).during(step)?;
    unshare(Namespaces::from_iter([Kind::Network])).during(step)?;
    let made = bring_loopback_up().and_then(|()| current(Kind::Network));
    enter(home.as_fd(), Kind::Network).during(step)?;
    made.during(step)
}
