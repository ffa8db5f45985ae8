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

use std::os::fd::AsFd;
use std::path::Path;

use linux::namespace::{self, Kind};
use network::attach::{Attachment, attach, detach, release_if_gone};
use network::mode::Mode;
use network::process::Process;
use network::publish::{self, Publication};
use network::rootless::{self, Program};
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
    /// Which ports lead into it, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) published: Vec<String>,
}

/// Connects the container whose first process is `pid`. On failure nothing is left.
pub(crate) fn connect(
    wanted: &Wanted,
    id: &str,
    pid: i32,
    pidfd: impl AsFd,
    home: &Path,
) -> network::Result<Connected> {
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
        Mode::Rootless(Program::Pasta) => {
            let number = u32::try_from(pid).unwrap_or(0);
            let file = home.join("pasta.pid");
            let program = rootless::start_pasta(number, &wanted.publications, &file)?;
            Ok(Connected { program: Some(program), ..Connected::default() })
        }
        Mode::Rootless(Program::Slirp4netns) => {
            let child = rootless::start_slirp4netns(u32::try_from(pid).unwrap_or(0))?;
            Ok(Connected { program: Process::of(child.id()), ..Connected::default() })
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
    netns: &std::os::fd::OwnedFd,
    pidfd: impl AsFd,
) -> network::Result<()> {
    if let Some(rates) = wanted.rates {
        for endpoint in &connected.attachment.endpoints {
            apply(store, netns.as_fd(), &endpoint.lease, Some(rates), None, wanted.guarded)?;
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

/// Takes back what [`connect`] gave to a container that has ended. Never waits for the kernel: what
/// is still there is collected by the next command.
pub(crate) fn disconnect(connected: &Connected) -> network::Result<()> {
    if let Some(program) = connected.program {
        rootless::end(program)?;
    }
    if connected.attachment.endpoints.is_empty() {
        return Ok(());
    }
    release_if_gone(&Store::open_default()?, &connected.attachment)
}
