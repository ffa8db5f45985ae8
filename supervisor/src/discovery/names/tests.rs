use simple_dns::{QCLASS, Question};

use super::*;
use crate::discovery::net::Net;

struct Two;

impl Instances for Two {
    fn ready(&self, service: &str, network: &str) -> Vec<(u32, Ipv4Addr)> {
        let block = if network == "front" { 77 } else { 78 };
        let here = |n| (u32::from(n), Ipv4Addr::new(10, block, 99, n));
        if service == "web" { vec![here(1), here(2)] } else { Vec::new() }
    }

    fn carries(&self, _: &str, _: &str, entry: &Entry) -> bool {
        !entry.ports.is_empty()
    }
}

fn entry(last: u8, port: u16) -> Entry {
    Entry {
        address: Ipv4Addr::new(10, 77, 0, last),
        ports: vec![(port, Protocol::Auto)],
        aliases: [format!("alias{last}")].into(),
        direct: last == 8,
    }
}

fn front() -> Directory {
    let services = [("web".to_string(), entry(7, 3000)), ("db".to_string(), entry(8, 5432))];
    Directory { project: "shop".to_string(), services: services.into(), ..Directory::default() }
}

fn back() -> Directory {
    let here = |last, port| Entry { address: Ipv4Addr::new(10, 78, 0, last), ..entry(last, port) };
    let services = [("web".to_string(), here(7, 3000)), ("vault".to_string(), here(9, 8200))];
    let subnet = "10.78.0.0/16".parse().unwrap();
    let net = Net { internal: true, ..Net::of("back", subnet) };
    let project = "shop".to_string();
    Directory { project, net, services: services.into(), ..Directory::default() }
}

/// What is answered, as text: code, then each record with its TTL.
fn ask(name: &str, kind: TYPE) -> String {
    ask_in(&View(vec![("front", &front())]), name, kind)
}

fn ask_in(view: &View<'_>, name: &str, kind: TYPE) -> String {
    let mut query = Packet::new_query(77);
    let class = QCLASS::CLASS(CLASS::IN);
    query.questions.push(Question::new(Name::new_unchecked(name), kind.into(), class, false));
    let text = query.build_bytes_vec().unwrap();
    let Some(answer) = answer(&text, view, &Two) else { return "elsewhere".to_string() };
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
fn only_what_is_in_the_askers_networks_is_found() {
    let (front, back) = (front(), back());
    let [in_front, in_back] = [vec![("front", &front)], vec![("back", &back)]].map(View);
    let in_both = View(vec![("back", &back), ("front", &front)]);
    for (name, at_front, at_back, at_both) in [
        ("web", "10.77.0.7/5", "10.78.0.7/5", "10.78.0.7/5"),
        (
            "tasks.web",
            "10.77.99.1/0 10.77.99.2/0",
            "10.78.99.1/0 10.78.99.2/0",
            "10.78.99.1/0 10.78.99.2/0",
        ),
        ("vault", "", "10.78.0.9/5", "10.78.0.9/5"),
        ("alias7", "10.77.0.7/5", "10.78.0.7/5", "10.78.0.7/5"),
        ("1.web", "10.77.99.1/0", "10.78.99.1/0", "10.78.99.1/0"),
    ] {
        for (view, expected) in [(&in_front, at_front), (&in_back, at_back), (&in_both, at_both)] {
            let found = ask_in(view, name, TYPE::A);
            let found = found.strip_prefix("NoError ").unwrap_or_default();
            assert_eq!(found, expected, "{name}");
        }
    }
    assert_eq!(ask_in(&in_back, "db.shop.internal", TYPE::A), "NameError");
    assert_eq!(ask_in(&in_both, "db.shop.internal", TYPE::A), "NoError", "no instance is ready");
    let name = "9.0.78.10.in-addr.arpa";
    assert_eq!(ask_in(&in_both, name, TYPE::PTR), "NoError vault.shop.internal/5");
    assert_eq!(ask_in(&in_front, name, TYPE::PTR), "elsewhere");
    assert!(in_back.is_internal() && !in_both.is_internal() && !in_front.is_internal());
}

#[test]
fn nonsense_is_not_answered() {
    let front = front();
    let view = View(vec![("front", &front)]);
    assert_eq!(answer(b"", &view, &Two), Some(vec![]));
    assert_eq!(answer(&[0xff; 40], &view, &Two), Some(vec![]));
    let reply = Packet::new_reply(1).build_bytes_vec().unwrap();
    assert_eq!(answer(&reply, &view, &Two), Some(vec![]), "replies are never replied to");
}
