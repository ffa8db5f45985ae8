use std::collections::BTreeMap;

use simple_dns::{QCLASS, Question};

use super::*;
use crate::discovery::Entry;

struct Two;

impl Instances for Two {
    fn ready(&self, service: &str) -> Vec<(u32, Ipv4Addr)> {
        let here = |n| (u32::from(n), Ipv4Addr::new(10, 77, 99, n));
        if service == "web" { vec![here(1), here(2)] } else { Vec::new() }
    }
}

fn directory() -> Directory {
    let entry = |last, port| Entry {
        address: Ipv4Addr::new(10, 77, 0, last),
        ports: vec![(port, Protocol::Auto)],
        aliases: [format!("alias{last}")].into(),
        direct: last == 8,
    };
    let services = [("web".to_string(), entry(7, 3000)), ("db".to_string(), entry(8, 5432))];
    Directory { project: "shop".to_string(), services: services.into(), servers: BTreeMap::new() }
}

/// What is answered, as text: code, then each record with its TTL.
fn ask(name: &str, kind: TYPE) -> String {
    let mut query = Packet::new_query(77);
    let class = QCLASS::CLASS(CLASS::IN);
    query.questions.push(Question::new(Name::new_unchecked(name), kind.into(), class, false));
    let text = query.build_bytes_vec().unwrap();
    let Some(answer) = answer(&text, &directory(), &Two) else { return "elsewhere".to_string() };
    let packet = Packet::parse(&answer).unwrap();
    assert_eq!(packet.id(), 77);
    assert!(packet.has_flags(PacketFlag::RESPONSE));
    let records = packet.answers.iter().map(|record| match &record.rdata {
        RData::A(a) => format!(" {}/{}", Ipv4Addr::from(a.address), record.ttl),
        RData::SRV(srv) => format!(" {}:{}/{}", srv.target, srv.port, record.ttl),
        RData::PTR(ptr) => format!(" {}/{}", ptr.0, record.ttl),
        other => format!(" {other:?}"),
    });
    format!("{:?}{}", packet.rcode(), records.collect::<String>())
}

#[test]
fn names_mean_what_the_table_says() {
    for (name, expected) in [
        ("web", "NoError 10.77.0.7/5"),
        ("WEB.shop.internal", "NoError 10.77.0.7/5"),
        ("tasks.web", "NoError 10.77.99.1/0 10.77.99.2/0"),
        ("tasks.db", "NoError"),
        ("2.web.shop.internal", "NoError 10.77.99.2/0"),
        ("3.web", "NameError"),
        ("x.web", "NameError"),
        ("nobody.shop.internal", "NameError"),
        ("nobody", "elsewhere"),
        ("example.org", "elsewhere"),
        ("xshop.internal", "elsewhere"),
    ] {
        assert_eq!(ask(name, TYPE::A), expected, "{name}");
    }
}

#[test]
fn other_records_are_answered_too() {
    assert_eq!(ask("web", TYPE::AAAA), "NoError", "empty, not an error: it has an A");
    assert_eq!(ask("_3000._tcp.web", TYPE::SRV), "NoError web.shop.internal:3000/5");
    assert_eq!(ask("_3001._tcp.web", TYPE::SRV), "elsewhere");
    assert_eq!(ask("7.0.77.10.in-addr.arpa", TYPE::PTR), "NoError web.shop.internal/5");
    assert_eq!(ask("2.99.77.10.in-addr.arpa", TYPE::PTR), "NoError 2.web.shop.internal/5");
    assert_eq!(ask("9.9.77.10.in-addr.arpa", TYPE::PTR), "NameError");
    assert_eq!(ask("1.1.1.1.in-addr.arpa", TYPE::PTR), "elsewhere");
}

#[test]
fn nonsense_is_not_answered() {
    assert_eq!(answer(b"", &directory(), &Two), Some(vec![]));
    assert_eq!(answer(&[0xff; 40], &directory(), &Two), Some(vec![]));
    let reply = Packet::new_reply(1).build_bytes_vec().unwrap();
    assert_eq!(answer(&reply, &directory(), &Two), Some(vec![]), "replies are never replied to");
}
