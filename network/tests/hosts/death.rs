//! Processes that die at any moment, and many at once: nothing is left, nothing is given twice.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use network::attach::{Request, attach};
use network::collect::collect;
use network::netlink::Connection;
use network::store::Store;
use network::{networks, pool};
use std::os::fd::AsFd;

use crate::testbed::{Stored, on_a_fresh_host, traces};

const STORE: &str = "NETWORK_TEST_STORE";
const NAME: &str = "NETWORK_TEST_NAME";

/// What the tests below start and kill: a process that connects a namespace of its own, says which
/// addresses it got, and waits.
#[test]
#[ignore = "started by the other tests of this file"]
fn victim() {
    let directory = PathBuf::from(std::env::var_os(STORE).expect("started by another test"));
    let name = std::env::var(NAME).unwrap();
    let store = Store::open(&directory.join("config"), &directory.join("run")).unwrap();
    let netns = pool::make().unwrap();
    let request = Request { network: "web".into(), ..Request::default() };
    let made = attach(&store, netns.as_fd(), &name, &[request]).unwrap();
    let addresses: Vec<String> = made.addresses().iter().map(ToString::to_string).collect();
    println!("\nGOT {}", addresses.join(" "));
    let mut end = Vec::new();
    std::io::stdin().read_to_end(&mut end).unwrap();
}

fn start(stored: &Stored, name: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "death::victim", "--nocapture"])
        .env(STORE, stored.directory.path())
        .env(NAME, name)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The addresses that a victim says it got.
fn addresses(child: &mut Child) -> Vec<String> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let got = lines.map_while(Result::ok).find_map(|l| l.strip_prefix("GOT ").map(String::from));
    got.expect("addresses").split(' ').map(String::from).collect()
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Collects until the kernel has removed the last namespace; what is left then stays.
fn collect_all(stored: &Stored) {
    for _ in 0..1000 {
        collect(&stored.store).unwrap();
        if traces(stored).iter().all(|name| name.starts_with("minirun")) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn nothing_is_left(stored: &Stored) {
    collect_all(stored);
    let bridge = Connection::open().unwrap().find_link("minirun0").unwrap();
    let told = Connection::open().unwrap().told_neighbours().unwrap();
    if let Some(bridge) = bridge {
        let ours: Vec<_> = told.iter().filter(|one| one.link == bridge.index).collect();
        // The kernel's own entries for multicast are permanent too.
        assert!(ours.iter().all(|one| one.address.is_multicast()), "{ours:?}");
    }
    networks::prune(&stored.store).unwrap();
    assert_eq!(traces(stored), [""; 0]);
    let tables = Command::new("nft").args(["list", "tables"]).output().unwrap();
    assert_eq!(String::from_utf8(tables.stdout).unwrap(), "");
}

#[test]
fn killed_at_any_moment_a_start_leaves_nothing_after_the_next_command() {
    on_a_fresh_host(|| {
        let stored = Stored::new();
        stored.create("web", &["10.1.0.0/24", "fd00:1::/64"], false);
        // How long a start takes here decides when the deaths are: from before its first step to
        // after its last, on a fast machine and on a slow one.
        let began = std::time::Instant::now();
        let mut whole = start(&stored, "whole");
        addresses(&mut whole);
        let start_takes = began.elapsed();
        kill(whole);
        collect_all(&stored);
        let mut claimed = BTreeSet::new();
        for round in 0..400_u32 {
            let name = format!("c{round}");
            let child = start(&stored, &name);
            std::thread::sleep(start_takes * (round % 40) / 25);
            kill(child);
            let leases = stored.store.leases("web").unwrap();
            claimed.insert(leases.iter().any(|lease| lease.container == name));
            if round % 4 == 0 {
                collect_all(&stored);
                assert!(traces(&stored).iter().all(|name| name == "minirun0"));
            }
            // A busy machine may be late every time in one row of forty.
            if round >= 39 && claimed.len() == 2 {
                return nothing_is_left(&stored);
            }
        }
        panic!("the deaths were all before or all after the claim: {claimed:?}");
    });
}

#[test]
fn many_at_once_get_different_addresses_and_leave_nothing() {
    on_a_fresh_host(|| {
        let stored = Stored::new();
        stored.create("web", &["10.1.0.0/24", "fd00:1::/64"], false);
        let mut children: Vec<Child> =
            (0..40).map(|number| start(&stored, &format!("c{number}"))).collect();
        let mut given = BTreeSet::new();
        for child in &mut children {
            for address in addresses(child) {
                assert!(given.insert(address.clone()), "{address} was given twice");
            }
        }
        assert_eq!(given.len(), 80);
        assert_eq!(stored.store.leases("web").unwrap().len(), 40);
        children.into_iter().for_each(kill);
        nothing_is_left(&stored);
    });
}
