//! minisup and UDP: clients are balanced, answered from where they asked, and survive replicas.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use serde_json::Value;

use crate::project::{Project, kill};
use crate::world::World;
use crate::{Test, programs, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("clients_are_balanced_and_stay", clients_are_balanced_and_stay),
        test("killed_replicas_lose_clients", killed_replicas_lose_clients),
        test("a_drained_replica_is_left", a_drained_replica_is_left),
        test("services_ask_each_other", services_ask_each_other),
    ]
}

/// A client of the published port, at an address of this host that is not its first.
struct Client(UdpSocket);

impl Client {
    fn of(project: &Project<'_>) -> Client {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        Client::at(socket, (Ipv4Addr::new(127, 0, 0, 9), project.port).into())
    }

    fn at(socket: UdpSocket, address: SocketAddr) -> Client {
        // A connected socket takes answers from the address that was asked only.
        socket.connect(address).expect("an address");
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("not for ever");
        Client(socket)
    }

    /// Asks until there is an answer, as clients of UDP must; gives the slot that answered.
    fn ask(&self, text: &str) -> String {
        let mut buffer = [0; 65_535];
        for _ in 0..60 {
            drop(self.0.send(text.as_bytes()));
            while let Ok(length) = self.0.recv(&mut buffer) {
                let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let (slot, said) = answer.split_once(' ').expect("a slot and what was said");
                if said == text {
                    return slot.to_owned();
                }
            }
        }
        panic!("no answer to {text}");
    }

    /// Asks, and waits; gives the slot that answered.
    fn ask_once(&self, text: &str) -> String {
        self.0.set_read_timeout(Some(Duration::from_secs(60))).expect("not for ever");
        let mut buffer = [0; 64];
        self.0.send(text.as_bytes()).expect("send it");
        let length = self.0.recv(&mut buffer).expect("an answer");
        let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let (slot, said) = answer.split_once(' ').expect("a slot and what was said");
        assert_eq!(said, text);
        slot.to_owned()
    }
}

/// Starts replicas that answer datagrams.
fn up(project: &Project<'_>, replicas: u32, more: &str) {
    let file = project.bundle().join("compose.yaml");
    let text = format!(
        "services:\n  echo:\n    image: .\n    command: [/bin/probe, echo, \"5353\"]\n    \
         ports: [\"{}:5353/udp\"]\n    deploy: {{replicas: {replicas}}}\n{more}",
        project.port
    );
    std::fs::write(&file, text).expect("write the file");
    let runtime = programs::minirun();
    let mut up = vec!["up", "-d", "--wait", "--file", file.to_str().expect("UTF-8")];
    up.extend(["--runtime", runtime.to_str().expect("UTF-8")]);
    project.ok(&up);
}

fn clients_are_balanced_and_stay(world: &World) {
    let project = Project::new(world, "udp");
    up(&project, 2, "");
    assert!(project.ok(&["ls"]).contains(&format!("*:{}->5353/udp", project.port)));
    let clients: Vec<Client> = (0..20).map(|_| Client::of(&project)).collect();
    let slots: Vec<String> = clients.iter().map(|client| client.ask("first")).collect();
    let both = BTreeSet::from(["echo.1".to_owned(), "echo.2".to_owned()]);
    assert_eq!(slots.iter().cloned().collect::<BTreeSet<_>>(), both);
    let again: Vec<String> = clients.iter().map(|client| client.ask("second")).collect();
    assert_eq!(again, slots, "a client stays where it is");
    let long = "x".repeat(9000);
    assert_eq!(clients[0].ask(&long), slots[0]);
    let stats: Value =
        serde_json::from_str(&project.ok(&["stats", "--no-stream", "--json"])).expect("JSON");
    for slot in ["echo.1.1", "echo.2.1"] {
        let traffic = &stats["traffic"]["instances"][slot];
        let number = |key: &str| traffic[key].as_u64().unwrap_or_default();
        assert!(number("requests") > 0, "{stats}");
        assert!(number("datagrams_in") >= 2 * number("requests"), "{stats}");
        assert!(number("datagrams_out") >= 2 * number("requests"), "{stats}");
    }
    // Once they listen, nobody has to ask twice.
    for _ in 0..4 {
        assert!(both.contains(&Client::of(&project).ask_once("new")));
    }
    if let Ok(socket) = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) {
        let client = Client::at(socket, (Ipv6Addr::LOCALHOST, project.port).into());
        assert!(both.contains(&client.ask_once("by IPv6")));
    }
    // A second `up` disturbs nobody.
    up(&project, 2, "");
    let once_more: Vec<String> = clients.iter().map(|client| client.ask("third")).collect();
    assert_eq!(once_more, slots);
    project.down();
}

fn killed_replicas_lose_clients(world: &World) {
    let project = Project::new(world, "udp-kill");
    up(&project, 2, "");
    let clients: Vec<Client> = (0..10).map(|_| Client::of(&project)).collect();
    clients.iter().for_each(|client| drop(client.ask("first")));
    for pid in project.pids() {
        kill("-KILL", &pid);
        clients.iter().for_each(|client| drop(client.ask("second")));
    }
    project.wait_for("both again", || project.pids().len() == 2);
    clients.iter().for_each(|client| drop(client.ask("third")));
    project.down();
}

fn a_drained_replica_is_left(world: &World) {
    let project = Project::new(world, "udp-drain");
    up(&project, 3, "");
    let clients: Vec<Client> = (0..12).map(|_| Client::of(&project)).collect();
    clients.iter().for_each(|client| drop(client.ask("first")));
    project.ok(&["scale", "echo=1"]);
    project.wait_for("one", || project.ok(&["ps"]).lines().count() == 2);
    assert!(clients.iter().all(|client| client.ask("second") == "echo.1"));
    let events = project.ok(&["events", "echo.2"]);
    assert!(events.contains("drained") || events.contains("idle"), "{events}");
    project.down();
}

fn services_ask_each_other(world: &World) {
    let project = Project::new(world, "udp-names");
    let more = "    expose: [\"7000/udp\"]\n  other: {image: ., command: [/bin/probe, wait]}\n";
    up(&project, 2, more);
    let found = project.ok(&["exec", "other", "busybox", "nslookup", "echo", "10.77.0.1"]);
    let last = found.lines().rfind(|line| line.starts_with("Address"));
    let address = last.and_then(|line| line.split_whitespace().last()).expect("an address");
    let to = format!("{}:5353", address.trim_end_matches(":53"));
    let answer = project.ok(&["exec", "other", "probe", "ask", &to, "hello"]);
    assert!(answer.starts_with("echo.") && answer.ends_with(" hello\n"), "{answer}");
    project.down();
}
