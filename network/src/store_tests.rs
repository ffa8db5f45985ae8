use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::definition::Wish;

/// A directory that removes itself.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        // Histories make tens of thousands of files: in memory where that is possible.
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let path = base.join(format!("store-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn store(&self) -> Store {
        Store::open(&self.0.join("config"), &self.0.join("run")).unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn network(subnet: &str) -> Network {
    let wish = Wish { name: "web".into(), ..Wish::default() };
    wish.settle(0, subnet.parse().unwrap(), Some("fd00::/64".parse().unwrap())).unwrap()
}

fn claim<'a>(container: &'a str, addresses: &'a [IpAddr]) -> Claim<'a> {
    Claim { container, interface: "eth0", addresses, hardware: None }
}

#[test]
fn networks_are_kept_once_and_found_again() {
    let dir = Dir::new("networks");
    let store = dir.store();
    let web = network("10.9.0.0/24");
    store.lock().unwrap().add(&web).unwrap();
    assert!(matches!(store.lock().unwrap().add(&web), Err(Error::AlreadyExists(_))));
    assert_eq!(dir.store().networks().unwrap(), [web]);
    fs::write(dir.0.join("config/web.json"), "{}").unwrap();
    assert!(matches!(store.network("web"), Err(Error::Damaged { .. })));
    store.lock().unwrap().remove("web").unwrap();
    assert!(matches!(store.network("web"), Err(Error::NotFound { .. })));
}

#[test]
fn static_addresses_are_given_once_and_checked() {
    let dir = Dir::new("static");
    let store = dir.store();
    let (web, locked) = (network("10.9.0.0/24"), store.lock().unwrap());
    let wanted = ["10.9.0.7".parse().unwrap(), "fd00::70".parse().unwrap()];
    let lease = locked.claim(&web, &claim("a", &wanted)).unwrap();
    assert_eq!(lease.addresses().collect::<Vec<_>>(), wanted);
    match locked.claim(&web, &claim("b", &wanted[..1])) {
        Err(Error::AddressTaken { container, .. }) => assert_eq!(container, "a"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        locked.claim(&web, &claim("b", &wanted[1..])),
        Err(Error::AddressTaken { .. })
    ));
    for text in ["10.9.0.1", "10.9.0.0", "10.9.0.255", "10.8.0.2", "fd00::", "fd00::1", "::1"] {
        let address = [text.parse().unwrap()];
        let result = locked.claim(&web, &claim("b", &address));
        assert!(matches!(result, Err(Error::Invalid { .. })), "{text}: {result:?}");
    }
    let twice = ["10.9.0.8".parse().unwrap(), "10.9.0.9".parse().unwrap()];
    assert!(locked.claim(&web, &claim("b", &twice)).is_err());
}

#[test]
fn a_full_network_says_so() {
    let dir = Dir::new("full");
    let store = dir.store();
    let (web, locked) = (network("10.9.0.0/30"), store.lock().unwrap());
    locked.claim(&web, &claim("a", &[])).unwrap();
    match locked.claim(&web, &claim("b", &[])) {
        Err(Error::Exhausted(text)) => assert!(text.contains("web"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stale_lease_cannot_free_the_address_of_its_next_owner() {
    let dir = Dir::new("stale");
    let store = dir.store();
    let (web, locked) = (network("10.9.0.0/30"), store.lock().unwrap());
    let first = locked.claim(&web, &claim("a", &[])).unwrap();
    locked.release(&first).unwrap();
    let second = locked.claim(&web, &claim("b", &[])).unwrap();
    locked.commit(&second).unwrap();
    assert_eq!(first.ipv4, second.ipv4);
    locked.release(&first).unwrap();
    assert!(locked.holds(&second) && !locked.holds(&first));
    locked.release(&second).unwrap();
    assert_eq!(store.leases("web").unwrap(), []);
}

/// The smallest generator of pseudo-random numbers that is good enough to choose steps (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A history of claims, ends and crashes, each at any of the points where a process can die.
fn history(seed: u64) {
    let dir = Dir::new(&format!("history-{seed}"));
    let web = network("10.9.0.0/27");
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    // The world outside of the store: the cables that the kernel has.
    let mut cables: BTreeSet<Ipv4Addr> = BTreeSet::new();
    let mut running: BTreeMap<Ipv4Addr, Lease> = BTreeMap::new();
    for step in 0..120 {
        let store = dir.store();
        let crash_at = u32::try_from(dice.below(9)).unwrap();
        crash::after(Some(crash_at));
        let choice = dice.below(4);
        let victim = running.keys().copied().nth(usize::try_from(dice.below(8)).unwrap());
        let ended = catch_unwind(AssertUnwindSafe(|| match (choice, victim) {
            (0 | 1, _) => {
                let name = format!("c{step}");
                let locked = store.lock().unwrap();
                let Ok(lease) = locked.claim(&web, &claim(&name, &[])) else { return };
                drop(locked);
                assert!(
                    !running.contains_key(&lease.ipv4),
                    "seed {seed}: {} given twice",
                    lease.ipv4
                );
                cables.insert(lease.ipv4);
                crash::point();
                store.lock().unwrap().commit(&lease).unwrap();
                running.insert(lease.ipv4, lease);
            }
            (2, Some(address)) => {
                let Some(lease) = running.remove(&address) else { return };
                cables.remove(&address);
                crash::point();
                store.lock().unwrap().release(&lease).unwrap();
            }
            _ => {
                // A container ends and nobody says so.
                if let Some(address) = victim {
                    running.remove(&address);
                    cables.remove(&address);
                }
            }
        }));
        crash::after(None);
        if ended.is_err() {
            kill_claimants(&dir);
        }
        if dice.below(3) == 0 {
            sweep(&store, &mut cables);
        }
        for (address, lease) in &running {
            assert!(store.lock().unwrap().holds(lease), "seed {seed}: {address} lost");
        }
    }
    running.clear();
    cables.clear();
    kill_claimants(&dir);
    let store = dir.store();
    sweep(&store, &mut cables);
    assert_eq!(store.leases("web").unwrap(), [], "seed {seed}: leases left");
}

/// What the death of a process looks like in the store: its claims are those of a dead process.
fn kill_claimants(dir: &Dir) {
    let store = dir.store();
    for name in store.lease_names("web").unwrap().into_iter().filter(|name| name.pending) {
        if let Some(mut lease) = store.lease("web", name) {
            lease.claimant = Process { pid: u32::MAX, start: 1 };
            fs::write(store.lease_path("web", name), serde_json::to_vec(&lease).unwrap()).unwrap();
        }
    }
}

fn sweep(store: &Store, cables: &mut BTreeSet<Ipv4Addr>) {
    let locked = store.lock().unwrap();
    let dead = locked.sweep("web", |_| true, |address| Ok(cables.contains(&address))).unwrap();
    for name in dead {
        cables.remove(&name.ipv4);
        store.forget("web", name).unwrap();
    }
}

#[test]
fn no_address_is_given_twice_or_lost_whenever_a_process_dies() {
    for seed in 0..60 {
        history(seed);
    }
}
