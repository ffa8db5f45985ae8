//! What brain and data plane say to each other: one JSON document per message (SEQPACKET keeps
//! them apart), some with a descriptor.
//!
//! ```text
//!   brain                                data plane
//!     ◀───────────────────────── hello { generation, routes, listeners, endpoints }
//!     listener { … } + socket ─────────▶   listens from now on
//!     endpoint { web.1.1 } + netns ────▶   can reach it from now on
//!     routes { 7, … } ─────────────────▶
//!     ◀──────────────────────── acknowledged { 7 }     sends nothing new elsewhere
//!     ◀──────────────────────── idle { web.1.1 }       its last request is answered
//!     ◀──────────────────────── doubted { web.2.1, silent }
//! ```
//!
//! [`Line`](super::line::Line) carries it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use minisup_core::input::{Evidence, Followed};
use minisup_core::name::InstanceId;
use minisup_core::state::Routes;
use serde::{Deserialize, Serialize};

use crate::balance::Balance;
use crate::discovery::Directory;
use crate::door::Door;
use crate::model::Publish;

/// From the brain to the data plane.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Order {
    /// Accept connections on the socket that comes with this.
    Listener {
        /// For which service.
        service: String,
        /// Where it leads.
        publish: Publish,
    },
    /// Stop to accept connections there.
    Close {
        /// Where.
        door: Door,
    },
    /// The network namespace of an instance comes with this.
    Endpoint {
        /// Whose.
        instance: InstanceId,
        /// Where it is in the project's networks, by their keys.
        addresses: BTreeMap<String, Ipv4Addr>,
    },
    /// Follow these routes.
    Routes(Routes),
    /// Give requests to a service's instances by these rules.
    Rules {
        /// Which service.
        service: String,
        /// The rules.
        rules: Box<Balance>,
    },
    /// Let services find each other in a network, which comes with this.
    Directory(Directory),
    /// A network is gone.
    Forget {
        /// Its key.
        network: String,
    },
    /// Tell what has been counted, of the instances behind this one.
    Count {
        /// The last one that is known already.
        after: Option<InstanceId>,
    },
    /// Let another data plane take what comes from now on, finish what is under way, and end.
    Retire,
    /// Nothing is left to carry: end.
    Leave,
}

/// From the data plane to the brain.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Report {
    /// The first word to every brain.
    Hello(Hello),
    /// Routes are in force.
    Acknowledged {
        /// Their number.
        generation: u64,
    },
    /// A draining instance has no request left.
    Idle {
        /// Which.
        instance: InstanceId,
    },
    /// What has been counted.
    Traffic {
        /// Of which instances.
        instances: Vec<(InstanceId, Traffic)>,
        /// There are more behind the last.
        more: bool,
    },
    /// Something is wrong with an instance.
    Doubted {
        /// Which.
        instance: InstanceId,
        /// What was seen.
        evidence: Evidence,
    },
}

/// What a data plane does when a brain finds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Its process.
    pub(crate) process: u32,
    /// The routes in force.
    pub(crate) followed: Followed,
    /// Where it takes what comes for the host.
    pub(crate) listeners: Vec<Door>,
    /// The instances it can reach.
    pub(crate) endpoints: Vec<InstanceId>,
}

/// What an instance has done since the data plane knows it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Traffic {
    /// Answers, or connections of what is not HTTP, or clients of what is not even TCP.
    pub(crate) requests: u64,
    /// Answers with status 500 and above.
    pub(crate) errors: u64,
    /// Requests whose answer never came.
    pub(crate) lost: u64,
    /// How often it was put out for its answers.
    pub(crate) ejections: u64,
    /// It is put out now.
    pub(crate) ejected: bool,
    /// Requests under way.
    pub(crate) in_flight: u32,
    /// Datagrams that it was given.
    pub(crate) datagrams_in: u64,
    /// Datagrams that it sent back.
    pub(crate) datagrams_out: u64,
    /// Times to the first byte: [`Histogram`](super::histogram::Histogram)'s buckets and counts.
    pub(crate) latency_us: Vec<(u16, u64)>,
}
