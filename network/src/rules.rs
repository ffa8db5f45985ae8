//! The packet filter of all networks, as a text for nft(8): a pure function of the networks.
//!
//! # What the kernel offers
//! nf_tables: tables of rules that packets pass at fixed points (hooks). Several tables can sit at
//! the same hook; a packet goes on only if every one of them lets it. "accept" ends only the table
//! that says it, "drop" ends the packet.
//!
//! # What we do
//! One table of our own, replaced as a whole in one transaction, so that there is never a moment
//! without rules and nothing of anybody else is touched:
//!
//! * `forward` keeps networks apart, lets containers out, and lets nobody in who was not asked;
//! * `postrouting` gives packets that leave the host's address (masquerade);
//! * `prerouting`, when ports are published: see [`publish`](crate::publish).
//!
//! The rules depend on networks, never on containers: starting one changes nothing here, which
//! keeps 4 ms of nft(8) out of every start.
//!
//! # What goes wrong without it
//! Containers' addresses mean nothing outside of the host, so no answer comes back. And a host
//! that forwards packets forwards them between networks and from outside too.
//!
//! # Side by side with others
//! Because a drop anywhere is final, a firewall with a FORWARD policy of drop (Docker's, ufw's,
//! firewalld's) also drops our packets, and no table of ours can change that. We do not write into
//! other programs' tables; [`firewall`](crate::firewall) finds such chains and names the remedy.

use std::fmt::Write;

use crate::definition::Network;

/// The mark on packets for a transparent socket, see [`crate::publish`]. "mr" in ASCII.
pub const TRANSPARENT_MARK: u32 = 0x6d72;

/// The rules for these networks, in a form that replaces the table whatever was in it.
///
/// `label` is the table's name; `transparent` adds what transparent sockets need.
pub fn text(label: &str, networks: &[Network], transparent: bool) -> String {
    let body = body(networks, transparent);
    let mark = fingerprint(&body);
    // "add" first, so that "delete" finds a table even when there is none.
    format!(
        "add table inet {label}\ndelete table inet {label}\n\
         table inet {label} {{\n\tcomment \"{mark}\"\n{body}}}\n"
    )
}

/// The text by which one sees that the table in the kernel is the one for these networks.
pub fn mark(networks: &[Network], transparent: bool) -> String {
    fingerprint(&body(networks, transparent))
}

fn fingerprint(body: &str) -> String {
    format!("rules of minirun {:016x}", crate::fingerprint::of(body.as_bytes()))
}

fn body(networks: &[Network], transparent: bool) -> String {
    let mut sorted: Vec<&Network> = networks.iter().collect();
    sorted.sort_by_key(|network| network.number);
    let bridges: Vec<String> = sorted.iter().flat_map(|network| bridges(network)).collect();
    let pairs: Vec<String> = bridges.iter().map(|bridge| format!("{bridge} . {bridge}")).collect();
    let internal: Vec<String> =
        sorted.iter().filter(|network| network.internal).flat_map(|n| bridges_of(n)).collect();
    let leaving = || sorted.iter().filter(|network| !network.internal);
    let leaving4: Vec<String> = leaving().map(|n| n.ipv4.subnet.to_string()).collect();
    let leaving6: Vec<String> =
        leaving().filter_map(|n| n.ipv6.as_ref()).map(|six| six.subnet.to_string()).collect();
    let mut text = String::new();
    set(&mut text, "bridges", "type ifname", &bridges);
    set(&mut text, "same", "typeof iifname . oifname", &pairs);
    set(&mut text, "internal", "type ifname", &internal);
    set(&mut text, "leaving4", "type ipv4_addr; flags interval", &leaving4);
    set(&mut text, "leaving6", "type ipv6_addr; flags interval", &leaving6);
    text.push_str(CHAINS);
    if transparent {
        let _ = write!(
            text,
            "\tchain prerouting {{\n\
             \t\ttype filter hook prerouting priority mangle; policy accept;\n\
             \t\tiifname @bridges socket transparent 1 meta mark set {TRANSPARENT_MARK:#x}\n\t}}\n"
        );
    }
    text
}

const CHAINS: &str = "\
\tchain forward {
\t\ttype filter hook forward priority filter; policy accept;
\t\tct state established,related accept
\t\tiifname . oifname @same accept
\t\tiifname @bridges oifname @bridges counter reject with icmpx admin-prohibited
\t\tiifname @internal counter reject with icmpx admin-prohibited
\t\tiifname @bridges accept
\t\toifname @bridges counter drop
\t}
\tchain postrouting {
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\tip saddr @leaving4 oifname != @bridges masquerade
\t\tip6 saddr @leaving6 oifname != @bridges masquerade
\t}
";

fn set(text: &mut String, name: &str, kind: &str, elements: &[String]) {
    let _ = writeln!(text, "\tset {name} {{\n\t\t{kind};");
    if !elements.is_empty() {
        let _ = writeln!(text, "\t\telements = {{ {} }}", elements.join(", "));
    }
    text.push_str("\t}\n");
}

fn bridges(network: &Network) -> impl Iterator<Item = String> {
    (0..network.shards()).map(|shard| format!("\"{}\"", network.bridge_of(shard)))
}

fn bridges_of(network: &Network) -> Vec<String> {
    bridges(network).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Wish;

    fn network(number: u32, internal: bool, six: bool) -> Network {
        let wish = Wish { name: format!("n{number}"), internal, ..Wish::default() };
        let six = six.then(|| format!("fd00:{number}::/64").parse().unwrap());
        wish.settle(number, format!("10.{number}.0.0/24").parse().unwrap(), six).unwrap()
    }

    #[test]
    fn the_order_of_networks_changes_nothing_and_their_content_does() {
        let (one, two) = (network(1, false, false), network(2, true, true));
        let both = [one.clone(), two.clone()];
        assert_eq!(mark(&both, false), mark(&[two, one.clone()], false));
        assert_ne!(mark(&both, false), mark(&[one], false));
        assert_ne!(mark(&both, false), mark(&both, true));
    }

    #[test]
    fn internal_networks_are_kept_in_and_not_masqueraded() {
        let text = text("minirun", &[network(1, false, false), network(2, true, true)], false);
        assert!(text.contains("set internal {\n\t\ttype ifname;\n\t\telements = { \"minirun2\" }"));
        assert!(text.contains("elements = { 10.1.0.0/24 }"));
        assert!(!text.contains("10.2.0.0") && !text.contains("fd00:2"));
        assert!(text.contains("elements = { \"minirun1\" . \"minirun1\", \"minirun2\""));
    }

    #[test]
    fn the_table_is_replaced_in_one_transaction_and_carries_its_mark() {
        let networks = [network(1, false, false)];
        let text = text("minirun", &networks, true);
        assert!(text.starts_with("add table inet minirun\ndelete table inet minirun\ntable inet"));
        assert!(text.contains(&format!("comment \"{}\"", mark(&networks, true))));
        assert!(text.contains("socket transparent 1 meta mark set 0x6d72"));
    }
}
