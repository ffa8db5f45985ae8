//! Which address belongs to whom. Pure.
//!
//! `10.77.0.0/16`: the first 64 blocks of 256 are for services, the rest for instances. A service's
//! address follows from its name, so that it stays when other services come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// The bridge's own address, where DNS is asked.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The length of the network's prefix.
pub(crate) const PREFIX: u8 = 16;

const NETWORK: u32 = 0x0a4d_0000;
/// The places of services, from the second address on.
const SERVICES: std::ops::Range<u32> = 2..0x4000;
/// The places of instances; the last is the broadcast address.
const INSTANCES: std::ops::Range<u32> = 0x4000..0xffff;

/// FNV-1a: the same on every machine and in every version.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The first free place from the text's own on; `None` when all are taken.
fn place(text: &str, range: &std::ops::Range<u32>, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let (size, first) = (range.end - range.start, hash(text));
    let places = (0..size).map(|step| range.start + (first % size + step) % size);
    places.map(|place| Ipv4Addr::from(NETWORK | place)).find(|address| !taken.contains(address))
}

/// The address of each service.
pub(crate) fn of_services<'a>(
    names: impl IntoIterator<Item = &'a str>,
) -> BTreeMap<&'a str, Ipv4Addr> {
    let sorted: BTreeSet<&str> = names.into_iter().collect();
    let mut taken = BTreeSet::new();
    let mut found = BTreeMap::new();
    for name in sorted {
        if let Some(address) = place(name, &SERVICES, &taken) {
            taken.insert(address);
            found.insert(name, address);
        }
    }
    found
}

/// An address for an instance.
pub(crate) fn of_instance(id: &str, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    place(id, &INSTANCES, taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_keeps_its_address_when_others_come() {
        let few = of_services(["web", "api"]);
        let more = of_services(["db", "web", "cache", "api"]);
        assert_eq!((few["web"], few["api"]), (more["web"], more["api"]));
        let distinct: BTreeSet<_> = more.values().collect();
        assert_eq!(distinct.len(), 4);
        assert!(more.values().all(|a| *a != GATEWAY && a.octets()[2] < 64));
    }

    #[test]
    fn no_two_instances_share_an_address() {
        let mut taken = BTreeSet::new();
        for number in 0..5000 {
            let address = of_instance(&format!("web.{number}.1"), &taken).unwrap();
            assert!(address.octets()[2] >= 64 && address.octets()[..2] == [10, 77]);
            assert!(taken.insert(address));
        }
    }
}
