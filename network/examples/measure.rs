//! Measures what a network costs a container's start. Not a test: nothing here passes or fails by
//! the clock. Run as root; everything happens inside network namespaces of its own.
//!
//! ```text
//! cargo run --release -p network --example measure -- attach 200
//! ```

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use linux::namespace::{self, Kind, Namespaces};
use network::attach::{Request, attach, detach};
use network::networks;
use network::store::Store;

type Anything = Box<dyn std::error::Error>;

fn main() -> Result<(), Anything> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let count = arguments.get(1).map_or(Ok(100), |text| text.parse())?;
    namespace::unshare(Namespaces::from_iter([Kind::Network]))?;
    linux::netdev::bring_loopback_up()?;
    // As /run is: in memory.
    let directory =
        std::path::Path::new("/dev/shm").join(format!("network-measure-{}", std::process::id()));
    let store = Store::open(&directory.join("config"), &directory.join("run"))?;
    let result = match arguments.first().map(String::as_str) {
        Some("attach") => one_after_the_other(&store, count),
        Some("many") => all_at_once(&store, count),
        _ => Err("usage: measure attach|many COUNT".into()),
    };
    std::fs::remove_dir_all(&directory)?;
    result
}

/// A network namespace without any process in it.
fn new_namespace() -> Result<OwnedFd, Anything> {
    let home = namespace::current(Kind::Network)?;
    namespace::unshare(Namespaces::from_iter([Kind::Network]))?;
    let made = namespace::current(Kind::Network)?;
    namespace::enter(home.as_fd(), Kind::Network)?;
    Ok(made)
}

fn request() -> Vec<Request> {
    vec![Request { network: "bridge".into(), ..Request::default() }]
}

/// Isolated starts, with a pause before each: what one user sees.
fn one_after_the_other(store: &Store, count: usize) -> Result<(), Anything> {
    let first = new_namespace()?;
    let began = Instant::now();
    let kept = attach(store, first.as_fd(), "first", &request())?;
    println!("first container of a network: {:?}", began.elapsed());
    let (mut setups, mut teardowns) = (Vec::new(), Vec::new());
    for number in 0..count {
        let netns = new_namespace()?;
        std::thread::sleep(Duration::from_millis(20));
        let began = Instant::now();
        let made = attach(store, netns.as_fd(), &format!("c{number}"), &request())?;
        setups.push(began.elapsed());
        let began = Instant::now();
        detach(store, &made)?;
        teardowns.push(began.elapsed());
    }
    report("attach", setups);
    report("detach", teardowns);
    detach(store, &kept)?;
    networks::prune(store)?;
    Ok(())
}

/// How the cost grows when nobody leaves.
fn all_at_once(store: &Store, count: usize) -> Result<(), Anything> {
    let mut kept = Vec::new();
    let mut setups = Vec::new();
    for number in 0..count {
        let netns = new_namespace()?;
        let began = Instant::now();
        let made = attach(store, netns.as_fd(), &format!("c{number}"), &request())?;
        setups.push(began.elapsed());
        kept.push((netns, made));
    }
    let last = setups.split_off(count.saturating_sub(50));
    report("attach, the first ones", setups);
    report("attach, the last fifty", last);
    drop(kept);
    Ok(())
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    println!("{what}: p10 {:?}  p50 {:?}  p90 {:?}  of {}", at(10), at(50), at(90), times.len());
}
