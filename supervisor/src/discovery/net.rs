//! A network of a project: which addresses it has and what they are for. Pure.
//!
//! Part of the addresses are for services, the rest for instances. Without a range in the file the
//! first quarter is for services: of `10.77.0.0/16`, the default network, the first 64 blocks of
//! 256. A service's address follows from its name, so that it stays when other services come and
//! go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// The key of the network of services that name none.
pub(crate) const DEFAULT: &str = "default";
/// The addresses of the default network.
pub(crate) const SUBNET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 77, 0, 0), 16);
/// Where the subnets of networks are cut from whose file gives none.
pub(crate) const POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 78, 0, 0), 15);
/// How much each of them gets: 4096 addresses, more than a bridge has ports.
const POOL_PREFIX: u8 = 20;
/// Sixteen addresses: in fewer, services and instances have no room beside each other.
pub(crate) const SMALLEST: u8 = 28;
/// Sixteen million.
pub(crate) const LARGEST: u8 = 8;

/// A network. Its containers are replaced when anything of this changes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Net {
    /// Its key in the file.
    pub(crate) name: String,
    /// All its addresses.
    pub(crate) subnet: Ipv4Net,
    /// That of the bridge, where DNS is asked.
    pub(crate) gateway: Ipv4Addr,
    /// Those of instances, where the file says so.
    pub(crate) range: Option<Ipv4Net>,
    /// Nobody's.
    pub(crate) reserved: BTreeSet<Ipv4Addr>,
    /// Nothing leaves it.
    pub(crate) internal: bool,
    /// The largest packet in bytes; the kernel's choice (1500) if not said.
    pub(crate) mtu: Option<u32>,
}

impl Default for Net {
    fn default() -> Net {
        Net::of(DEFAULT, SUBNET)
    }
}

/// FNV-1a: the same on every machine and in every version.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The first free place from the text's own on; `None` when all are taken.
fn place(text: &str, size: u32, is_free: impl Fn(u32) -> bool) -> Option<u32> {
    let first = hash(text);
    (0..size).map(|step| (first % size + step) % size).find(|place| is_free(*place))
}

impl Net {
    /// A network with these addresses, of which the first is the gateway's.
    pub(crate) fn of(name: &str, subnet: Ipv4Net) -> Net {
        Net {
            name: name.to_string(),
            subnet,
            gateway: Ipv4Addr::from_bits(subnet.network().to_bits() + 1),
            range: None,
            reserved: BTreeSet::new(),
            internal: false,
            mtu: None,
        }
    }

    /// What tells it from others, and from itself before a change: both can be there at a time,
    /// while its containers are being replaced.
    pub(crate) fn key(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        format!("{}-{:08x}", self.name, hash(&text))
    }

    /// Where instances are, from the first address to the last.
    fn instances(&self) -> (u32, u32) {
        let whole = (self.subnet.network().to_bits(), self.subnet.broadcast().to_bits());
        let usable = (whole.0 + 2, whole.1 - 1);
        match self.range.filter(|range| *range != self.subnet) {
            Some(range) => {
                let (first, last) = (range.network().to_bits(), range.broadcast().to_bits());
                (first.max(usable.0), last.min(usable.1))
            }
            None => (whole.0 + (whole.1 - whole.0).div_ceil(4), usable.1),
        }
    }

    fn is_given(&self, address: Ipv4Addr) -> bool {
        let ends = [self.subnet.network(), self.subnet.broadcast(), self.gateway];
        !ends.contains(&address) && !self.reserved.contains(&address)
    }

    /// Whether a container may ask for that address.
    pub(crate) fn has(&self, address: Ipv4Addr) -> bool {
        self.subnet.contains(&address) && self.is_given(address)
    }

    /// How many instances have an address at a time.
    pub(crate) fn room(&self) -> u32 {
        let (first, last) = self.instances();
        let within = |address: &Ipv4Addr| (first..=last).contains(&address.to_bits());
        let others: BTreeSet<&Ipv4Addr> = self.reserved.iter().chain([&self.gateway]).collect();
        let others = others.into_iter().filter(|address| within(address)).count();
        (last + 1).saturating_sub(first).saturating_sub(u32::try_from(others).unwrap_or(u32::MAX))
    }

    /// An address for an instance, none of those taken.
    pub(crate) fn of_instance(&self, id: &str, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        let (first, last) = self.instances();
        let at = |place| Ipv4Addr::from_bits(first + place);
        let is_free = |place| self.is_given(at(place)) && !taken.contains(&at(place));
        place(id, last.checked_sub(first)? + 1, is_free).map(at)
    }

    /// The address of each service; none of `fixed`, which containers have.
    pub(crate) fn of_services<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
        fixed: &BTreeSet<Ipv4Addr>,
    ) -> BTreeMap<&'a str, Ipv4Addr> {
        let (first, last) = (self.subnet.network().to_bits(), self.subnet.broadcast().to_bits());
        let (start, end) = self.instances();
        // Before the instances and behind them, as one row.
        let (before, behind) = (start - first - 2, last - 1 - end);
        let at = |place: u32| match place < before {
            true => Ipv4Addr::from_bits(first + 2 + place),
            false => Ipv4Addr::from_bits(end + 1 + (place - before)),
        };
        let mut taken = fixed.clone();
        let mut found = BTreeMap::new();
        let sorted: BTreeSet<&str> = names.into_iter().collect();
        for name in sorted.into_iter().filter(|_| before + behind > 0) {
            let is_free = |place| self.is_given(at(place)) && !taken.contains(&at(place));
            if let Some(address) = place(name, before + behind, is_free).map(at) {
                taken.insert(address);
                found.insert(name, address);
            }
        }
        found
    }
}

/// A subnet for each network without one, that overlaps with none of `given`; the same as long as
/// no network before it in the alphabet wants the same.
pub(crate) fn subnets<'a>(
    names: impl IntoIterator<Item = &'a str>,
    given: &[Ipv4Net],
) -> BTreeMap<&'a str, Ipv4Net> {
    let pool: Vec<Ipv4Net> = POOL.subnets(POOL_PREFIX).into_iter().flatten().collect();
    let size = u32::try_from(pool.len()).unwrap_or(u32::MAX);
    let mut taken = given.to_vec();
    let mut found = BTreeMap::new();
    let sorted: BTreeSet<&str> = names.into_iter().collect();
    for name in sorted {
        let of = |place: u32| pool.get(place as usize).copied();
        let is_free =
            |place| of(place).is_some_and(|net| !taken.iter().any(|other| overlap(net, *other)));
        let wish = if name == DEFAULT { Some(SUBNET) } else { None };
        let wish = wish.filter(|net| !taken.iter().any(|other| overlap(*net, *other)));
        if let Some(subnet) = wish.or_else(|| place(name, size, is_free).and_then(of)) {
            taken.push(subnet);
            found.insert(name, subnet);
        }
    }
    found
}

/// Whether two subnets have an address in common.
pub(crate) fn overlap(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other) || other.contains(&one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> BTreeSet<Ipv4Addr> {
        BTreeSet::new()
    }

    #[test]
    fn a_service_keeps_its_address_when_others_come() {
        let net = Net::default();
        let few = net.of_services(["web", "api"], &none());
        let more = net.of_services(["db", "web", "cache", "api"], &none());
        assert_eq!((few["web"], few["api"]), (more["web"], more["api"]));
        let distinct: BTreeSet<_> = more.values().collect();
        assert_eq!(distinct.len(), 4);
        assert!(more.values().all(|a| *a != net.gateway && a.octets()[2] < 64));
        let fixed = BTreeSet::from([few["web"]]);
        assert_ne!(net.of_services(["web"], &fixed)["web"], few["web"], "a container has it");
    }

    #[test]
    fn no_two_instances_share_an_address() {
        let net = Net::default();
        let mut taken = none();
        for number in 0..5000 {
            let address = net.of_instance(&format!("web.{number}.1"), &taken).unwrap();
            assert!(address.octets()[2] >= 64 && address.octets()[..2] == [10, 77]);
            assert!(taken.insert(address));
        }
    }

    #[test]
    fn a_small_network_is_used_to_the_last_address() {
        let mut net = Net::of("small", "192.168.7.0/28".parse().unwrap());
        net.reserved = ["192.168.7.9".parse().unwrap()].into();
        let mut taken = none();
        while let Some(address) = net.of_instance("web.1.1", &taken) {
            assert!(net.has(address) && taken.insert(address));
        }
        let last: Vec<u8> = taken.iter().map(|address| address.octets()[3]).collect();
        assert_eq!(last, [4, 5, 6, 7, 8, 10, 11, 12, 13, 14]);
        assert_eq!(net.room(), 10);
        let services = net.of_services(["a", "b", "c"], &none());
        let last: BTreeSet<u8> = services.values().map(|address| address.octets()[3]).collect();
        assert_eq!(last, [2, 3].into(), "the third has no room");
        net.range = Some("192.168.7.8/30".parse().unwrap());
        let here = |text: &str| net.of_instance(text, &none()).unwrap().octets()[3];
        assert!((0..50).all(|n| [8, 10, 11].contains(&here(&format!("web.{n}.1")))));
        let places = net.of_services(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"], &none());
        let places: BTreeSet<u8> = places.values().map(|address| address.octets()[3]).collect();
        assert_eq!(places, [2, 3, 4, 5, 6, 7, 12, 13, 14].into(), "all but the range");
        net.range = Some(net.subnet);
        assert_eq!(net.of_services(["a", "b"], &none()).len(), 2);
    }

    #[test]
    fn subnets_do_not_overlap_and_stay() {
        let few = subnets(["back", DEFAULT], &[]);
        assert_eq!(few[DEFAULT], SUBNET);
        let names: Vec<String> = (0..31).map(|number| format!("n{number}")).collect();
        let more = subnets(names.iter().map(String::as_str).chain(["back", DEFAULT]), &[]);
        assert_eq!(few["back"], more["back"]);
        let all: Vec<Ipv4Net> = more.values().copied().collect();
        assert_eq!(all.len(), 33);
        for (index, one) in all.iter().enumerate() {
            assert!(all[index + 1..].iter().all(|other| !overlap(*one, *other)), "{all:?}");
        }
        let given = subnets(["back", DEFAULT], &[SUBNET, few["back"]]);
        assert!(given.values().all(|net| *net != SUBNET && *net != few["back"]), "{given:?}");
    }

    #[test]
    fn a_changed_network_is_another() {
        let net = Net::default();
        let internal = Net { internal: true, ..net.clone() };
        assert_ne!(net.key(), internal.key());
        assert_eq!(net.key(), Net::default().key());
        assert!(net.key().starts_with("default-"));
    }
}
