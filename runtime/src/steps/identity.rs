//! # What the kernel offers
//! A UTS namespace has a host name of its own. A new network namespace has one interface, loopback,
//! and it is down. Many parameters below `/proc/sys` belong to a namespace.
//!
//! # What we do
//! Set the names, bring loopback up, write the parameters: through a procfs of our own that no
//! image can have touched, after the plan has checked that each belongs to a namespace of the
//! container.
//!
//! # What goes wrong without it
//! Without loopback, a program cannot even talk to itself. A parameter that is not divided by
//! namespaces would change the host; one that is written through the image's `/proc` might be
//! another file altogether (CVE-2025-52881).
//!
//! # By hand
//! ```sh
//! unshare --net sh -c 'ip link set lo up && ip link show lo' | grep LOWER_UP
//! unshare --net sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward; cat /proc/sys/net/ipv4/ip_forward' | grep -x 1
//! ```
//! See uts_namespaces(7), network_namespaces(7), proc_sys(5).

use std::collections::BTreeMap;

use linux::proc::TrustedProc;
use linux::{Errno, namespace, netdev};

use crate::error::Cause;

/// Sets host and domain name.
pub(crate) fn set_names(host: Option<&str>, domain: Option<&str>) -> linux::Result<()> {
    if let Some(host) = host {
        namespace::set_host_name(host)?;
    }
    if let Some(domain) = domain {
        namespace::set_domain_name(domain)?;
    }
    Ok(())
}

/// Brings the loopback interface up.
pub(crate) fn bring_loopback_up() -> linux::Result<()> {
    netdev::bring_loopback_up()
}

/// Writes kernel parameters.
pub(crate) fn set_parameters(
    proc: &TrustedProc,
    parameters: &BTreeMap<String, String>,
) -> Result<(), Cause> {
    parameters.iter().try_for_each(|(name, value)| {
        proc.write(&format!("sys/{name}"), value).map_err(|error| match error.errno {
            Errno::ENOENT => Cause::from(error)
                .remedy(format!("this kernel has no parameter {name}: look below /proc/sys")),
            _ => Cause::from(error).remedy(format!("{value:?} may be no value for {name}")),
        })
    })
}
