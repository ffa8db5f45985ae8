//! What a question means, and its answer. Pure, but for the table it looks things up in.
//!
//! | name                   | record | answer                                    | TTL |
//! |------------------------|--------|-------------------------------------------|-----|
//! | `web`                  | A      | the service's address: the data plane     | 5   |
//! | `web`, if it listens nowhere | A | every ready replica                       | 0   |
//! | `tasks.web`            | A      | every ready replica                       | 0   |
//! | `2.web`                | A      | the replica in slot 2                     | 0   |
//! | `_3000._tcp.web`, `_53._udp.web` | SRV | port and name of the service       | 5   |
//! | `x.y.77.10.in-addr.arpa` | PTR  | the name of that address                  | 5   |
//!
//! Each also with `.PROJECT.internal` behind it. Names of the project that do not exist are said
//! not to; everything else is somebody else's to answer. Only what is in one of the asker's networks
//! is found, and of what is in several the addresses in the first.

use std::net::Ipv4Addr;

use linux::inet::Transport;
use simple_dns::rdata::{A, PTR, RData, SRV};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};

use super::{Directory, Entry};
use crate::model::Protocol;

/// How long a service's address may be remembered, in seconds.
const STEADY: u32 = 5;
/// Instances come and go: theirs may not be remembered at all.
const FLEETING: u32 = 0;

/// Where instances are, by service and slot.
pub(crate) trait Instances {
    /// The slots of a service that get requests, with their addresses in the network of that key.
    fn ready(&self, service: &str, network: &str) -> Vec<(u32, Ipv4Addr)>;
    /// Whether anything is carried from a service's own address in the network of that key.
    fn carries(&self, service: &str, network: &str, entry: &Entry) -> bool;
}

/// What an asker can see: its networks, by their keys, in its order.
#[derive(Clone, Debug)]
pub(crate) struct View<'a>(pub(crate) Vec<(&'a str, &'a Directory)>);

impl<'a> View<'a> {
    fn project(&self) -> &'a str {
        self.0.first().map_or("", |(_, directory)| &directory.project)
    }

    /// A service of that name, and the key of the network where it is.
    fn find(&self, name: &str) -> Option<(&'a str, &'a str, &'a Entry)> {
        let mut found = self.0.iter().map(|(key, directory)| (key, directory.find(name)));
        found.find_map(|(key, found)| found.map(|(service, entry)| (*key, service, entry)))
    }

    /// Whether nobody outside may be asked: names can carry messages out.
    pub(crate) fn is_internal(&self) -> bool {
        self.0.iter().all(|(_, directory)| directory.net.internal)
    }
}

/// What is found.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Found {
    /// These addresses, for so long.
    Addresses(Vec<Ipv4Addr>, u32),
    /// A port of a service, at an address.
    Port(u16, String, Ipv4Addr),
    /// The name of an address.
    Named(String),
    /// A name of ours that does not exist.
    Nothing,
    /// Not ours.
    Elsewhere,
}

/// The answer to a question; `None` if somebody else has to be asked. Nonsense is answered with
/// nothing, as `Some` of an empty text.
pub(crate) fn answer(
    question: &[u8],
    view: &View<'_>,
    instances: &dyn Instances,
) -> Option<Vec<u8>> {
    let Ok(packet) = Packet::parse(question) else { return Some(Vec::new()) };
    if packet.has_flags(PacketFlag::RESPONSE) {
        return Some(Vec::new());
    }
    let [asked] = &packet.questions[..] else { return Some(failure(question, RCODE::FormatError)) };
    let name = asked.qname.to_string().to_ascii_lowercase();
    let found = find(&name, view, instances);
    if found == Found::Elsewhere {
        return None;
    }
    let mut reply = Packet::new_reply(packet.id());
    reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER | PacketFlag::RECURSION_AVAILABLE);
    if packet.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    reply.questions.push(asked.clone());
    let wants = |kind: TYPE| asked.qtype == QTYPE::ANY || asked.qtype == QTYPE::TYPE(kind);
    let record = |ttl, data| ResourceRecord::new(asked.qname.clone(), CLASS::IN, ttl, data);
    let target;
    match found {
        Found::Nothing => *reply.rcode_mut() = RCODE::NameError,
        Found::Addresses(addresses, ttl) if wants(TYPE::A) => {
            for address in addresses {
                reply.answers.push(record(ttl, RData::A(A { address: address.into() })));
            }
        }
        Found::Port(port, service, address) if wants(TYPE::SRV) => {
            target = format!("{service}.{}", suffix(view.project()));
            let target = Name::new(&target).ok()?;
            let server = SRV { priority: 0, weight: 1, port, target: target.clone() };
            reply.answers.push(record(STEADY, RData::SRV(server)));
            let address = RData::A(A { address: address.into() });
            let extra = ResourceRecord::new(target, CLASS::IN, STEADY, address);
            reply.additional_records.push(extra);
            return reply.build_bytes_vec().ok();
        }
        Found::Named(name) if wants(TYPE::PTR) => {
            target = name;
            reply.answers.push(record(STEADY, RData::PTR(PTR(Name::new(&target).ok()?))));
            return reply.build_bytes_vec().ok();
        }
        // It exists, but has no such record (AAAA): an empty answer, or clients give up.
        _ => {}
    }
    reply.build_bytes_vec_compressed().ok()
}

/// An answer that says only that there is none.
pub(crate) fn failure(question: &[u8], code: RCODE) -> Vec<u8> {
    let Ok(packet) = Packet::parse(question) else { return Vec::new() };
    let mut reply = Packet::new_reply(packet.id());
    *reply.rcode_mut() = code;
    reply.questions.clone_from(&packet.questions);
    reply.build_bytes_vec_compressed().unwrap_or_default()
}

/// What the names of a project end with.
pub(crate) fn suffix(project: &str) -> String {
    format!("{project}.internal")
}

fn find(name: &str, view: &View<'_>, instances: &dyn Instances) -> Found {
    if let Some(reversed) = name.strip_suffix(".in-addr.arpa") {
        return reverse(reversed, view, instances);
    }
    let suffix = suffix(view.project());
    let before = name.strip_suffix(&suffix).and_then(|before| before.strip_suffix('.'));
    let (local, ours) = before.map_or((name, false), |local| (local, true));
    let labels: Vec<&str> = local.split('.').collect();
    let all = |key: &str, service: &str| {
        instances.ready(service, key).into_iter().map(|(_, address)| address).collect()
    };
    let found = match labels[..] {
        [name] => view.find(name).map(|(key, service, entry)| {
            match !entry.direct && instances.carries(service, key, entry) {
                true => Found::Addresses(vec![entry.address], STEADY),
                false => Found::Addresses(all(key, service), FLEETING),
            }
        }),
        ["tasks", name] => {
            view.find(name).map(|(key, service, _)| Found::Addresses(all(key, service), FLEETING))
        }
        [port, transport @ ("_tcp" | "_udp"), name] => {
            view.find(name).and_then(|(_, service, entry)| {
                let port = port.strip_prefix('_')?.parse().ok()?;
                let wanted = if transport == "_udp" { Transport::Udp } else { Transport::Tcp };
                let is = |of: &(u16, Protocol)| of.0 == port && of.1.transport() == wanted;
                let known = entry.ports.iter().any(is);
                known.then(|| Found::Port(port, service.to_string(), entry.address))
            })
        }
        [slot, name] => view.find(name).map(|(key, service, _)| {
            let wanted = slot.parse::<u32>().ok();
            let ready = instances.ready(service, key);
            let one = ready.into_iter().find(|(index, _)| Some(*index) == wanted);
            // The service is ours, so nobody else knows better.
            one.map_or(Found::Nothing, |(_, a)| Found::Addresses(vec![a], FLEETING))
        }),
        _ => None,
    };
    found.unwrap_or(if ours { Found::Nothing } else { Found::Elsewhere })
}

fn reverse(text: &str, view: &View<'_>, instances: &dyn Instances) -> Found {
    let octets: Vec<u8> = text.split('.').rev().filter_map(|part| part.parse().ok()).collect();
    let Ok(octets) = <[u8; 4]>::try_from(octets) else { return Found::Elsewhere };
    let wanted = Ipv4Addr::from(octets);
    let of = view.0.iter().find(|(_, directory)| directory.net.subnet.contains(&wanted));
    let Some((key, directory)) = of else { return Found::Elsewhere };
    let suffix = suffix(view.project());
    for (service, entry) in &directory.services {
        if entry.address == wanted {
            return Found::Named(format!("{service}.{suffix}"));
        }
        let ready = instances.ready(service, key);
        if let Some((slot, _)) = ready.into_iter().find(|(_, address)| *address == wanted) {
            return Found::Named(format!("{slot}.{service}.{suffix}"));
        }
    }
    Found::Nothing
}

#[cfg(test)]
mod tests;
