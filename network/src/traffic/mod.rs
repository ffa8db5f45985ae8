//! Traffic control: how fast a container may be, and how bad its network shall be.
//!
//! # What the kernel offers
//! Every interface has a queue (qdisc) for packets that leave it. `tbf` lets them leave at a rate;
//! `netem` delays, loses, doubles and reorders them. Nothing waits where packets arrive.
//!
//! # What we do
//! The cable of a container has two ends, and each end's queue slows the direction that leaves
//! there: the host's end what goes *in*to the container, the container's end what comes *out*. At
//! the container's own end a queue slows the sender itself (the socket waits) instead of throwing
//! packets away, so TCP runs at the full rate. A container that may administer its network
//! (`CAP_NET_ADMIN`) could remove that queue; for such a one the traffic is led through an
//! intermediate device (`ifb`) of the host.
//!
//! What was asked for is recorded beside the lease, so that it can be shown, changed and taken
//! back. Queues die with their interface, so nothing of this outlives the container; a fault can
//! also be tied to a process, and is taken back by the next command when that process is gone.
//!
//! # Without `sch_netem`
//! `netem` is tried first. Where the kernel does not have it, loss alone is done by the packet
//! filter (`numgen random`) and a rate by `tbf`; everything else by a process, the [`relay`], which
//! stands beside the way of the packets so that they flow as usual when it is killed. A fault that
//! a relay makes is over when the relay dies, also by `kill -9`: it is shown as such, and not made
//! again until it is set again, because whoever killed it may have meant just that. Where there is
//! neither `netem` nor what a relay needs, the fault is refused.
//!
//! Handing packets to a process by the packet filter (`nft … queue bypass`) would end by itself
//! with the process as well, but a kernel that was built without netem tends to be without
//! `nft_queue` too.

mod apply;
mod fault;
mod netem;
mod rate;
mod record;
pub mod relay;
mod tbf;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::netlink::Traffic;
use crate::process::Process;

pub use apply::{apply, forget_faults_of_the_dead};
pub(crate) use apply::{ifb_name, refresh_losses};
pub use fault::Faults;
pub use rate::Rate;
pub(crate) use record::keep_only;
pub use record::{Record, records};

/// A container's direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// Towards the container.
    In,
    /// From the container.
    Out,
}

/// How fast a container may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Towards it.
    #[serde(rename = "in", default, skip_serializing_if = "Option::is_none")]
    pub inward: Option<Rate>,
    /// From it.
    #[serde(rename = "out", default, skip_serializing_if = "Option::is_none")]
    pub outward: Option<Rate>,
    /// Bytes that may pass at once after a pause; 10 ms of the rate, at least 32 KiB, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst_bytes: Option<u32>,
}

/// What shall be wrong with a container's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What is wrong towards it.
    #[serde(rename = "in", default)]
    pub inward: Faults,
    /// What is wrong from it.
    #[serde(rename = "out", default)]
    pub outward: Faults,
    /// As long as this process lives; until it is taken back when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Process>,
}

impl Rates {
    /// Reads `in=100mbit,out=50mbit,burst=64k`.
    pub fn parse(text: &str) -> Result<Self> {
        let mut rates = Self::default();
        for (key, value) in rate::pairs("rate", text)? {
            match key {
                "in" => rates.inward = Some(value.parse()?),
                "out" => rates.outward = Some(value.parse()?),
                "burst" => rates.burst_bytes = Some(rate::bytes(value)?),
                _ => return Err(rate::unknown("rate", text, key, "in, out, burst")),
            }
        }
        Ok(rates)
    }
}

/// What went through a container's interface, seen from the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// The network.
    pub network: String,
    /// The interface inside the container.
    pub interface: String,
    /// What went through it.
    pub traffic: Traffic,
    /// Packets that a rate or a fault threw away on their way in.
    pub shaped_drops: u64,
    /// How often packets had to wait for the rate on their way in.
    pub shaped_waits: u64,
}

/// Counters of all interfaces of a container; those whose cable is gone are left out.
pub fn statistics(
    store: &crate::store::Store,
    attachment: &crate::attach::Attachment,
) -> Result<Vec<Statistics>> {
    apply::statistics(store, attachment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_nonsense_is_refused() {
        let rates = Rates::parse("in=100mbit,out=1.5gbit,burst=64k").unwrap();
        assert_eq!(rates.inward.unwrap().bytes_per_second(), 12_500_000);
        assert_eq!(rates.outward.unwrap().bytes_per_second(), 187_500_000);
        assert_eq!(rates.burst_bytes, Some(65_536));
        for text in ["", "in", "in=", "in=1mbit,in=2mbit", "up=1mbit", "in=100", "in=1mbps"] {
            assert!(Rates::parse(text).is_err(), "{text:?}");
        }
    }
}
