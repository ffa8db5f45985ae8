//! The network of those who do not ask for one: can this host have it?
//!
//! Whoever writes `--net bridge` wants a bridge or an error. Whoever writes nothing wants the
//! container to run, also on a host that cannot do bridges, and must be told that it has no network.
//! So what can be missing is found out before the container is made.

use linux::capability;

use crate::bridge::{Raised, ensure_rules, find, raise};
use crate::collect::connect;
use crate::definition::DEFAULT_NETWORK;
use crate::error::{During, Error, Result};
use crate::host;
use crate::networks::{find_or_create_default, remove};
use crate::store::Store;

/// Raises the default network, if it is not up. After an error nothing of it is there that was not
/// there before; the error says what this host lacks.
pub fn prepare(store: &Store) -> Result<Raised> {
    check_capability()?;
    store.open_lock()?;
    let mut kernel = connect()?;
    let known = match store.network(DEFAULT_NETWORK) {
        Ok(network) if find(&mut kernel, &network, 0)?.is_some() => return Ok(Raised::default()),
        Ok(_) => true,
        Err(Error::NotFound { .. }) => false,
        Err(error) => return Err(error),
    };
    // What fails without a trace is asked first.
    host::check_forwarding()?;
    let network = find_or_create_default(store, DEFAULT_NETWORK)?;
    let raised = ensure_rules(None, store).and_then(|()| {
        let locked = store.lock()?;
        raise(&locked, &mut kernel, &network, 0)
    });
    if raised.is_err() && !known {
        // The first error is the one to tell; `network prune` removes what this leaves.
        let _ = remove(store, DEFAULT_NETWORK);
    }
    raised
}

fn check_capability() -> Result<()> {
    let own = capability::effective().during(|| "reading our capabilities".into())?;
    if own.contains("CAP_NET_ADMIN") {
        return Ok(());
    }
    let (what, needs) = ("a bridge network".into(), "the capability CAP_NET_ADMIN".into());
    Err(Error::Unsupported { what, needs })
}
