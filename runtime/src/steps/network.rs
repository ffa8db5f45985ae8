//! # What the kernel offers
//! A veth pair is a cable: what enters one end leaves the other, and each end can be in another
//! network namespace. A bridge is a switch that such cables are plugged into.
//!
//! # What we do
//! Give the waiting container its cables, addresses and default route, open the published ports,
//! and set rates, all of it before its program starts. How: the crate `network`.
//!
//! # What goes wrong without it
//! A new network namespace is an island: nobody reaches the container, and it reaches nobody.
//!
//! # By hand
//! ```sh
//! unshare --net sh -c 'ip link add name outside type veth peer name inside && ip addr add 10.9.0.1/24 dev outside && ip link set outside up && ip link set inside up && ip route' | grep 10.9.0.0/24
//! ```
//! See veth(4), bridge(8), network_namespaces(7).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use linux::clone::Child;
use linux::namespace::{self, Kind};
use network::attach::{Attachment, attach, detach, release_if_gone};
use network::mode::Mode;
use network::process::Process;
use network::publish::{self, Publication};
use network::rootless::{self, Place};
use network::store::Store;
use network::traffic::{Rates, apply};
use serde::{Deserialize, Serialize};

/// What was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) mode: Mode,
    pub(crate) publications: Vec<Publication>,
    pub(crate) rates: Option<Rates>,
    /// Whether the container may administer its network.
    pub(crate) guarded: bool,
}

/// What a container was given; kept in its state.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Connected {
    pub(crate) attachment: Attachment,
    /// The program that speaks for a container without root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) program: Option<Process>,
    /// Whether such a program is about to be started: known before it exists.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) awaits_program: bool,
    /// Which ports lead into it, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) published: Vec<String>,
}

/// The namespaces of a container in the making, opened while their files could be opened.
#[derive(Debug)]
pub(crate) struct Namespaces {
    user: OwnedFd,
    network: OwnedFd,
}

impl Namespaces {
    /// Those of a process that has not yet forbidden others to look at it.
    pub(crate) fn of(pid: linux::Pid) -> linux::Result<Self> {
        let open = |kind: Kind| {
            namespace::open(format!("/proc/{pid}/ns/{}", kind.proc_name()).as_ref(), kind)
        };
        Ok(Self { user: open(Kind::User)?, network: open(Kind::Network)? })
    }
}

/// Connects the container whose first process is `child`. On failure nothing is left.
pub(crate) fn connect(
    wanted: &Wanted,
    id: &str,
    child: &Child,
    namespaces: Option<Namespaces>,
    home: &Path,
) -> network::Result<Connected> {
    let (pid, pidfd) = (child.pid.as_raw(), &child.pidfd);
    match &wanted.mode {
        Mode::Networks(requests) => {
            let store = Store::open_default()?;
            let file = format!("/proc/{pid}/ns/net");
            let netns = namespace::open(Path::new(&file), Kind::Network).map_err(|source| {
                let step = format!("opening the network namespace of {id}");
                network::Error::Kernel { step, source }
            })?;
            let mut connected = Connected {
                attachment: attach(&store, netns.as_fd(), id, requests)?,
                ..Connected::default()
            };
            match finish(&store, wanted, &mut connected, &netns, pidfd) {
                Ok(()) => Ok(connected),
                Err(error) => {
                    // The first error is the one to tell; the rest is collected.
                    drop(detach(&store, &connected.attachment));
                    Err(error)
                }
            }
        }
        Mode::Rootless(program) => {
            let place = match namespaces {
                Some(Namespaces { user, network }) => Place::of_descriptors(user, network),
                None => Place::of_process(u32::try_from(pid).unwrap_or(0)),
            };
            let started = rootless::start(*program, place, &wanted.publications, home);
            if started.is_err() {
                // The first error is the one to tell.
                drop(rootless::end_those_of(home));
            }
            Ok(Connected { program: Some(started?), ..Connected::default() })
        }
        Mode::None | Mode::Host | Mode::Container(_) | Mode::Namespace(_) => {
            Ok(Connected::default())
        }
    }
}

fn finish(
    store: &Store,
    wanted: &Wanted,
    connected: &mut Connected,
    netns: &OwnedFd,
    pidfd: impl AsFd,
) -> network::Result<()> {
    if let Some(rates) = wanted.rates {
        for endpoint in &connected.attachment.endpoints {
            let guarded = wanted.guarded;
            apply(store, netns.as_fd(), &endpoint.lease, Some(rates), None, guarded, None)?;
        }
    }
    if wanted.publications.is_empty() {
        return Ok(());
    }
    let warning = publish::allow_transparent(store)?;
    let transparent = warning.is_none();
    connected.attachment.warnings.extend(warning);
    let target = publish::target_addresses(&connected.attachment)?;
    let ports = publish::listen(&wanted.publications, &target, transparent)?;
    let arguments = ["minirun", "network", "forward"];
    publish::start(Path::new("/proc/self/exe"), &arguments, &ports, pidfd.as_fd())?;
    let shown = |one: &publish::Published| {
        format!("{}/{} -> {}", one.at, publish::name(one.target.transport), one.target.port)
    };
    connected.published = ports.iter().map(shown).collect();
    Ok(())
}

/// Takes back what [`connect`] gave to the container in `home`, which has ended. Never waits for
/// the kernel: what is still there is collected by the next command.
pub(crate) fn disconnect(connected: &Connected, home: &Path) -> network::Result<()> {
    match connected.program {
        Some(program) => program.kill()?,
        None if connected.awaits_program => rootless::end_those_of(home)?,
        None => {}
    }
    if connected.attachment.endpoints.is_empty() {
        return Ok(());
    }
    release_if_gone(&Store::open_default()?, &connected.attachment)
}
