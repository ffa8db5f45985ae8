//! The last words of `up -d`: what runs, where it answers, and what to type next.

use minisup_core::slot::Slot;

use crate::brain::api::StateView;
use crate::model::{Protocol, Publish};

/// The summary of a project.
pub(super) fn of(project: &str, view: &StateView) -> String {
    let mut text = String::new();
    for (name, spec) in &view.stack.services {
        let key = name.as_str().into();
        let ready = view.state.slots_of(&key).filter(|slot| slot.is_ready()).count();
        let wanted = view.state.replicas(&key);
        let at: Vec<String> = spec.publish.iter().map(address).collect();
        let at = if at.is_empty() { String::new() } else { format!(" at {}", at.join(", ")) };
        let is_old = |slot: &&Slot| slot.is_ready() && !view.state.is_as_wanted(slot);
        let old = match view.state.slots_of(&key).filter(is_old).count() {
            0 => String::new(),
            count => format!(", {count} to be replaced"),
        };
        text.push_str(&format!("{name}: {ready} of {wanted} ready{old}{at}\n"));
    }
    let first = view.stack.services.keys().next().map_or("SERVICE", String::as_str);
    text.push_str(&format!(
        "next: minisup -P {project} ps | logs -f | stats | scale {first}=N | down\n"
    ));
    text
}

/// Where a client on this host finds it.
fn address(publish: &Publish) -> String {
    let host = publish.host;
    let (ip, port) = (host.ip(), host.port());
    let at = match (ip.is_unspecified(), ip.is_ipv6()) {
        (true, _) => format!("localhost:{port}"),
        (false, true) => format!("[{ip}]:{port}"),
        (false, false) => format!("{ip}:{port}"),
    };
    if publish.protocol == Protocol::Udp { format!("{at}/udp") } else { at }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_such_as_a_client_can_use() {
        let at = |host: &str| {
            let host = host.parse().unwrap();
            let (among, ipv6_too, protocol) = (None, false, Protocol::Auto);
            address(&Publish { host, among, ipv6_too, port: 3000, protocol })
        };
        assert_eq!(at("0.0.0.0:8080"), "localhost:8080");
        assert_eq!(at("127.0.0.1:8080"), "127.0.0.1:8080");
        assert_eq!(at("[::1]:8080"), "[::1]:8080");
    }
}
