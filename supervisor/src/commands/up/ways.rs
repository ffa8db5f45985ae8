//! What `up` and `plan` say of the ways out of networks.

use std::collections::BTreeMap;

use crate::brain::api::StateView;
use crate::brain::networks::Way;
use crate::model::ServiceSpec;

/// The setting of the host without which nothing is forwarded.
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Whether this host forwards; `None` if that cannot be read.
pub(crate) fn forwards() -> Option<bool> {
    std::fs::read_to_string(FORWARD).ok().map(|text| text.trim() == "1")
}

/// Tells on standard error which networks have no way out though they should, what was changed on
/// the host for those that have one, and what may stand in their way.
pub(super) fn tell(view: &StateView) {
    // Whoever asked for none need not be told.
    for network in view.networks.iter().filter(|_| !view.stack.no_way_out) {
        if let Way::Closed(why) = &network.way {
            eprintln!("no way out of the network {}: {why}", network.name);
        }
        for told in &network.told {
            eprintln!("for the way out of the network {}: {told}", network.name);
        }
    }
}

/// What `up` would do to the host for the ways out.
pub(super) fn preview(
    services: &BTreeMap<String, ServiceSpec>,
    no_way_out: bool,
) -> Option<String> {
    let attached = services.values().flat_map(|spec| spec.settings.attached());
    let leaves = attached.into_iter().any(|one| one.leads_out);
    (leaves && !no_way_out && forwards() == Some(false)).then(|| {
        "! net.ipv4.ip_forward of this host is 0 and will be 1: networks that are not `internal` \
         lead out; `--way-out no` leaves it"
            .to_string()
    })
}
