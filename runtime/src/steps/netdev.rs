//! # What the kernel offers
//! A network interface is in exactly one network namespace, and can be moved to another. It leaves
//! its addresses behind, and arrives switched off.
//!
//! # What we do
//! `linux.netDevices` names interfaces of the host: each is moved into the container's namespace,
//! under its new name if it has one, with the global addresses that it had, and switched on. The
//! parent does it while init builds the rest.
//!
//! # What goes wrong without it
//! A container that is to have a network card to itself gets it from a hook, after the runtime has
//! promised that the container is complete.
//!
//! # By hand
//! ```sh
//! ip link add lesson-dev type veth peer name lesson-peer; ip netns add lesson-dev
//! ip link set lesson-dev netns lesson-dev name inside
//! ip -n lesson-dev link show inside | grep -q inside && echo moved
//! ip netns del lesson-dev
//! ```
//! See ip-link(8), rtnetlink(7), runtime-spec config-linux.md, "Network Devices".

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use linux::namespace::{self, Kind};
use linux::{Errno, Pid};
use network::netlink::{Batch, Connection, LinkChange};

use crate::error::Cause;
use crate::plan::NamespacePlan;

/// Moves each of `devices` (name outside → name inside) into the network namespace of init.
pub(crate) fn move_all(
    devices: &BTreeMap<String, String>,
    plan: &NamespacePlan,
    init: Pid,
) -> Result<(), Cause> {
    // Init may not have entered an existing namespace yet.
    let existing = plan.join.iter().find(|(kind, _)| *kind == Kind::Network);
    let file = match existing {
        Some((_, path)) => path.clone(),
        None => PathBuf::from(format!("/proc/{init}/ns/net")),
    };
    let target = namespace::open(Path::new(&file), Kind::Network)?;
    let mut outside = Connection::open()?;
    let mut inside = Connection::open_in(target.as_fd())?;
    let addresses = outside.addresses()?;
    for (name, new_name) in devices {
        let link = outside.link(name).map_err(|error| absent(name, error))?;
        let mut batch = Batch::new();
        batch.change_link(link.index, LinkChange::Namespace(target.as_fd(), new_name));
        outside.execute(&batch).map_err(|error| refused(name, new_name, error))?;
        let index = inside.link(new_name)?.index;
        let mut batch = Batch::new();
        for one in addresses.iter().filter(|one| one.link == link.index) {
            if is_global(one.address.addr()) {
                batch.add_address(index, one.address);
            }
        }
        batch.change_link(index, LinkChange::Up(true));
        inside.execute(&batch)?;
    }
    Ok(())
}

/// Link-local addresses are made anew.
fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}

fn absent(name: &str, error: linux::Error) -> Cause {
    match error.errno {
        Errno::ENODEV => Cause::from(error)
            .remedy(format!("linux.netDevices: this host has no interface {name}: see `ip link`")),
        _ => error.into(),
    }
}

fn refused(name: &str, new_name: &str, error: linux::Error) -> Cause {
    let remedy = match error.errno {
        Errno::EEXIST => format!("the container's namespace has an interface {new_name} already"),
        Errno::EINVAL => format!("{name} is bound to its namespace: it cannot be moved"),
        Errno::EPERM => "moving an interface needs CAP_NET_ADMIN on the host".to_owned(),
        _ => return error.into(),
    };
    Cause::from(error).remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_global_addresses_move() {
        for (text, global) in [
            ("10.0.0.1", true),
            ("169.254.1.1", false),
            ("127.0.0.1", false),
            ("fd00::1", true),
            ("fe80::1", false),
        ] {
            assert_eq!(is_global(text.parse().unwrap()), global, "{text}");
        }
    }
}
