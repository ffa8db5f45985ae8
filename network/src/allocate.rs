//! Which address is next: pure functions over what is given already.
//!
//! Addresses go round like the hand of a clock, so that one that has just become free rests as
//! long as possible: somebody may still talk to its former owner. The hand stays within the block
//! of one bridge as long as that has room, so that a small network never needs a second bridge.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::definition::{Network, PORTS_PER_BRIDGE, is_host4};

/// The next free IPv4 address after `hand`; `None` when all are given.
pub fn next_ipv4(
    network: &Network,
    given: &BTreeSet<Ipv4Addr>,
    hand: Option<Ipv4Addr>,
) -> Option<Ipv4Addr> {
    let subnet = &network.ipv4;
    let base = subnet.subnet.network().to_bits();
    let range = subnet.range.unwrap_or(subnet.subnet);
    let (first, last) = (range.network().to_bits(), range.broadcast().to_bits());
    let free = |address: &Ipv4Addr| {
        is_host4(subnet.subnet, *address)
            && *address != subnet.gateway
            && !subnet.reserved.contains(address)
            && !given.contains(address)
    };
    let mut block = first;
    loop {
        let block_end = base + ((block - base) / PORTS_PER_BRIDGE + 1) * PORTS_PER_BRIDGE - 1;
        let block_last = block_end.min(last);
        let inside = hand.map(Ipv4Addr::to_bits).filter(|hand| (block..block_last).contains(hand));
        let start = inside.map_or(block, |hand| hand + 1);
        let found = (start..=block_last).chain(block..start).map(Ipv4Addr::from_bits).find(free);
        if found.is_some() || block_last == last {
            return found;
        }
        block = block_last + 1;
    }
}

/// A free IPv6 address for the owner of `ipv4`: the one with the same place in its subnet, or the
/// next one after it that is free.
pub fn next_ipv6(
    network: &Network,
    given: &BTreeSet<Ipv6Addr>,
    ipv4: Ipv4Addr,
) -> Option<Ipv6Addr> {
    let subnet = network.ipv6.as_ref()?;
    let range = subnet.range.unwrap_or(subnet.subnet);
    let (first, last) = (range.network().to_bits(), range.broadcast().to_bits());
    let place = u128::from(ipv4.to_bits() - network.ipv4.subnet.network().to_bits());
    let start = first.checked_add(place).filter(|start| *start <= last).unwrap_or(first);
    // More candidates than there are addresses given or reserved: one of them must be free.
    let enough = given.len() + subnet.reserved.len() + 3;
    (start..=last).chain(first..start).take(enough).map(Ipv6Addr::from_bits).find(|address| {
        *address != subnet.subnet.network()
            && *address != subnet.gateway
            && !subnet.reserved.contains(address)
            && !given.contains(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Wish;

    fn network(subnet: &str, range: Option<&str>, reserved: &[&str]) -> Network {
        let wish = Wish {
            name: "t".into(),
            ranges: range.iter().map(|text| text.parse().unwrap()).collect(),
            reserved: reserved.iter().map(|text| text.parse().unwrap()).collect(),
            ..Wish::default()
        };
        wish.settle(0, subnet.parse().unwrap(), Some("fd00::/64".parse().unwrap())).unwrap()
    }

    fn all(network: &Network) -> Vec<String> {
        let (mut given, mut hand, mut order) = (BTreeSet::new(), None, Vec::new());
        while let Some(address) = next_ipv4(network, &given, hand) {
            assert!(given.insert(address), "{address} twice");
            hand = Some(address);
            order.push(address.to_string());
        }
        order
    }

    #[test]
    fn every_address_is_given_once_and_special_ones_never() {
        let order = all(&network("10.9.0.0/29", None, &["10.9.0.4"]));
        assert_eq!(order, ["10.9.0.2", "10.9.0.3", "10.9.0.5", "10.9.0.6"]);
        let order = all(&network("10.9.0.0/24", Some("10.9.0.252/30"), &[]));
        assert_eq!(order, ["10.9.0.252", "10.9.0.253", "10.9.0.254"]);
        assert_eq!(all(&network("10.9.0.0/20", None, &[])).len(), 4096 - 3);
    }

    #[test]
    fn a_freed_address_rests_until_the_hand_comes_round() {
        let network = network("10.9.0.0/29", None, &[]);
        let mut given: BTreeSet<Ipv4Addr> = BTreeSet::new();
        let mut hand = None;
        let mut order = Vec::new();
        for _ in 0..6 {
            let address = next_ipv4(&network, &given, hand).unwrap();
            order.push(address.octets()[3]);
            hand = Some(address);
            given = BTreeSet::from([address]);
        }
        assert_eq!(order, [2, 3, 4, 5, 6, 2]);
    }

    #[test]
    fn a_second_bridge_is_used_only_when_the_first_is_full() {
        let network = network("10.9.0.0/20", None, &[]);
        let block_last = Ipv4Addr::from_bits(Ipv4Addr::new(10, 9, 0, 0).to_bits() + 949);
        let next = next_ipv4(&network, &BTreeSet::new(), Some(block_last)).unwrap();
        assert_eq!(network.shard_of(next), 0);
        let full: BTreeSet<_> =
            network.ipv4.subnet.hosts().filter(|host| network.shard_of(*host) == 0).collect();
        let next = next_ipv4(&network, &full, Some(block_last)).unwrap();
        assert_eq!(network.shard_of(next), 1);
    }

    #[test]
    fn ipv6_follows_ipv4_and_steps_aside_for_static_addresses() {
        let network = network("10.9.0.0/20", None, &[]);
        let owner = Ipv4Addr::new(10, 9, 1, 2);
        let first = next_ipv6(&network, &BTreeSet::new(), owner).unwrap();
        assert_eq!(first.to_string(), "fd00::102");
        let second = next_ipv6(&network, &BTreeSet::from([first]), owner).unwrap();
        assert_eq!(second.to_string(), "fd00::103");
    }
}
